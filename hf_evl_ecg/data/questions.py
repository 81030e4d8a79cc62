"""Rows with labels, measurements and reports → question–answer items, the same for the same seed.

Yes/no questions come in pairs: one about a label that is there, one about a label that is known not to be. The absent
label is drawn with the frequencies of present ones, so the label asked about gives the answer away as little as one
record allows; `balanced` makes yes and no equally frequent for every question. `conversation_dataset` joins the questions
about a record, for training.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset, Features, List, Value

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.qa.items import (
    choice_question,
    class_list_question,
    closed_question,
    fill_question,
    label_report,
    measurement_question,
    open_question,
    report_question,
)
from hf_evl_ecg.qa.labels import AXIS_LABELS, FINDING_LABELS, PTBXL_SUPERCLASSES, RHYTHM_LABELS
from hf_evl_ecg.qa.prompts import FORMATS, MEASUREMENTS, NO, TASKS, YES
from hf_evl_ecg.sources.table import FEATURES, with_missing

__all__ = [
    "CONVERSATION_FEATURES",
    "QUESTION_FEATURES",
    "conversation_dataset",
    "question_dataset",
    "questions_of_row",
]

FAMILIES = {"diagnosis": (*PTBXL_SUPERCLASSES, *FINDING_LABELS), "rhythm": RHYTHM_LABELS, "axis": AXIS_LABELS}
BROAD_CLASSES = ("STTC", "CD", "HYP")
LOCATION = ("record", "source", "storage", "root", "gain_per_mv", "split", "patient")
QUESTION_FEATURES = Features(
    {name: FEATURES[name] for name in LOCATION}
    | {name: Value("string") for name in ("question", "answer", "format", "task", "unit")}
    | {name: List(Value("string")) for name in ("options", "labels")}
    | {name: Value("float32") for name in ("value", "tolerance")}
)
CONVERSATION_FEATURES = Features(
    {name: FEATURES[name] for name in LOCATION}
    | {"conversations": List({name: Value("string") for name in ("from", "value")})}
)


def question_dataset(
    rows: Dataset,
    *,
    formats: Sequence[str] = FORMATS,
    tasks: Sequence[str] = TASKS,
    classes: Sequence[str] | Sequence[Sequence[str]] | None = None,
    per_record: int | None = None,
    balanced: bool = False,
    report_text: Literal["labels", "original"] = "labels",
    seed: int = 0,
) -> Dataset:
    """Make questions for every row.

    Args:
        rows: Dataset with the columns of `hf_evl_ecg.sources.table.FEATURES`.
        formats: Formats to make, of `FORMATS`.
        tasks: Tasks to make, of `TASKS`.
        classes: Also ask which of these labels apply (format "open"), for rows where all of them are known: a list of labels, or
            several lists, each of which is asked about by itself.
        per_record: Keep at most this many questions of a record, chosen at random.
        balanced: Ask yes/no questions about every known label, and keep as many with "yes" as with "no" of each label (and of
            each threshold of a measurement) in each split, chosen at random: what is asked says nothing about the answer.
        report_text: Answer report questions with a text made of labels and measurements, or with the original report.
        seed: Seed of every choice.

    Returns:
        One row per question: where the ECG lies, and the keys of `hf_evl_ecg.qa.items.QA_KEYS`; `load_ecg` accepts its rows.

    Raises:
        ValueError: An unknown format, task or option, or no question can be made.

    Example:
        >>> from hf_evl_ecg.sources.simulated import load_simulated
        >>> rows, _ = load_simulated(1, classes=["NORM"])
        >>> question_dataset(rows, tasks=["heart_rate"], formats=["fill"])[0]["answer"]
        '98 beats per minute'
    """
    given = {"formats": formats, "tasks": tasks, "report_text": (report_text,)}
    for name, allowed in {"formats": FORMATS, "tasks": TASKS, "report_text": ("labels", "original")}.items():
        if unknown := [value for value in given[name] if value not in allowed]:
            raise ValueError(f"{name}={unknown}: allowed are {', '.join(allowed)}")
    if per_record is not None:
        check_at_least("per_record", per_record, 1)
    if balanced and per_record is not None:
        raise ValueError(
            f"balanced and per_record={per_record}: leaving questions out record by record would undo the balance "
            "(give one of them)"
        )
    lists: Sequence[Any] = [classes] if classes and isinstance(classes[0], str) else list(classes or ())
    counts = Counter(label for labels in rows["labels"] for label in labels)
    values_of = {task: [value for value in rows[task] if value is not None] for task in MEASUREMENTS}
    made: list[dict[str, Any]] = []
    for row in rows:
        # By name, so that a record's choices do not depend on which come before it.
        rng = random.Random(f"{seed}:{row['source']}:{row['record']}")
        items = questions_of_row(row, rng, counts, values_of, formats, tasks, report_text, every_label=balanced)
        for asked in lists:
            if set(asked) <= set(row["known_labels"]):
                items.append(class_list_question(row["record"], asked, [c for c in row["labels"] if c in asked]))
        if per_record is not None and len(items) > per_record:
            items = [items[i] for i in sorted(rng.sample(range(len(items)), per_record))]
        made += [{name: row.get(name) for name in (*LOCATION, "missing")} | item for item in items]
    if balanced:
        made = _balance(made, random.Random(f"{seed}:balance"))
    if not made:
        silent = [name for name in ("labels", "rhythm", "axis", "report", *MEASUREMENTS) if not any(rows[name])]
        text = f"formats={list(formats)}, tasks={list(tasks)}: no such question can be made from these rows"
        raise ValueError(text + f", in none of which there are {', '.join(silent)}" * bool(silent))
    asked = Dataset.from_dict({name: [item[name] for item in made] for name in QUESTION_FEATURES}, QUESTION_FEATURES)
    return with_missing(asked, [item["missing"] for item in made])


def conversation_dataset(questions: Dataset, turns: int, *, seed: int = 0) -> Dataset:
    """Gather the questions about a record into conversations, so that training reads its image once for several answers.

    The order of a record's questions is random, so that any of them comes first, where only the image can answer it.

    Args:
        questions: Dataset with the columns `QUESTION_FEATURES`.
        turns: At most this many questions per conversation; a record with more gets several of about equal length.
        seed: Seed of the order.

    Returns:
        One row per conversation, in LLaVA's form: where the ECG lies, and ``conversations``, a list of
        ``{"from": "human" | "gpt", "value": text}``. Records in order of their first question.

    Raises:
        ValueError: ``turns`` below 1.

    Example:
        >>> from hf_evl_ecg.sources.simulated import load_simulated
        >>> questions = question_dataset(load_simulated(1, classes=["AF"])[0], tasks=["rhythm"], formats=["fill"])
        >>> conversation_dataset(questions, 8)[0]["conversations"]
        [{'from': 'human', 'value': 'Complete the sentence: The rhythm is ____.'}, {'from': 'gpt', 'value': 'atrial fibrillation'}]
    """
    check_at_least("turns", turns, 1)
    of_record: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for item in questions:
        of_record[tuple(item[name] for name in LOCATION)].append(item)
    made: dict[str, list[Any]] = {name: [] for name in CONVERSATION_FEATURES}
    missing: list[str | None] = []
    for location, items in of_record.items():
        random.Random(":".join(map(str, (seed, *location)))).shuffle(items)
        parts = -(-len(items) // turns)
        missing += [items[0].get("missing")] * parts
        for part in range(parts):
            for name, value in zip(LOCATION, location, strict=True):
                made[name].append(value)
            made["conversations"].append(
                [
                    {"from": role, "value": item[key]}
                    for item in items[part::parts]
                    for role, key in (("human", "question"), ("gpt", "answer"))
                ]
            )
    return with_missing(Dataset.from_dict(made, CONVERSATION_FEATURES), missing)


def _balance(items: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Keep as many yes/no questions with "yes" as with "no", in each split and for each label or threshold."""
    sides: defaultdict[tuple[str, ...], dict[str, list[int]]] = defaultdict(lambda: {YES: [], NO: []})
    for index, item in enumerate(items):
        if item["format"] == "closed":
            about = item["labels"][0] if item["labels"] else item["question"]
            sides[item["split"], item["task"], about][item["answer"]].append(index)
    kept = {index for index, item in enumerate(items) if item["format"] != "closed"}
    for sides_of_one in sides.values():
        size = min(map(len, sides_of_one.values()))
        for indices in sides_of_one.values():
            kept.update(rng.sample(indices, size))
    return [items[index] for index in sorted(kept)]


def questions_of_row(
    row: Mapping[str, Any],
    rng: random.Random,
    counts: Mapping[str, int],
    values_of: Mapping[str, Sequence[float]],
    formats: Sequence[str] = FORMATS,
    tasks: Sequence[str] = TASKS,
    report_text: str = "labels",
    *,
    every_label: bool = False,
) -> list[dict[str, Any]]:
    """Make every question that one row can answer.

    Args:
        row: A row with the columns of `hf_evl_ecg.sources.table.FEATURES`.
        rng: Source of every choice.
        counts: How often each label occurs, for drawing absent ones.
        values_of: All values of each measurement, for drawing wrong ones.
        formats: Formats to make.
        tasks: Tasks to make.
        report_text: "labels" or "original".
        every_label: Ask a yes/no question about every known label, not about one that is there and one that is not.
    """
    items: list[dict[str, Any]] = []
    for task, family in FAMILIES.items():
        if task in tasks:
            items += _label_questions(row, task, family, rng, counts, formats, every_label)
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
    every_label: bool,
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
        asked, denied = both, absent
        if not every_label:
            asked = [rng.choice(both)] if both else []
            denied = rng.choices(absent, [counts[label] for label in absent]) if absent else []
        items += [closed_question(record, task, label, True, rng) for label in asked]
        items += [closed_question(record, task, label, False, rng) for label in denied]
    if "choice" in formats and named and absent:
        distractors = rng.sample(absent, min(3, len(absent)))
        items.append(choice_question(record, task, rng.choice(named), distractors, rng))
    return items


def _specific(labels: Iterable[str]) -> list[str]:
    """Leave broad classes out where something more specific is named."""
    labels = list(labels)
    return [label for label in labels if label not in BROAD_CLASSES] or labels
