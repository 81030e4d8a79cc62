"""The verbs of ``hf-mic VERB …``: one module each, with the dataclass of its options and an importable ``main``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
