from .options import ImageOptions, LoraOptions, PageOptions
from .parser import HelpFormatter, option_tokens, parse_arguments
from .stages import Stage, folder_fingerprint

__all__ = [
    "HelpFormatter",
    "ImageOptions",
    "LoraOptions",
    "PageOptions",
    "Stage",
    "folder_fingerprint",
    "option_tokens",
    "parse_arguments",
]
