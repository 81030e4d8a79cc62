"""One question and what a model made of it → what was right, for every format of question."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .labels import AXIS_LABELS, FINDING_LABELS, LABELS, PTBXL_SUPERCLASSES, RHYTHM_LABELS, label_text
from .parsing import parse_labels, parse_number, parse_option, parse_yes_no
from .prompts import CHOICE_LETTERS, FORMATS, MEASUREMENTS, NO, YES

__all__ = [
    "Grade",
    "candidate_answers",
    "grade",
    "item_kind",
    "label_family",
    "label_matrix",
    "plain",
    "task_name",
    "task_words",
]

FAMILIES = {
    "diagnosis": (*PTBXL_SUPERCLASSES, *FINDING_LABELS),
    "rhythm": RHYTHM_LABELS,
    "axis": AXIS_LABELS,
    "report": tuple(LABELS),
}
_FORMS = {form: form for form in ("choice", "open", "classes", "superclasses")} | {
    "closed": "yes/no",
    "fill": "fill in",
}
_CODES = {label.text.lower(): code for code, label in LABELS.items()}


@dataclass(frozen=True)
class Grade:
    """A graded answer.

    Attributes:
        truth: The right answer: True/False, index of an option, number, set of labels, or text.
        predicted: What the model answered, of the same kind; None if nothing could be read, which is never right.
        correct: Whether the two agree (numbers: within the tolerance; reports: share, as F1 of their labels).
    """

    truth: Any
    predicted: Any
    correct: float

    @property
    def parsed(self) -> bool:
        """Whether the answer could be read."""
        return self.predicted is not None


def item_kind(item: Mapping[str, Any]) -> str:
    """How a question is answered: "yes_no", "option", "number", "classes", "labels", "report" or "text".

    Raises:
        ValueError: An unknown format, or an item that lacks what its format needs.
    """
    form = item.get("format")
    if form is None:
        return "text"
    if form not in FORMATS:
        raise ValueError(f"record {item.get('record')!r}: format={form!r}: allowed are {FORMATS}")
    if form == "closed":
        return _need(item, "yes_no", str(item["answer"]).lower() in (YES, NO), f"an answer of {YES!r} or {NO!r}")
    if form == "choice":
        return _need(item, "option", bool(item.get("options")), "options")
    if form == "report":
        return "report"
    if item.get("value") is not None:
        return _need(item, "number", bool(item.get("unit")) and item.get("tolerance") is not None, "unit and tolerance")
    if item.get("options"):
        known = all(option.lower() in _CODES for option in item["options"])
        return _need(item, "classes", known and item.get("labels") is not None, "labels, and options that are labels")
    return _need(
        item, "labels", bool(item.get("labels")) and item["task"] in FAMILIES, f"labels and a task of {FAMILIES}"
    )


def task_name(item: Mapping[str, Any]) -> str:
    """Name of the task an item belongs to in results: what is asked and in which form.

    Example:
        >>> task_name({"format": "closed", "task": "rhythm", "answer": "no"})
        'rhythm_closed'
    """
    kind = item_kind(item)
    if kind == "text":
        return str(item.get("source") or "text")
    if kind == "report":
        return "report"
    if kind == "classes":  # of their own: a data set may ask about its findings beside them
        superclasses = set(label_family(item)) == set(PTBXL_SUPERCLASSES)
        return f"{item['task']}_{'superclasses' if superclasses else 'classes'}"
    return f"{item['task']}_{item['format']}"


def task_words(name: str) -> str:
    """A task's name for readers.

    Example:
        >>> task_words("heart_rate_closed"), task_words("report")
        ('heart rate (yes/no)', 'report')
    """
    asked, _, form = name.rpartition("_")
    return f"{plain(asked)} ({_FORMS[form]})" if form in _FORMS else plain(name)


def plain(name: str) -> str:
    """A name with its intervals spelt as cardiologists do.

    Example:
        >>> plain("qrs_duration")
        'QRS duration'
    """
    return re.sub(r"\b(pr|qrs|qt|st)\b", lambda found: found.group().upper(), name.replace("_", " "))


def label_family(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Codes among which the answer to a question about labels lies."""
    if item_kind(item) == "classes":
        return tuple(_CODES[option.lower()] for option in item["options"])
    return FAMILIES[item["task"]]


def candidate_answers(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Answers whose likelihood is worth knowing; none for numbers, reports and open diagnoses.

    A text has those among its ``options``, as they stand.

    Example:
        >>> candidate_answers({"format": "closed", "task": "rhythm", "answer": "no"})
        ('yes', 'no')
    """
    kind = item_kind(item)
    if kind == "yes_no":
        return YES, NO
    if kind == "option":
        return tuple(f"{letter}. {text}" for letter, text in zip(CHOICE_LETTERS, item["options"], strict=False))
    if kind == "classes" or (kind == "labels" and item["task"] in ("rhythm", "axis")):
        return tuple(label_text(code) for code in label_family(item))
    return tuple(item.get("options") or ()) if kind == "text" else ()


def grade(item: Mapping[str, Any], text: str) -> Grade:
    """Grade a generated answer, reading it strictly (see `hf_evl_ecg.qa.parsing`).

    A measurement outside `prompts.Measurement.plausible` counts as not read: no number would be an answer either.

    Raises:
        ValueError: The item lacks what its format needs.

    Example:
        >>> item = {"format": "fill", "task": "heart_rate", "answer": "72 beats per minute", "value": 72.0,
        ...         "tolerance": 5.0, "unit": "beats per minute"}
        >>> grade(item, "75 bpm").correct
        1.0
    """
    kind = item_kind(item)
    if kind == "yes_no":
        label = (item.get("labels") or [None])[0]
        return _equal(str(item["answer"]).lower() == YES, parse_yes_no(text, label))
    if kind == "option":
        return _equal(_right_option(item), parse_option(text, item["options"]))
    if kind == "number":
        value = parse_number(text, item["unit"])
        low, high = (
            MEASUREMENTS[task].plausible if (task := item.get("task")) in MEASUREMENTS else (-math.inf, math.inf)
        )
        if value is not None and not low <= value <= high:
            value = None  # an absurdly long number would dominate the error
        close = value is not None and abs(value - item["value"]) <= item["tolerance"]
        return Grade(float(item["value"]), value, float(close))
    if kind == "text":
        return _equal(_plain(item["answer"]), _plain(text) or None)
    family = label_family(item)
    answer = parse_labels(text, family)
    predicted = frozenset(answer.labels) if answer.parsed else None
    if kind == "report":
        truth = frozenset(parse_labels(item["answer"], family).labels) or frozenset(item.get("labels") or ())
        return Grade(truth, predicted, _set_f1(truth, predicted or frozenset()))
    return _equal(frozenset(item["labels"]), predicted)


def label_matrix(sets: Sequence[frozenset[str] | None], classes: Sequence[str]) -> np.ndarray:
    """Sets of labels as rows of booleans; nothing for an answer that could not be read. Shape: (n, C)."""
    return np.array([[label in (labels or ()) for label in classes] for labels in sets], bool).reshape(-1, len(classes))


def _right_option(item: Mapping[str, Any]) -> int:
    index = parse_option(item["answer"], item["options"])
    if index is None:
        raise ValueError(
            f"record {item.get('record')!r}: answer={item['answer']!r}: it is none of {list(item['options'])}"
        )
    return index


def _need(item: Mapping[str, Any], kind: str, there: bool, what: str) -> str:
    if not there:
        raise ValueError(
            f"record {item.get('record')!r}: a question of format {item['format']!r} and task {item.get('task')!r} needs "
            f"{what} (build items with hf_evl_ecg.qa.items)"
        )
    return kind


def _equal(truth: Any, predicted: Any) -> Grade:
    return Grade(truth, predicted, float(predicted is not None and predicted == truth))


def _set_f1(truth: frozenset[str], predicted: frozenset[str]) -> float:
    total = len(truth) + len(predicted)
    return 2 * len(truth & predicted) / total if total else 1.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
