"""Published benchmarks: their questions to answers of a model to scores, strict and as released, with any judge."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
