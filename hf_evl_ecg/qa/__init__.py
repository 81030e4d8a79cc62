"""Questions about ECGs, the answers to them, and what they score. Needs numpy and scipy only, but for `evaluate_metric`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
