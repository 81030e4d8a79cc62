from .app import AppArguments
from .cache import CacheArguments
from .card import CardArguments
from .convert import ConvertArguments
from .distil import DistillArguments
from .evaluate import EvaluateArguments
from .export import ExportArguments
from .interpret import InterpretArguments
from .options import ImageOptions, LoraOptions, PageOptions
from .parser import HelpFormatter, option_tokens, parse_arguments
from .prepare import PrepareArguments
from .publish import PublishArguments
from .study import Stage, Study, StudyArguments
from .teach import TeacherArguments

__all__ = [
    "AppArguments",
    "CacheArguments",
    "CardArguments",
    "ConvertArguments",
    "DistillArguments",
    "EvaluateArguments",
    "ExportArguments",
    "HelpFormatter",
    "ImageOptions",
    "InterpretArguments",
    "LoraOptions",
    "PageOptions",
    "PrepareArguments",
    "PublishArguments",
    "Stage",
    "Study",
    "StudyArguments",
    "TeacherArguments",
    "option_tokens",
    "parse_arguments",
]
