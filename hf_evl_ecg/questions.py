"""Rows with labels, measurements and reports → question–answer items, the same for the same seed.

Yes/no questions come in pairs: one about a label that is there, one about a label that is known not to be. The absent
label is drawn with the frequencies of present ones, so the label asked about does not give the answer away.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset, Features, List, Value

from .labels import AXIS_LABELS, FINDING_LABELS, PTBXL_SUPERCLASSES, RHYTHM_LABELS
from .prompts import (
    FORMATS,
    MEASUREMENTS,
    TASKS,
    choice_question,
    class_list_question,
    closed_question,
    fill_question,
    label_report,
    measurement_question,
    open_question,
    report_question,
)
from .rows import FEATURES

__all__ = ["QUESTION_FEATURES", "question_dataset", "questions_of_row"]

FAMILIES = {"diagnosis": (*PTBXL_SUPERCLASSES, *FINDING_LABELS), "rhythm": RHYTHM_LABELS, "axis": AXIS_LABELS}
BROAD_CLASSES = ("STTC", "CD", "HYP")
LOCATION = ("record", "source", "storage", "root", "gain_per_mv", "split", "patient")
QUESTION_FEATURES = Features(
    {name: FEATURES[name] for name in LOCATION}
    | {name: Value("string") for name in ("question", "answer", "format", "task", "unit")}
    | {name: List(Value("string")) for name in ("options", "labels")}
    | {name: Value("float32") for name in ("value", "tolerance")}
)


def question_dataset(
    rows: Dataset,
    *,
    formats: Sequence[str] = FORMATS,
    tasks: Sequence[str] = TASKS,
    classes: Sequence[str] | None = None,
    per_record: int | None = None,
    report_text: Literal["labels", "original"] = "labels",
    seed: int = 0,
) -> Dataset:
    """Make questions for every row.

    Args:
        rows: Dataset with the columns of `hf_evl_ecg.rows.FEATURES`.
        formats: Formats to make, of `FORMATS`.
        tasks: Tasks to make, of `TASKS`.
        classes: Also ask which of these labels apply (format "open"), for rows where all of them are known.
        per_record: Keep at most this many questions of a record, chosen at random.
        report_text: Answer report questions with a text made of labels and measurements, or with the original report.
        seed: Seed of every choice.

    Returns:
        One row per question: where the ECG lies, and the keys of `prompts.QA_KEYS`; `load_ecg` accepts its rows.

    Raises:
        ValueError: An unknown format, task or option, or no question can be made.

    Example:
        >>> rows, report = load_ludb("ludb")                                    # doctest: +SKIP
        >>> question_dataset(rows, tasks=["heart_rate"], formats=["fill"])[0]["answer"]  # doctest: +SKIP
        '45 beats per minute'
    """
    unknown = [name for name in formats if name not in FORMATS] + [name for name in tasks if name not in TASKS]
    if unknown or report_text not in ("labels", "original") or (per_record is not None and per_record < 1):
        raise ValueError(
            f"unknown {unknown}, report_text={report_text!r}, per_record={per_record}; allowed: formats {FORMATS}, "
            f"tasks {TASKS}, report_text 'labels' or 'original', per_record 1 or more"
        )
    counts = Counter(label for labels in rows["labels"] for label in labels)
    values_of = {task: [value for value in rows[task] if value is not None] for task in MEASUREMENTS}
    columns: dict[str, list[Any]] = {name: [] for name in QUESTION_FEATURES}
    for row in rows:
        rng = random.Random(f"{seed}:{row['source']}:{row['record']}")
        items = questions_of_row(row, rng, counts, values_of, formats, tasks, report_text)
        if classes is not None and set(classes) <= set(row["known_labels"]):
            items.append(class_list_question(row["record"], classes, [c for c in row["labels"] if c in classes]))
        if per_record is not None and len(items) > per_record:
            items = [items[i] for i in sorted(rng.sample(range(len(items)), per_record))]
        for item in items:
            full = {name: row[name] for name in LOCATION} | item
            for name, values in columns.items():
                values.append(full[name])
    if not columns["question"]:
        raise ValueError(f"no question of formats {list(formats)} and tasks {list(tasks)} can be made from these rows")
    return Dataset.from_dict(columns, features=QUESTION_FEATURES)


def questions_of_row(
    row: Mapping[str, Any],
    rng: random.Random,
    counts: Mapping[str, int],
    values_of: Mapping[str, Sequence[float]],
    formats: Sequence[str] = FORMATS,
    tasks: Sequence[str] = TASKS,
    report_text: str = "labels",
) -> list[dict[str, Any]]:
    """Make every question that one row can answer.

    Args:
        row: A row with the columns of `hf_evl_ecg.rows.FEATURES`.
        rng: Source of every choice.
        counts: How often each label occurs, for drawing absent ones.
        values_of: All values of each measurement, for drawing wrong ones.
        formats: Formats to make.
        tasks: Tasks to make.
        report_text: "labels" or "original".
    """
    items: list[dict[str, Any]] = []
    for task, family in FAMILIES.items():
        if task in tasks:
            items += _label_questions(row, task, family, rng, counts, formats)
    for task in MEASUREMENTS:
        if task in tasks and row[task] is not None:
            wanted = [name for name in formats if name != "report"]
            made = [measurement_question(row["record"], task, row[task], f, rng, values_of[task]) for f in wanted]
            items += [item for item in made if item is not None]
    if "report" in tasks and "report" in formats:
        findings = _specific([label for label in row["labels"] if label in FAMILIES["diagnosis"]])
        measured = {name: row[name] for name in MEASUREMENTS if row[name] is not None}
        text = (
            row["report"] if report_text == "original" else label_report(row["rhythm"], row["axis"], findings, measured)
        )
        if text:
            items.append(report_question(row["record"], text, rng, row["labels"]))
    return items


def _label_questions(
    row: Mapping[str, Any],
    task: str,
    family: Sequence[str],
    rng: random.Random,
    counts: Mapping[str, int],
    formats: Sequence[str],
) -> list[dict[str, Any]]:
    record = row["record"]
    present: list[str] = [label for label in row["labels"] if label in family]
    if task == "diagnosis":
        named = _specific(present)
    else:  # one rhythm and one axis, or none that is sure
        named = [row[task]] if row[task] is not None else []
    absent = [label for label in row["known_labels"] if label in family and label not in present and counts.get(label)]
    items = []
    if "open" in formats and named:
        items.append(open_question(record, task, named, rng))
    if "fill" in formats and named:
        items.append(fill_question(record, task, named, rng))
    if "closed" in formats:
        both = [label for label in present if label in row["known_labels"]]  # never ask what has only one answer
        if both:
            items.append(closed_question(record, task, rng.choice(both), True, rng))
        if absent:
            items.append(closed_question(record, task, rng.choices(absent, [counts[x] for x in absent])[0], False, rng))
    if "choice" in formats and named and absent:
        distractors = rng.sample(absent, min(3, len(absent)))
        items.append(choice_question(record, task, rng.choice(named), distractors, rng))
    return items


def _specific(labels: Iterable[str]) -> list[str]:
    """Leave broad classes out where something more specific is named."""
    labels = list(labels)
    return [label for label in labels if label not in BROAD_CLASSES] or labels
