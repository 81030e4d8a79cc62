from .answer import AnswerArguments
from .app import AppArguments
from .cache import CacheArguments
from .card import CardArguments
from .convert import ConvertArguments
from .distil import DistillArguments
from .evaluate import BenchmarkArguments, EvaluateArguments
from .export import ExportArguments
from .interpret import InterpretArguments
from .interpret_folder import InterpretFolderArguments
from .job import JobArguments
from .plan import PlanArguments
from .prepare import PrepareArguments
from .publish import PublishArguments
from .study import Stage, Study, StudyArguments
from .teach import TeacherArguments

__all__ = [
    "AnswerArguments",
    "AppArguments",
    "BenchmarkArguments",
    "CacheArguments",
    "CardArguments",
    "ConvertArguments",
    "DistillArguments",
    "EvaluateArguments",
    "ExportArguments",
    "InterpretArguments",
    "InterpretFolderArguments",
    "JobArguments",
    "PlanArguments",
    "PrepareArguments",
    "PublishArguments",
    "Stage",
    "Study",
    "StudyArguments",
    "TeacherArguments",
]
