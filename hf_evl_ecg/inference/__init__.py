"""Asking a model: written answers, streamed answers, likelihoods of labels, and the evaluation of many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
