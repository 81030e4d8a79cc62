"""Questions and a model's answers → rows of a results json, per task and per class, each with interval and chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import metrics
from .calibration import expected_calibration_error, fit_temperature, option_probabilities
from .grading import Grade, candidate_answers, grade, item_kind, label_family, label_matrix, task_name
from .metrics import Array, Estimate, bootstrap_weights, estimate
from .prompts import YES

__all__ = ["Answer", "fit_temperatures", "score_answers"]


@dataclass(frozen=True)
class Answer:
    """What a model made of one question.

    Attributes:
        record: The record's name.
        text: The generated answer; None if nothing was generated.
        scores: Log-likelihood of each of `grading.candidate_answers` as the whole answer, in nats; empty if there are none.
    """

    record: str
    text: str | None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Group:
    """Items of one task with their answers, and the resamples of their records."""

    name: str
    kind: str
    items: Sequence[Mapping[str, Any]]
    answers: Sequence[Answer]
    weights: Array | None


_Metric = Callable[[Array | None], Array | float]
_Scores = dict[tuple[str, str], Estimate | None]  # (task or task/class, metric) → estimate


def score_answers(
    items: Sequence[Mapping[str, Any]],
    answers: Sequence[Answer],
    *,
    method: str,
    seed: int | None = None,
    temperatures: Mapping[str, float] | None = None,
    min_per_class: int = 10,
    n_bootstrap: int = 1000,
    bootstrap_seed: int = 0,
) -> list[dict[str, Any]]:
    """Score answers task by task.

    From generated text, read strictly: ``accuracy`` (yes/no, options, labels: the whole set; text: equal but for case),
    ``balanced_accuracy``, ``within_tolerance``, ``mean_absolute_error`` (of the answers that hold a number; its ``n`` says
    how many), ``macro_f1``, ``hamming_loss``, ``report_f1`` (mean F1 of the findings named), and ``unparsed``, the share
    of answers that could not be read, which count as wrong. From likelihoods: ``accuracy_likelihood``,
    ``balanced_accuracy_likelihood``, ``auc`` or ``macro_auc``, and ``calibration_error`` of the normalised probabilities
    (10 bins). Classes get rows of their own as ``task/label``.

    Intervals are 95 % percentile bootstrap intervals over records: questions of one record are drawn together. They do not
    cover the spread over training seeds. Chance is the best answer that ignores the ECG, chosen on the scored items.

    Args:
        items: Questions (`hf_evl_ecg.qa.prompts.QA_KEYS`).
        answers: One for each.
        method: Name of the method in the rows, in lower case.
        seed: Training seed in the rows.
        temperatures: Task → temperature for ``calibration_error``, from `fit_temperatures` on validation items; 1 if absent.
        min_per_class: A class gets rows of its own from this many positive items on.
        n_bootstrap: Resamples; 0 leaves the intervals out.
        bootstrap_seed: Their seed.

    Returns:
        Rows ``{"method", "seed", "task", "dim": None, "metric", "value", "n", "ci_low", "ci_high", "chance",
        "above_chance"}``; values as fractions, errors in the unit asked for.

    Raises:
        ValueError: Nothing to score, or another number of answers than items.
    """
    if not items or len(items) != len(answers):
        raise ValueError(
            f"{len(items)} items and {len(answers)} answers; give one answer for each of at least one item"
        )
    rows = []
    for group in _groups(items, answers, n_bootstrap, bootstrap_seed):
        scores: _Scores = {}
        if all(answer.text is not None for answer in group.answers):
            scores |= _text_scores(group, min_per_class)
        if all(answer.scores for answer in group.answers):
            scores |= _likelihood_scores(group, (temperatures or {}).get(group.name, 1.0), min_per_class)
        rows += [
            {
                **{"method": method, "seed": seed, "task": task, "dim": None, "metric": metric},
                **{"value": found.value, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high},
                **{"chance": found.chance, "above_chance": found.above_chance},
            }
            for (task, metric), found in scores.items()
            if found is not None
        ]
    return rows


def fit_temperatures(items: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> dict[str, float]:
    """Temperature of each task with one right option, from validation items."""
    found = {}
    for group in _groups(items, answers, 0, 0):
        target = _targets(group)
        if target is not None and all(answer.scores for answer in group.answers):
            found[group.name] = fit_temperature(_padded([answer.scores for answer in group.answers]), target)
    return found


def _groups(items: Sequence[Mapping[str, Any]], answers: Sequence[Answer], n_bootstrap: int, seed: int) -> list[_Group]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        members[task_name(item)].append(index)
    groups = []
    for name, indices in sorted(members.items()):
        records = [answers[i].record for i in indices]
        weights = bootstrap_weights(records, n_bootstrap, seed) if n_bootstrap else None
        own = [items[i] for i in indices]
        if item_kind(own[0]) == "classes" and len({label_family(item) for item in own}) > 1:
            raise ValueError(f"{name}: questions about different lists of classes cannot be scored as one task")
        groups.append(_Group(name, item_kind(own[0]), own, [answers[i] for i in indices], weights))
    return groups


def _text_scores(group: _Group, min_per_class: int) -> _Scores:
    """Scores of the generated texts of one task."""
    grades = [grade(item, answer.text or "") for item, answer in zip(group.items, group.answers, strict=True)]
    name, n = group.name, len(grades)
    unparsed = np.array([not g.parsed for g in grades])
    scores: _Scores = {(name, "unparsed"): estimate(lambda w: metrics.accuracy(unparsed, w), n, group.weights)}
    correct = np.array([g.correct for g in grades])
    if group.kind == "number":
        return scores | _number_scores(group, grades)
    if group.kind == "report":
        return scores | {(name, "report_f1"): estimate(lambda w: metrics.accuracy(correct, w), n, group.weights)}
    scores[name, "accuracy"] = estimate(
        lambda w: metrics.accuracy(correct, w), n, group.weights, _chance(group, [g.truth for g in grades])
    )
    codes = _class_codes(group, grades)
    if codes is not None:
        scores[name, "balanced_accuracy"] = _balanced(group, *codes)
    if group.kind in ("classes", "labels"):
        scores |= _label_scores(group, grades, min_per_class)
    if group.kind == "yes_no":
        asked = np.array([(item.get("labels") or [""])[0] for item in group.items])
        for label in np.unique(asked[asked != ""]):
            scores |= _yes_no_of_label(group, f"{name}/{label}", asked == label, grades, min_per_class)
    return scores


def _number_scores(group: _Group, grades: Sequence[Grade]) -> _Scores:
    truth = np.array([g.truth for g in grades])
    predicted = np.array([np.nan if g.predicted is None else g.predicted for g in grades])
    tolerance = np.array([item["tolerance"] for item in group.items])
    constant = metrics.best_constant(truth, tolerance)
    scores = {
        (group.name, "within_tolerance"): estimate(
            lambda w: metrics.within_tolerance(truth, predicted, tolerance, w),
            len(truth),
            group.weights,
            lambda w: metrics.accuracy(constant, w),
        )
    }
    known = np.isfinite(predicted)
    if known.any():
        a, b, middle = truth[known], predicted[known], np.full(known.sum(), np.median(truth))
        weights = None if group.weights is None else group.weights[:, known]
        scores[group.name, "mean_absolute_error"] = estimate(
            lambda w: metrics.mean_absolute_error(a, b, w),
            len(a),
            weights,
            lambda w: metrics.mean_absolute_error(a, middle, w),
            lower_is_better=True,
        )
    return scores


def _label_scores(group: _Group, grades: Sequence[Grade], min_per_class: int) -> _Scores:
    """Macro F1, Hamming loss and F1 per class, over the classes that occur."""
    classes = [c for c in label_family(group.items[0]) if any(c in g.truth for g in grades)]
    if group.kind == "classes":
        classes = list(label_family(group.items[0]))
    truth, predicted = (label_matrix([getattr(g, side) for g in grades], classes) for side in ("truth", "predicted"))
    n, weights, everything = len(grades), group.weights, np.ones_like(truth)
    majority = np.broadcast_to(truth.mean(0) > 0.5, truth.shape)
    scores: _Scores = {
        (group.name, "macro_f1"): estimate(
            _f1(truth, predicted),
            n,
            weights,
            _f1(truth, everything),
        ),
        (group.name, "hamming_loss"): estimate(
            lambda w: metrics.hamming_loss(truth, predicted, w),
            n,
            weights,
            lambda w: metrics.hamming_loss(truth, majority, w),
            lower_is_better=True,
        ),
    }
    for i, code in enumerate(classes):
        if truth[:, i].sum() >= min_per_class:
            own = slice(i, i + 1)
            scores[f"{group.name}/{code}", "f1"] = estimate(
                _f1(truth[:, own], predicted[:, own]),
                n,
                weights,
                _f1(truth[:, own], everything[:, own]),
            )
    return scores


def _yes_no_of_label(
    group: _Group, name: str, rows: np.ndarray, grades: Sequence[Grade], min_per_class: int
) -> _Scores:
    """Balanced accuracy of the questions about one label, where both answers are right often enough."""
    own = [g for g, mine in zip(grades, rows, strict=True) if mine]
    truth = np.array([g.truth for g in own])
    if min(truth.sum(), (~truth).sum()) < min_per_class:
        return {}
    predicted = np.array([-1 if g.predicted is None else int(g.predicted) for g in own])
    weights = None if group.weights is None else group.weights[:, rows]
    return {
        (name, "balanced_accuracy"): estimate(
            lambda w: metrics.balanced_accuracy(truth.astype(int), predicted, w), len(own), weights, 0.5
        )
    }


def _likelihood_scores(group: _Group, temperature: float, min_per_class: int) -> _Scores:
    """Scores of the likelihoods of given answers of one task."""
    table = _padded([answer.scores for answer in group.answers])
    n, name, weights = len(table), group.name, group.weights
    scores: _Scores = {}
    target = _targets(group)
    if target is not None:
        chosen = table.argmax(1)
        correct = chosen == target
        probability = option_probabilities(table, temperature).max(1)
        scores[name, "accuracy_likelihood"] = estimate(
            lambda w: metrics.accuracy(correct, w), n, weights, _chance(group, target.tolist())
        )
        scores[name, "calibration_error"] = estimate(
            lambda w: expected_calibration_error(probability, correct, w), n, weights
        )
        if group.kind != "option":
            scores[name, "balanced_accuracy_likelihood"] = _balanced(group, target, chosen)
    if group.kind == "yes_no":
        margin, yes = table[:, 0] - table[:, 1], np.array([item["answer"] == YES for item in group.items])
        scores[name, "auc"] = estimate(_auc(yes, margin), n, weights, 0.5)
    if group.kind in ("classes", "labels"):
        family = label_family(group.items[0])
        truth = label_matrix([frozenset(item["labels"]) for item in group.items], family)
        scores[name, "macro_auc"] = estimate(lambda w: metrics.macro_auc(truth, table, w), n, weights, 0.5)
        for i, code in enumerate(family):
            if truth[:, i].sum() >= min_per_class:
                scores[f"{name}/{code}", "auc"] = estimate(_auc(truth[:, i], table[:, i]), n, weights, 0.5)
    return scores


def _targets(group: _Group) -> np.ndarray | None:
    """Index of the right candidate of each item; None where several may be right."""
    if group.kind in ("yes_no", "option"):
        answers = [candidate_answers(item).index(item["answer"]) for item in group.items]
        return np.array(answers)
    single = group.kind == "labels" and all(len(item["labels"]) == 1 for item in group.items)
    if not single or not candidate_answers(group.items[0]):
        return None
    return np.array([label_family(item).index(item["labels"][0]) for item in group.items])


def _class_codes(group: _Group, grades: Sequence[Grade]) -> tuple[np.ndarray, np.ndarray] | None:
    """True and predicted class of each item, -1 for none or several; None where an item may have several labels."""
    if group.kind == "yes_no":
        return np.array([int(g.truth) for g in grades]), np.array(
            [-1 if g.predicted is None else int(g.predicted) for g in grades]
        )
    if group.kind != "labels" or any(len(g.truth) != 1 for g in grades):
        return None
    family = label_family(group.items[0])
    predicted = [next(iter(g.predicted)) if g.predicted and len(g.predicted) == 1 else None for g in grades]
    return (
        np.array([family.index(next(iter(g.truth))) for g in grades]),
        np.array([-1 if code is None else family.index(code) for code in predicted]),
    )


def _balanced(group: _Group, truth: np.ndarray, predicted: np.ndarray) -> Estimate | None:
    chance = 1 / len(np.unique(truth))
    return estimate(lambda w: metrics.balanced_accuracy(truth, predicted, w), len(truth), group.weights, chance)


def _chance(group: _Group, truth: Sequence[Any]) -> _Metric:
    """Accuracy of the better of the commonest answer and, among options, a random one."""
    hit = metrics.best_constant([str(sorted(t) if isinstance(t, frozenset) else t) for t in truth]).astype(float)
    if group.kind == "option":
        random = np.array([1 / len(item["options"]) for item in group.items])
        hit = max(hit, random, key=np.mean)
    return lambda w: metrics.accuracy(hit, w)


def _f1(truth: np.ndarray, predicted: np.ndarray) -> _Metric:
    return lambda w: metrics.macro_f1(truth, predicted, w)


def _auc(truth: np.ndarray, scores: np.ndarray) -> _Metric:
    return lambda w: metrics.roc_auc(truth, scores, w)


def _padded(scores: Sequence[Sequence[float]]) -> Array:
    """One row per item, -inf where it has fewer options than others. Shape: (n, K)."""
    table = np.full((len(scores), max(map(len, scores))), -np.inf)
    for row, own in zip(table, scores, strict=True):
        row[: len(own)] = own
    return table
