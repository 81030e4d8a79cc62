"""Search in stages: few bytes of every vector, more of those that are left, floats of the last."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
