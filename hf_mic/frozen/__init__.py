"""Maps fitted on embeddings that are already computed, and trainable heads on top of an encoder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
