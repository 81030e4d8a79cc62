"""Command lines: dataclasses as options, values of a YAML file before them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
