"""Every prompt and answer format: questions of five formats from labels, measurements and reports.

A question–answer item is a plain dict with the keys of `QA_KEYS`; builders are deterministic given their `random.Random`.
Formats: `open` (name what is there), `closed` (yes/no), `choice` (lettered options), `fill` (complete the sentence),
`report` (describe the ECG).
"""

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import label_text

__all__ = [
    "CHOICE_LETTERS",
    "FORMATS",
    "IMAGE_TOKEN",
    "MEASUREMENTS",
    "NO",
    "NOTHING_FOUND",
    "PULSE_SYSTEM",
    "QA_KEYS",
    "TASKS",
    "YES",
    "Measurement",
    "choice_question",
    "class_list_question",
    "closed_question",
    "fill_question",
    "label_report",
    "measurement_question",
    "open_question",
    "pulse_prompt",
    "qa_item",
    "report_question",
]

FORMATS = ("open", "closed", "choice", "fill", "report")
TASKS = ("diagnosis", "rhythm", "axis", "heart_rate", "pr_interval", "qrs_duration", "qt_interval", "report")
QA_KEYS = ("record", "question", "answer", "format", "task", "options", "labels", "value", "tolerance", "unit")
IMAGE_TOKEN = "<image>"
YES, NO = "yes", "no"
NOTHING_FOUND = "none of these"
CHOICE_LETTERS = string.ascii_uppercase[:8]

# LLaVA's Vicuna prompt, which PULSE (arXiv 2410.19008) was trained with.
PULSE_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

QUESTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("open", "diagnosis"): (
        "What does this ECG show?",
        "Which abnormalities can be seen in this ECG?",
        "Name the findings in this ECG.",
    ),
    ("open", "rhythm"): ("What is the rhythm of this ECG?", "Which rhythm does this ECG show?"),
    ("open", "axis"): (
        "What is the electrical axis in this ECG?",
        "How is the electrical axis of the heart in this ECG?",
    ),
    ("closed", "diagnosis"): ("Does this ECG show {label}?", "Is there {label} in this ECG?"),
    ("closed", "rhythm"): ("Is the rhythm of this ECG {label}?", "Does this ECG show {label}?"),
    ("closed", "axis"): ("Does this ECG show {label}?",),
    ("choice", "diagnosis"): ("Which of these findings does this ECG show?", "Which finding is present in this ECG?"),
    ("choice", "rhythm"): ("Which rhythm does this ECG show?", "What is the rhythm of this ECG?"),
    ("choice", "axis"): ("What is the electrical axis in this ECG?",),
    ("fill", "diagnosis"): ("Complete the sentence: This ECG shows ____.",),
    ("fill", "rhythm"): ("Complete the sentence: The rhythm is ____.",),
    ("fill", "axis"): ("Complete the sentence: The electrical axis shows ____.",),
    ("open", "measurement"): (
        "What is the {name} in this ECG, in {unit}?",
        "Measure the {name} of this ECG in {unit}.",
    ),
    ("closed", "measurement"): ("Is the {name} in this ECG {side} {threshold} {unit}?",),
    ("choice", "measurement"): ("Which value is closest to the {name} in this ECG?",),
    ("fill", "measurement"): ("Complete the sentence: The {name} is ____ {unit}.",),
    ("report", "report"): ("Write a report on this ECG.", "Interpret this ECG and write a short report."),
}
CLASS_LIST = (
    "Which of these findings does this ECG show: {classes}? Name every one that applies, or answer '{nothing}'."
)
CHOICE = "{question} {options} Answer with the letter and the text of one option."


@dataclass(frozen=True)
class Measurement:
    """A quantity read off the paper.

    Attributes:
        name: Wording.
        unit: Unit, in words that stand in questions and answers.
        tolerance: An answer within ± this is right: one small square (40 ms) for PR and QT, half of it for QRS.
        spacing: Smallest distance between two options of a multiple-choice question.
        limits: Thresholds for yes/no questions, the usual borders of normal.
        plausible: Values outside are taken for annotation faults and not asked about.
    """

    name: str
    unit: str
    tolerance: float
    spacing: float
    limits: tuple[float, ...]
    plausible: tuple[float, float]


MEASUREMENTS = {
    "heart_rate": Measurement("heart rate", "beats per minute", 5.0, 12.0, (60.0, 100.0), (20.0, 300.0)),
    "pr_interval": Measurement("PR interval", "milliseconds", 40.0, 30.0, (120.0, 200.0), (60.0, 500.0)),
    "qrs_duration": Measurement("QRS duration", "milliseconds", 20.0, 20.0, (100.0, 120.0), (30.0, 300.0)),
    "qt_interval": Measurement("QT interval", "milliseconds", 40.0, 40.0, (350.0, 440.0), (200.0, 700.0)),
}


def qa_item(record: str, question: str, answer: str, format: str, task: str, **details: Any) -> dict[str, Any]:
    """Assemble a question–answer item; details left out are None.

    Raises:
        ValueError: Unknown format, task or detail, or an empty question or answer.
    """
    if format not in FORMATS or task not in TASKS or not set(details) <= set(QA_KEYS):
        raise ValueError(
            f"format={format!r}, task={task!r}, details={sorted(details)}; allowed: {FORMATS}, {TASKS}, {QA_KEYS[5:]}"
        )
    if not question.strip() or not answer.strip():
        raise ValueError(f"record {record!r}: a question needs an answer; got {question!r} and {answer!r}")
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
    """Leave a gap for the labels; the answer is what belongs into it."""
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
    """
    if correct in distractors:
        raise ValueError(f"{correct} is given as correct and as a distractor")
    texts = [label_text(label) for label in (correct, *distractors)]
    question = rng.choice(QUESTIONS["choice", task])
    return _choice_item(record, task, question, texts, rng, labels=[correct])


def class_list_question(record: str, classes: Sequence[str], present: Sequence[str]) -> dict[str, Any]:
    """Ask which of a fixed list of classes apply, as the multi-label tasks of ECGBench do; always the same wording.

    Raises:
        ValueError: A present label is not among the classes.
    """
    strangers = sorted(set(present) - set(classes))
    if strangers:
        raise ValueError(f"labels {strangers} are not among the classes asked about; allowed: {list(classes)}")
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
    if task not in MEASUREMENTS or format not in FORMATS[:4]:
        raise ValueError(f"task={task!r}, format={format!r}; allowed: {sorted(MEASUREMENTS)}, {FORMATS[:4]}")
    kind = MEASUREMENTS[task]
    if not kind.plausible[0] <= value <= kind.plausible[1]:
        raise ValueError(
            f"{record}: {task} of {value:g} {kind.unit}; allowed: {kind.plausible[0]:g} to {kind.plausible[1]:g}"
        )
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


def pulse_prompt(question: str) -> str:
    r"""Return the whole text prompt that PULSE-7B expects, up to where it starts to answer.

    Example:
        >>> pulse_prompt("What is the rhythm?")[-44:]
        'USER: <image>\nWhat is the rhythm? ASSISTANT:'
    """
    return f"{PULSE_SYSTEM} USER: {IMAGE_TOKEN}\n{question} ASSISTANT:"


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
    if not 2 <= len(texts) <= len(CHOICE_LETTERS):
        raise ValueError(f"{len(texts)} options; allowed: 2 to {len(CHOICE_LETTERS)}")
    options = list(texts)
    rng.shuffle(options)
    lettered = [f"{letter}. {text}" for letter, text in zip(CHOICE_LETTERS, options, strict=False)]
    full = CHOICE.format(question=question, options=" ".join(lettered))
    answer = lettered[options.index(texts[0])]
    return qa_item(record, full, answer, "choice", task, options=options, **details)


def _wrong_values(value: float, kind: Measurement, others: Sequence[float], rng: random.Random) -> list[float]:
    """Return three plausible values, `spacing` or more from the right one and each other, from `others` first.

    How many of them are smaller than the right one is drawn first, evenly where there is room.
    """
    room = [
        int((value - kind.plausible[0]) // (1.25 * kind.spacing)),
        int((kind.plausible[1] - value) // (1.25 * kind.spacing)),
    ]
    below = rng.choice([n for n in range(4) if n <= room[0] and 3 - n <= room[1]])
    candidates = rng.sample(list(others), min(len(others), 64))
    wrong: list[float] = []
    for sign, count in ((-1, below), (1, 3 - below)):
        limit = kind.plausible[0] if sign < 0 else kind.plausible[1]
        side: list[float] = []
        for candidate in candidates:
            gap = min([abs(candidate - v) for v in (value, *side)])
            if len(side) < count and sign * (candidate - value) > 0 and gap >= kind.spacing:
                side.append(candidate)
        if len(side) < count:  # too few: evenly from the value outwards
            step = min(1.25 * kind.spacing, abs(limit - value) / count)
            side = [value + sign * step * (i + 1) for i in range(count)]
        wrong += side
    return wrong
