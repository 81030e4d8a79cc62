"""What an embedding is scored on: similarity, classification, retrieval and pair tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "ClassificationTask",
    "PairClassificationTask",
    "RetrievalTask",
    "STSTask",
    "Task",
    "stratified_split",
]


def _check_lengths(name: str, **columns: Sequence) -> None:
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Task {name!r}: these must be equally long, but have {lengths} items.")
    if 0 in lengths.values():
        raise ValueError(f"Task {name!r} is empty: {', '.join(lengths)} have no items.")


@dataclass(frozen=True)
class STSTask:
    """Semantic textual similarity: Spearman's correlation of the similarity of two sentences with people's scores.

    Args:
        name: Name in the results.
        sentences1: First sentences.
        sentences2: Second sentences, equally many.
        scores: Human scores on any scale.
        calibration_texts: Texts whose embeddings set the ranges of int8 quantisation; the scored sentences if empty.
    """

    name: str
    sentences1: Sequence[str]
    sentences2: Sequence[str]
    scores: Sequence[float]
    calibration_texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_lengths(self.name, sentences1=self.sentences1, sentences2=self.sentences2, scores=self.scores)
        if not np.isfinite(np.asarray(self.scores, dtype=float)).all():
            raise ValueError(f"Task {self.name!r}: scores must be finite numbers.")


@dataclass(frozen=True)
class ClassificationTask:
    """Classification of single texts by a linear probe trained on ``train`` and scored on ``test``."""

    name: str
    train_texts: Sequence[str]
    train_labels: Sequence[str]
    test_texts: Sequence[str]
    test_labels: Sequence[str]

    def __post_init__(self) -> None:
        _check_lengths(self.name, train_texts=self.train_texts, train_labels=self.train_labels)
        _check_lengths(self.name, test_texts=self.test_texts, test_labels=self.test_labels)
        if len(set(self.train_labels)) < 2:
            raise ValueError(f"Task {self.name!r}: a classifier needs at least two classes in the training labels.")
        if unseen := set(self.test_labels) - set(self.train_labels):
            raise ValueError(
                f"Task {self.name!r}: test labels {sorted(unseen)[:5]} do not occur in the training labels."
            )


@dataclass(frozen=True)
class RetrievalTask:
    """Retrieval of documents for queries.

    Args:
        name: Name in the results.
        corpus: Document id → text.
        queries: Query id → text. Queries without a judged relevant document are not scored.
        qrels: Query id → (document id → grade); grades above 0 are relevant.
    """

    name: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        if missing := [query for query in self.qrels if query not in self.queries]:
            raise ValueError(f"Task {self.name!r}: {len(missing)} judged queries are unknown, such as {missing[:3]}.")
        judged = {doc for grades in self.qrels.values() for doc in grades}
        if missing := sorted(judged - set(self.corpus)):
            raise ValueError(f"Task {self.name!r}: {len(missing)} judged documents are unknown, such as {missing[:3]}.")
        if not self.judged_queries():
            raise ValueError(f"Task {self.name!r}: no query has a relevant document (grade > 0).")

    def judged_queries(self) -> list[str]:
        """Ids of the queries that have a relevant document, the ones that are scored."""
        return [query for query, grades in self.qrels.items() if any(grade > 0 for grade in grades.values())]


@dataclass(frozen=True)
class PairClassificationTask:
    """Binary classification of text pairs by a similarity threshold chosen on ``dev`` and applied to ``test``.

    Args:
        name: Name in the results.
        dev_pairs: Pairs on which the threshold is chosen.
        dev_labels: 1 for a positive pair, 0 for a negative one.
        test_pairs: Pairs that are scored.
        test_labels: As ``dev_labels``.
    """

    name: str
    dev_pairs: Sequence[tuple[str, str]]
    dev_labels: Sequence[float]
    test_pairs: Sequence[tuple[str, str]]
    test_labels: Sequence[float]

    def __post_init__(self) -> None:
        _check_lengths(self.name, dev_pairs=self.dev_pairs, dev_labels=self.dev_labels)
        _check_lengths(self.name, test_pairs=self.test_pairs, test_labels=self.test_labels)
        for part, labels in (("dev", self.dev_labels), ("test", self.test_labels)):
            if set(labels) != {0, 1}:
                found = sorted(set(labels))[:5]
                raise ValueError(f"Task {self.name!r}: {part} labels must be 0 and 1, both present; found {found}.")


Task = STSTask | ClassificationTask | RetrievalTask | PairClassificationTask


def stratified_split(labels: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split positions into a larger and a smaller part with the same share of every class.

    A class with a single member stays in the first part; every other class has at least one member in both.

    Args:
        labels: Class of each item.
        fraction: Share of the second part, strictly between 0 and 1.
        seed: Seed of the shuffle; the same seed gives the same split.

    Returns:
        Sorted positions of the first and of the second part.

    Raises:
        ValueError: If ``fraction`` is not between 0 and 1.

    Example:
        >>> fit, held = stratified_split(["a"] * 5 + ["b"] * 5, 0.2, seed=0)
        >>> len(fit), len(held)
        (8, 2)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie strictly between 0 and 1, got {fraction}.")
    rng = np.random.default_rng(seed)
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    second: list[int] = []
    for label in range(classes.max() + 1):
        members = rng.permutation(np.flatnonzero(classes == label))
        if len(members) > 1:
            second += members[: min(max(round(fraction * len(members)), 1), len(members) - 1)].tolist()
    chosen = set(second)
    return [i for i in range(len(labels)) if i not in chosen], sorted(second)
