from .options import HelpFormatter, parse_options

__all__ = ["HelpFormatter", "parse_options"]
