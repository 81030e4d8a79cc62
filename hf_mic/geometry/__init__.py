"""The shape of a cloud of embeddings at each prefix: measures, a callback that logs them, a report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
