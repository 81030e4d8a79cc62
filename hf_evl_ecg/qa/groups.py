"""Questions and answers grouped by task: what rows of scores are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bootstrap import Array, Estimate, bootstrap_weights, estimate
from .grading import candidate_answers, item_kind, label_family, task_name

__all__ = ["Answer", "Metric", "TaskGroup", "group_by_task"]

Metric = Callable[[Array | None], Array | float]
"""Weights of the items (one row per resample, None for one each) → values, as in `metrics`."""


@dataclass(frozen=True)
class Answer:
    """What a model made of one question.

    Attributes:
        record: The record's name.
        text: The generated answer; None if nothing was generated.
        scores: Log-likelihood of each of `grading.candidate_answers` as the whole answer, in nats; empty if there are none.

    Example:
        >>> Answer("r1", "yes", (-0.1, -2.4)).scores
        (-0.1, -2.4)
    """

    record: str
    text: str | None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskGroup:
    """Items of one task with their answers, and the resamples of their records.

    Attributes:
        name: Task and format, as `grading.task_name` gives it.
        kind: As `grading.item_kind` gives it.
        items: The questions.
        answers: One for each.
        weights: How often each item counts in each resample. Shape: (R, n); None for scores without intervals.
    """

    name: str
    kind: str
    items: Sequence[Mapping[str, Any]]
    answers: Sequence[Answer]
    weights: Array | None

    def estimate(
        self,
        metric: Metric,
        chance: Metric | float | None = None,
        *,
        rows: np.ndarray | None = None,
        lower_is_better: bool = False,
    ) -> Estimate | None:
        """A metric of the items, or of those that ``rows`` (shape (n,), bool) picks, with its interval and chance level."""
        n, weights = len(self.items), self.weights
        if rows is not None:
            n, weights = int(rows.sum()), None if weights is None else weights[:, rows]
        return estimate(metric, n, weights, chance, lower_is_better=lower_is_better)

    def likelihoods(self) -> Array:
        """Log-likelihoods of the candidate answers, -inf where an item has fewer than others. Shape: (n, K), nats."""
        table = np.full((len(self.answers), max(len(answer.scores) for answer in self.answers)), -np.inf)
        for row, answer in zip(table, self.answers, strict=True):
            row[: len(answer.scores)] = answer.scores
        return table

    def targets(self) -> np.ndarray | None:
        """Index of the right candidate of each item; None where several may be right."""
        if self.kind in ("yes_no", "option"):
            return np.array([candidate_answers(item).index(item["answer"]) for item in self.items])
        single = self.kind == "labels" and all(len(item["labels"]) == 1 for item in self.items)
        if not single or not candidate_answers(self.items[0]):
            return None
        return np.array([label_family(item).index(item["labels"][0]) for item in self.items])


def group_by_task(
    items: Sequence[Mapping[str, Any]], answers: Sequence[Answer], n_bootstrap: int = 0, seed: int = 0
) -> list[TaskGroup]:
    """Group questions by task, in alphabetical order, and draw the resamples of each group's records.

    Different lists of classes are different tasks: where there are several, each bears its labels, as ``diagnosis_classes(AF LBBB)``.
    """
    lists: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for item in items:
        if item_kind(item) == "classes":
            lists[task_name(item)].add(label_family(item))
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        name = task_name(item)
        several = len(lists.get(name, ())) > 1
        members[f"{name}({' '.join(label_family(item))})" if several else name].append(index)
    groups = []
    for name, indices in sorted(members.items()):
        records = [answers[i].record for i in indices]
        weights = bootstrap_weights(records, n_bootstrap, seed) if n_bootstrap else None
        own = [items[i] for i in indices]
        groups.append(TaskGroup(name, item_kind(own[0]), own, [answers[i] for i in indices], weights))
    return groups
