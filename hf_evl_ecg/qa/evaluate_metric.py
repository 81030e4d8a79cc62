"""The strict scores of generated answers for the `evaluate` library, without anything to download."""

from typing import Any

import datasets
import evaluate

from .groups import Answer
from .scoring import score_answers

__all__ = ["ECGAnswerMetric"]

_TEXTS = ("record", "question", "answer")
_TEXTS_OR_NONE = ("format", "task", "unit")


class ECGAnswerMetric(evaluate.Metric):
    """`hf_evl_ecg.qa.scoring.score_answers` as an `evaluate.Metric`: predictions are texts, references are items.

    Construct it directly; `evaluate.load` is not needed. Options of `compute` are ``min_per_class`` of `score_answers`;
    there are no intervals, as metrics of that library are single numbers.

    Example:
        >>> item = {"record": "r", "question": "Is there AF?", "answer": "yes", "format": "closed", "task": "rhythm",
        ...         "options": None, "labels": ["AF"], "value": None, "tolerance": None, "unit": None}
        >>> ECGAnswerMetric().compute(predictions=["Yes."], references=[item])["rhythm_closed_accuracy"]
        1.0
    """

    def _info(self) -> evaluate.MetricInfo:
        reference = {name: datasets.Value("string") for name in _TEXTS}
        reference |= {
            name: datasets.Value("large_string") for name in _TEXTS_OR_NONE
        }  # a "string" may not be None there
        reference |= {name: datasets.List(datasets.Value("string")) for name in ("options", "labels")}
        reference |= {name: datasets.Value("float64") for name in ("value", "tolerance")}
        return evaluate.MetricInfo(
            description="Strict scores of generated answers about ECGs, per task.",
            citation="EVL-ECG, arXiv 2605.29977",
            inputs_description="predictions: generated texts; references: items of hf_evl_ecg.qa.items",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": reference}),
        )

    def _compute(self, predictions: list[str], references: list[dict[str, Any]], **options: Any) -> dict[str, float]:
        answers = [Answer(item["record"], text) for item, text in zip(references, predictions, strict=True)]
        rows = score_answers(references, answers, method="", n_bootstrap=0, **options)
        return {f"{row['task']}_{row['metric']}": row["value"] for row in rows}
