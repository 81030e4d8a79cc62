"""One ECG → a report: the interpreter, what it was shown, and a page that prints to scale."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
