"""A page to ask a model about an ECG, in a browser: uploads, answers as they are written, label scores. Needs gradio."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
