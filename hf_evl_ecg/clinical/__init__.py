"""Recordings as hospitals keep them: what a file is, by its content, and its leads in mV; archives, pages and photographs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
