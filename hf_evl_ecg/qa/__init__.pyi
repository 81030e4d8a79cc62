from .calibration import fit_temperature, option_probabilities, reliability_bins
from .evaluate_metric import ECGAnswerMetric
from .grading import Grade, candidate_answers, grade
from .labels import LABELS, Label, label_text
from .scoring import Answer, fit_temperatures, score_answers

__all__ = [
    "LABELS",
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
