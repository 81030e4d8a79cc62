from .calibration import fit_temperature, option_probabilities, reliability_bins
from .evaluate_metric import ECGAnswerMetric
from .grading import Grade, candidate_answers, grade
from .groups import Answer
from .labels import LABELS, Label, label_text
from .prompts import REPORT_QUESTION, RHYTHM_QUESTION
from .scoring import fit_temperatures, score_answers

__all__ = [
    "LABELS",
    "REPORT_QUESTION",
    "RHYTHM_QUESTION",
    "Answer",
    "ECGAnswerMetric",
    "Grade",
    "Label",
    "candidate_answers",
    "fit_temperature",
    "fit_temperatures",
    "grade",
    "label_text",
    "option_probabilities",
    "reliability_bins",
    "score_answers",
]
