"""Files → an ECG: WFDB headers and samples, checked before anything is decoded, one error for all that is wrong."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
