"""What a distillation will need before it starts: parameters, FLOP, memory, time, and what would make it fit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
