"""Files → an ECG and its waves: WFDB headers, samples and annotations, checked first, one error for all that is wrong."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
