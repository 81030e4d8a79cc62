"""The verbs of the command line, one module each: options, and a ``main`` that can be called with them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
