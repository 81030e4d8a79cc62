"""What could be used instead of EVL-ECG: other distillation losses by their sources, and presets of all methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
