"""Scores of whole models: rows per source of records, and the table and picture made from a results json."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
