"""An encoder → the Hub, read back and compared before it is tagged."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
