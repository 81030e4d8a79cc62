"""Reasoning step by step: chains of questions with known answers, asked one turn after the other, scored up to the first error."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
