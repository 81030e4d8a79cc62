"""What an ECG is, and one made up: samples in mV, leads, resampling, simulated records. Needs numpy and scipy only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
