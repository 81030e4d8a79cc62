from .answer_file import AnswerFileError
from .evaluation import Evaluation, answer_items, evaluate_model
from .generation import generate_answers
from .label_scores import LabelScorer, check_labels
from .likelihood import option_log_likelihoods
from .streaming import stream_answer
from .taught_answers import has_taught_answers, teach_answers

__all__ = [
    "AnswerFileError",
    "Evaluation",
    "LabelScorer",
    "answer_items",
    "check_labels",
    "evaluate_model",
    "generate_answers",
    "has_taught_answers",
    "option_log_likelihoods",
    "stream_answer",
    "teach_answers",
]
