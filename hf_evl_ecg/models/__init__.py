"""Reading a vision-language model: loading one, its token features, its patch positions, its fingerprint."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
