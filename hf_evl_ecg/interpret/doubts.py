"""Why an answer should be doubted: it contradicts the label scores, or is to a kind of question that was never learnt or measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.utils import cached_file

from hf_evl_ecg.chat.question_kinds import OTHER, question_kind
from hf_evl_ecg.qa.grading import task_words
from hf_evl_ecg.qa.labels import AXIS_LABELS, LABELS, RHYTHM_LABELS, label_text
from hf_evl_ecg.qa.parsing import parse_labels, parse_yes_no

__all__ = ["KnownKinds", "answer_conflicts", "read_measured"]

HALF = 0.5  # a score above says "yes"
_NORMAL = ("NORM", "SR", "AXN")


def answer_conflicts(question: str, answer: str, scores: Mapping[str, float]) -> list[str]:
    """Where an answer says other than the label scores of the same model about the same picture.

    A label that the answer names must be scored above a half, one that it denies at most that; a normal ECG leaves room for no other
    label, a rhythm for none above itself. A yes or no counts for the label that the question names.

    Args:
        question: What was asked.
        answer: The answer.
        scores: Label → probability, of the labels that were scored.

    Returns:
        A sentence for each conflict.

    Example:
        >>> answer_conflicts("What does this ECG show?", "left bundle branch block", {"AF": 0.0, "LBBB": 0.0})
        ['the answer names left bundle branch block, whose own score is 0.00']
    """
    named, denied = _said(question, answer)
    lines = [
        f"the answer names {label_text(code)}, whose own score is {scores[code]:.2f}"
        for code in named
        if scores.get(code, 1.0) < HALF
    ]
    lines += [
        f"the answer denies {label_text(code)}, whose own score is {scores[code]:.2f}"
        for code in denied
        if scores.get(code, 0.0) > HALF
    ]
    for code in named:
        rivals: Sequence[str] = ()
        if code == "NORM":
            rivals = [other for other in scores if other not in _NORMAL]
        elif code not in scores:  # those of one family exclude each other
            rivals = next((family for family in (RHYTHM_LABELS, AXIS_LABELS) if code in family), ())
        above = [other for other in rivals if other not in named and scores.get(other, 0.0) > HALF]
        lines += [f"the answer names {label_text(code)}, but {label_text(o)} scores {scores[o]:.2f}" for o in above]
    return lines


def _said(question: str, answer: str) -> tuple[tuple[str, ...], list[str]]:
    """Codes that an answer asserts, and those it denies."""
    asked = parse_labels(question, list(LABELS)).labels
    if len(asked) == 1 and (said := parse_yes_no(answer, asked[0])) is not None:
        return (asked, []) if said else ((), [asked[0]])
    named = parse_labels(answer, list(LABELS)).labels
    return named, [code for code in LABELS if code not in named and parse_labels(answer, [code]).parsed]


@dataclass(frozen=True)
class KnownKinds:
    """Which kinds of questions a model was trained on, and which were measured.

    Attributes:
        trained: Kind → training questions; empty: not known.
        measured: Kind in words → what was measured, one line each; empty: not known.

    Example:
        >>> known = KnownKinds({"rhythm_closed": 90}, {"rhythm (yes/no)": ["accuracy 0.81 (ludb, test records)"]})
        >>> known.doubts("Write a report on this ECG.")
        ['this kind of question (report) was not in the training, which had rhythm (yes/no)', 'and was not measured']
        >>> known.results("Does this ECG show atrial fibrillation?")
        ['accuracy 0.81 (ludb, test records)']
    """

    trained: Mapping[str, int]
    measured: Mapping[str, Sequence[str]]

    def doubts(self, question: str) -> list[str]:
        """Why answers to such a question should be doubted."""
        kind, lines = question_kind(question), []
        words = "of other words" if kind == OTHER else task_words(kind)
        if self.trained and kind not in self.trained:
            had = ", ".join(task_words(name) for name in self.trained)
            lines.append(f"this kind of question ({words}) was not in the training, which had {had}")
        if self.measured and words not in self.measured:
            lines.append("and was not measured" if lines else f"this kind of question ({words}) was not measured")
        return lines

    def results(self, question: str) -> list[str]:
        """What was measured of such questions."""
        return list(self.measured.get(task_words(question_kind(question)), ()))


def read_measured(model: str | Path, **hub_options: Any) -> dict[str, list[str]]:
    """What a model's card says was measured, by kind of question in words; nothing where there is no card or no such results.

    Args:
        model: Folder of a model, or its name on the Hub.
        hub_options: ``revision``, ``token``, ``cache_dir`` … for a name on the Hub.
    """
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
    try:
        path = cached_file(str(model), "README.md", **quiet, **hub_options)
        results = ModelCard.load(path).data.eval_results if path else None
    except (OSError, ValueError):  # no card, or one that is none
        return {}
    found: dict[str, list[str]] = {}
    for result in results or ():
        metric, _, words = (result.metric_name or "").partition(", ")
        if words and isinstance(result.metric_value, int | float):
            found.setdefault(words, []).append(f"{metric} {result.metric_value:.2f} ({result.dataset_name})")
    return found
