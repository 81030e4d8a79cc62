"""Teacher, cache of its features, the criterion with its own weights, and the Trainer that uses them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
