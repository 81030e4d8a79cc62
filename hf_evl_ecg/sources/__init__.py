"""ECG data sets as they are published, and tables of one's own: each loader returns rows of one form and what it left out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
