"""Vectors in few bits: levels, packed bytes, scores read from the bytes, and the file that says what they mean."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
