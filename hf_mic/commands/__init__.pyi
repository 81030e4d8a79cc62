from .adapt import AdaptArguments
from .card import CardArguments
from .evaluate import EvaluateArguments
from .export import ExportArguments
from .inspect import InspectArguments
from .publish import PublishArguments
from .replay import ReplayArguments
from .report import ReportArguments
from .search import SearchArguments
from .serve_check import ServeCheckArguments
from .study import StudyArguments

__all__ = [
    "AdaptArguments",
    "CardArguments",
    "EvaluateArguments",
    "ExportArguments",
    "InspectArguments",
    "PublishArguments",
    "ReplayArguments",
    "ReportArguments",
    "SearchArguments",
    "ServeCheckArguments",
    "StudyArguments",
]
