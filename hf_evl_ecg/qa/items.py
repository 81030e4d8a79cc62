"""Question–answer items of five formats, built from labels, measurements and reports.

An item is a plain dict with the keys of `QA_KEYS`; builders are deterministic given their `random.Random`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from hf_evl_ecg.arguments import check_between, check_choice

from .labels import label_text
from .prompts import (
    CHOICE,
    CHOICE_LETTERS,
    CLASS_LIST,
    FORMATS,
    MEASUREMENTS,
    NO,
    NOTHING_FOUND,
    QUESTIONS,
    TASKS,
    YES,
    Measurement,
)

__all__ = [
    "QA_KEYS",
    "choice_question",
    "class_list_question",
    "closed_question",
    "fill_question",
    "label_report",
    "measurement_question",
    "open_question",
    "qa_item",
    "report_question",
]

QA_KEYS = ("record", "question", "answer", "format", "task", "options", "labels", "value", "tolerance", "unit")
MAX_CANDIDATES = 64  # other records' values that wrong options are looked for among


def qa_item(record: str, question: str, answer: str, format: str, task: str, **details: Any) -> dict[str, Any]:
    """Assemble a question–answer item; details left out are None.

    Raises:
        ValueError: Unknown format, task or detail, or an empty question or answer.
    """
    if format not in FORMATS or task not in TASKS or not set(details) <= set(QA_KEYS):
        raise ValueError(
            f"format={format!r}, task={task!r}, details={sorted(details)}: allowed are {FORMATS}, {TASKS}, {QA_KEYS[5:]}"
        )
    if not question.strip() or not answer.strip():
        raise ValueError(f"record {record!r}: question={question!r}, answer={answer!r}: neither may be empty")
    item: dict[str, Any] = dict.fromkeys(QA_KEYS)
    return item | {"record": record, "question": question, "answer": answer, "format": format, "task": task} | details


def open_question(record: str, task: str, labels: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Ask what is there; the answer names every label.

    Example:
        >>> open_question("r", "rhythm", ["AF"], random.Random(0))["answer"]
        'atrial fibrillation'
    """
    return _label_item("open", record, task, labels, rng)


def fill_question(record: str, task: str, labels: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Leave a gap for the labels; the answer is what belongs into it.

    Example:
        >>> fill_question("r", "rhythm", ["SR"], random.Random(0))["question"]
        'Complete the sentence: The rhythm is ____.'
    """
    return _label_item("fill", record, task, labels, rng)


def closed_question(record: str, task: str, label: str, present: bool, rng: random.Random) -> dict[str, Any]:
    """Ask whether one label is there; `labels` holds the label asked about, present or not.

    Example:
        >>> closed_question("r", "diagnosis", "RBBB", False, random.Random(0))["answer"]
        'no'
    """
    question = rng.choice(QUESTIONS["closed", task]).format(label=_with_article(label))
    return qa_item(record, question, YES if present else NO, "closed", task, labels=[label])


def choice_question(
    record: str, task: str, correct: str, distractors: Sequence[str], rng: random.Random
) -> dict[str, Any]:
    """Ask for the one option that is there, among labels that are not.

    Raises:
        ValueError: No distractor, more options than letters, or the correct label among the distractors.

    Example:
        >>> choice_question("r", "axis", "LAD", ["RAD", "AXN"], random.Random(0))["options"]
        ['normal axis', 'left axis deviation', 'right axis deviation']
    """
    if correct in distractors:
        raise ValueError(f"correct={correct!r}: it is among the distractors too")
    texts = [label_text(label) for label in (correct, *distractors)]
    question = rng.choice(QUESTIONS["choice", task])
    return _choice_item(record, task, question, texts, rng, labels=[correct])


def class_list_question(record: str, classes: Sequence[str], present: Sequence[str]) -> dict[str, Any]:
    """Ask which of a fixed list of classes apply, as the multi-label tasks of ECGBench do; always the same wording.

    Raises:
        ValueError: A present label is not among the classes.

    Example:
        >>> class_list_question("r", ["AF", "LBBB"], [])["answer"]
        'none of these'
    """
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise ValueError(f"present={unknown}: not among the classes asked about, {list(classes)}")
    found = [label for label in classes if label in present]
    question = CLASS_LIST.format(classes=", ".join(map(label_text, classes)), nothing=NOTHING_FOUND)
    answer = ", ".join(map(label_text, found)) or NOTHING_FOUND
    return qa_item(
        record, question, answer, "open", "diagnosis", labels=found, options=[label_text(c) for c in classes]
    )


def measurement_question(
    record: str, task: str, value: float, format: str, rng: random.Random, others: Sequence[float] = ()
) -> dict[str, Any] | None:
    """Ask about a measured value; None where a yes/no question would hang on less than the tolerance.

    Args:
        record: The record's name.
        task: One of `MEASUREMENTS`.
        value: The measured value, in the measurement's unit.
        format: "open", "closed", "choice" or "fill".
        rng: Source of every choice made here.
        others: The same measurement of other records, from which wrong options are drawn where they suffice, so that a
            right option is no more typical than a wrong one; else they lie evenly around the value.

    Raises:
        ValueError: Unknown task or format, or a value that is not plausible.

    Example:
        >>> measurement_question("r", "heart_rate", 71.6, "fill", random.Random(0))["answer"]
        '72 beats per minute'
    """
    check_choice("task", task, MEASUREMENTS)
    check_choice("format", format, FORMATS[:4])
    kind = MEASUREMENTS[task]
    check_between(f"{record}: {task}", value, *kind.plausible, kind.unit)
    question = rng.choice(QUESTIONS[format, "measurement"])
    details = {"value": float(value), "tolerance": kind.tolerance, "unit": kind.unit}
    if format == "choice":
        texts = [f"{v:.0f} {kind.unit}" for v in (value, *_wrong_values(value, kind, others, rng))]
        return _choice_item(record, task, question.format(name=kind.name), texts, rng, **details)
    if format == "closed":
        clear = [limit for limit in kind.limits if abs(value - limit) > kind.tolerance]
        if not clear:
            return None
        threshold, above = rng.choice(clear), rng.random() < 0.5
        side = "above" if above else "below"
        question = question.format(name=kind.name, side=side, threshold=f"{threshold:g}", unit=kind.unit)
        return qa_item(record, question, YES if (value > threshold) == above else NO, "closed", task, **details)
    question = question.format(name=kind.name, unit=kind.unit)
    return qa_item(record, question, f"{value:.0f} {kind.unit}", format, task, **details)


def report_question(record: str, report: str, rng: random.Random, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Ask for a report; the answer is the given text, `labels` what it must contain."""
    question = rng.choice(QUESTIONS["report", "report"])
    return qa_item(record, question, report, "report", "report", labels=list(labels) or None)


def label_report(rhythm: str | None, axis: str | None, findings: Sequence[str], measured: Mapping[str, float]) -> str:
    """Write a short report from what is known, in a fixed order.

    Args:
        rhythm: Rhythm label.
        axis: Axis label.
        findings: Further labels.
        measured: Values by the names of `MEASUREMENTS`.

    Returns:
        The report; empty when nothing is known.

    Example:
        >>> label_report("SR", None, ["LVH"], {"heart_rate": 71.6})
        'Rhythm: sinus rhythm. Heart rate: 72 beats per minute. Findings: left ventricular hypertrophy.'
    """
    parts = [f"Rhythm: {label_text(rhythm)}."] if rhythm else []
    for name, kind in MEASUREMENTS.items():
        if name in measured:
            parts.append(f"{kind.name[0].upper()}{kind.name[1:]}: {measured[name]:.0f} {kind.unit}.")
    if axis:
        parts.append(f"Axis: {label_text(axis)}.")
    if findings:
        parts.append(f"Findings: {', '.join(map(label_text, findings))}.")
    return " ".join(parts)


def _label_item(format: str, record: str, task: str, labels: Sequence[str], rng: random.Random) -> dict[str, Any]:
    answer = ", ".join(map(label_text, labels))
    return qa_item(record, rng.choice(QUESTIONS[format, task]), answer, format, task, labels=list(labels))


def _with_article(label: str) -> str:
    text = label_text(label)
    if label in ("NORM", "PAC", "PVC", "PACE", "AXN", "LAD", "RAD", "TAB", "LQT", "WPW"):
        return ("an " if text[0] in "aeiou" else "a ") + text
    return text


def _choice_item(
    record: str, task: str, question: str, texts: Sequence[str], rng: random.Random, **details: Any
) -> dict[str, Any]:
    """Shuffle the options, of which the first is right, and letter them."""
    check_between("number of options", len(texts), 2, len(CHOICE_LETTERS))
    options = list(texts)
    rng.shuffle(options)
    lettered = [f"{letter}. {text}" for letter, text in zip(CHOICE_LETTERS, options, strict=False)]
    full = CHOICE.format(question=question, options=" ".join(lettered))
    answer = lettered[options.index(texts[0])]
    return qa_item(record, full, answer, "choice", task, options=options, **details)


def _wrong_values(value: float, kind: Measurement, others: Sequence[float], rng: random.Random) -> list[float]:
    """Return three plausible values, `spacing` or more from the right one and each other, from `others` first.

    How many of them are smaller than the right one is drawn first, evenly where there is room: the right value must not be
    the middle one more often than chance. Values made up lie a quarter wider apart than `spacing`, to survive rounding.
    """
    room = [
        int((value - kind.plausible[0]) // (1.25 * kind.spacing)),
        int((kind.plausible[1] - value) // (1.25 * kind.spacing)),
    ]
    below = rng.choice([n for n in range(4) if n <= room[0] and 3 - n <= room[1]])
    candidates = rng.sample(list(others), min(len(others), MAX_CANDIDATES))
    wrong: list[float] = []
    for sign, count in ((-1, below), (1, 3 - below)):
        limit = kind.plausible[0] if sign < 0 else kind.plausible[1]
        side: list[float] = []
        for candidate in candidates:
            gap = min([abs(candidate - v) for v in (value, *side)])
            if len(side) < count and sign * (candidate - value) > 0 and gap >= kind.spacing:
                side.append(candidate)
        if len(side) < count:  # not enough: spread evenly away from the value
            step = min(1.25 * kind.spacing, abs(limit - value) / count)
            side = [value + sign * step * (i + 1) for i in range(count)]
        wrong += side
    return wrong
