"""Examples → tensors: conversations through each model's own template and processor, and which tokens say the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
