"""An ECG → paper: layouts, strokes, artefacts of photographs and scans, and picture files read back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
