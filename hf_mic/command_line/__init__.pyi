from .options import HelpFormatter, make_parser, parse_options, read_words, refuse_unknown, shorten_usage
from .train_arguments import TrainArguments

__all__ = [
    "HelpFormatter",
    "TrainArguments",
    "make_parser",
    "parse_options",
    "read_words",
    "refuse_unknown",
    "shorten_usage",
]
