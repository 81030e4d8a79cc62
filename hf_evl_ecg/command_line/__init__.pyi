from .options import ImageOptions, LoraOptions, PageOptions
from .parser import HelpFormatter, option_tokens, parse_arguments

__all__ = ["HelpFormatter", "ImageOptions", "LoraOptions", "PageOptions", "option_tokens", "parse_arguments"]
