"""What embeddings are worth per dimension and per byte: tasks, scores with intervals, tables and pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
