"""LLaVA checkpoints as they were released (PULSE-7B and its kin) → models native to transformers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
