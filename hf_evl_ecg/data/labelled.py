"""Training records of which only some have their answers: what a hospital has, whose pages outnumber its labels."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, concatenate_datasets

from hf_evl_ecg.qa.prompts import NO
from hf_evl_ecg.sources.table import with_missing

from .questions import CONVERSATION_FEATURES, LOCATION, QUESTION_FEATURES, conversation_dataset

__all__ = ["check_share", "keep_answers", "labelled_records", "training_conversations"]

_KNOWN = ("answer", "labels", "value", "tolerance")  # what tells the answer


def keep_answers(questions: Dataset, share: float, *, seed: int = 0) -> Dataset:
    """Keep the answers about a share of the records; the others keep their questions, without anything that tells the answer.

    Args:
        questions: Dataset with the columns `hf_evl_ecg.data.questions.QUESTION_FEATURES`.
        share: Share of the records, above 0 and at most 1; see `labelled_records`.
        seed: Another seed keeps others.

    Raises:
        ValueError: A share out of range.

    Example:
        >>> from hf_evl_ecg.data.questions import question_dataset
        >>> from hf_evl_ecg.sources.simulated import load_simulated
        >>> rows, _ = load_simulated(2, classes=["AF"])
        >>> half = keep_answers(question_dataset(rows, tasks=["rhythm"], formats=["fill"]), 0.5)
        >>> half["answer"][:]
        [None, 'atrial fibrillation']
    """
    kept = labelled_records(questions, share, seed=seed)
    columns: dict[str, list[Any]] = {name: questions[name][:] for name in QUESTION_FEATURES}
    for row, place in enumerate(zip(*(columns[name] for name in LOCATION), strict=True)):
        if place not in kept:
            for name in _KNOWN:
                columns[name][row] = None
    missing = questions["missing"][:] if "missing" in questions.column_names else []
    return with_missing(Dataset.from_dict(columns, QUESTION_FEATURES), missing)


def labelled_records(questions: Dataset, share: float, *, seed: int = 0) -> set[tuple[Any, ...]]:
    """Draw the records whose answers are kept, the same share of each source and, as far as it goes, of each finding.

    Records are ordered by source, by the labels that their answers name, and by chance, and taken at equal distances: every run of
    records that are alike gives its share.

    Args:
        questions: Dataset with the columns `hf_evl_ecg.data.questions.QUESTION_FEATURES`.
        share: Share of the records, above 0 and at most 1.
        seed: Another seed draws others.

    Returns:
        Values of `hf_evl_ecg.data.questions.LOCATION` of each; one record at least.

    Raises:
        ValueError: A share out of range.
    """
    check_share(share)
    found: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    for item in questions:
        found[_place(item)].update(item["labels"] or () if item["answer"] != NO else ())

    def order(place: tuple[Any, ...]) -> tuple[Any, ...]:
        name = ":".join(map(str, place))
        return place[1], sorted(found[place]), hashlib.sha256(f"{seed}:{name}".encode()).digest()

    records = sorted(found, key=order)
    start = random.Random(seed).random()
    taken = {place for i, place in enumerate(records) if int((i + 1) * share + start) > int(i * share + start)}
    return taken or {records[0]}


def training_conversations(questions: Dataset, turns: int, *, seed: int = 0) -> Dataset:
    """`hf_evl_ecg.data.questions.conversation_dataset` for records of which only some have answers.

    A record without answers becomes one conversation, whose only turn is its first question: a second one could not follow, and the
    picture, not the question, is what is learnt from.

    Args:
        questions: From `keep_answers`.
        turns: At most this many questions per conversation of a record with answers.
        seed: Seed of their order.

    Example:
        >>> from hf_evl_ecg.data.questions import question_dataset
        >>> from hf_evl_ecg.sources.simulated import load_simulated
        >>> questions = question_dataset(load_simulated(2, classes=["AF"])[0], tasks=["rhythm"], formats=["fill"])
        >>> [len(row["conversations"]) for row in training_conversations(keep_answers(questions, 0.5), 8)]
        [2, 1]
    """
    answered = [row for row, answer in enumerate(questions["answer"]) if answer is not None]
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in questions:
        if item["answer"] is None:
            first.setdefault(_place(item), item)
    made: dict[str, list[Any]] = {name: [item[name] for item in first.values()] for name in LOCATION}
    made["conversations"] = [[{"from": "human", "value": item["question"]}] for item in first.values()]
    parts = [
        conversation_dataset(questions.select(answered), turns, seed=seed),
        with_missing(Dataset.from_dict(made, CONVERSATION_FEATURES), [item.get("missing") for item in first.values()]),
    ]
    return concatenate_datasets(parts)


def check_share(share: float) -> None:
    """Refuse what is no share of records.

    Raises:
        ValueError: Such a number.

    Example:
        >>> check_share(0)
        Traceback (most recent call last):
        ValueError: labelled_share=0: must be above 0 and at most 1
    """
    if not 0 < share <= 1:
        raise ValueError(f"labelled_share={share}: must be above 0 and at most 1")


def _place(item: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(item[name] for name in LOCATION)
