from .interpret import InterpretArguments
from .options import HelpFormatter, ImageOptions, LoraOptions, parse_arguments
from .prepare import PrepareArguments

__all__ = [
    "HelpFormatter",
    "ImageOptions",
    "InterpretArguments",
    "LoraOptions",
    "PrepareArguments",
    "parse_arguments",
]
