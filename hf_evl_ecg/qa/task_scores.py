"""The scores of one task: of generated texts, read strictly, and of the likelihoods of given answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import metrics
from .bootstrap import Estimate
from .calibration import expected_calibration_error, option_probabilities
from .grading import Grade, grade, label_family, label_matrix
from .groups import Metric, TaskGroup
from .prompts import YES

__all__ = ["Scores", "likelihood_scores", "ranking_metric", "text_metric", "text_scores"]

Scores = dict[tuple[str, str], Estimate | None]
"""(task or task/class, metric) → estimate; None where it is undefined."""


def text_scores(group: TaskGroup, min_per_class: int) -> Scores:
    """Scores of the generated texts of one task; see `scoring.score_answers` for their names."""
    grades = [grade(item, answer.text or "") for item, answer in zip(group.items, group.answers, strict=True)]
    name = group.name
    unparsed = np.array([not g.parsed for g in grades])
    correct = np.array([g.correct for g in grades])
    scores: Scores = {(name, "unparsed"): group.estimate(lambda w: metrics.accuracy(unparsed, w))}
    if group.kind == "number":
        return scores | _number_scores(group, grades)
    if group.kind == "report":
        return scores | {(name, "report_f1"): group.estimate(lambda w: metrics.accuracy(correct, w))}
    chance = _chance(group, [g.truth for g in grades])
    scores[name, "accuracy"] = group.estimate(lambda w: metrics.accuracy(correct, w), chance)
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


def likelihood_scores(group: TaskGroup, temperature: float, min_per_class: int) -> Scores:
    """Scores of the likelihoods of given answers of one task; see `scoring.score_answers` for their names."""
    table, name = group.likelihoods(), group.name
    scores: Scores = {}
    target = group.targets()
    if target is not None:
        chosen = table.argmax(1)
        correct = chosen == target
        probability = option_probabilities(table, temperature).max(1)
        chance = _chance(group, target.tolist())
        scores[name, "accuracy_likelihood"] = group.estimate(lambda w: metrics.accuracy(correct, w), chance)
        scores[name, "calibration_error"] = group.estimate(
            lambda w: expected_calibration_error(probability, correct, w)
        )
        if group.kind != "option":  # the letter of the right option is random, so there are no classes to balance
            scores[name, "balanced_accuracy_likelihood"] = _balanced(group, target, chosen)
    if (ranking := ranking_metric(group)) is not None:
        scores[name, ranking[0]] = group.estimate(ranking[1], 0.5)
    if group.kind == "yes_no":
        yes, records = np.array([item["answer"] == YES for item in group.items]), [a.record for a in group.answers]
        said = table[:, 0] > table[:, 1]
        scores[name, "pairs_told_apart"] = group.estimate(lambda w: metrics.pairs_told_apart(records, yes, said, w))
    if group.kind in ("classes", "labels"):
        family = label_family(group.items[0])
        truth = label_matrix([frozenset(item["labels"]) for item in group.items], family)
        for i, code in enumerate(family):
            if truth[:, i].sum() >= min_per_class:
                scores[f"{name}/{code}", "auc"] = group.estimate(_auc(truth[:, i], table[:, i]), 0.5)
    return scores


def ranking_metric(group: TaskGroup) -> tuple[str, Metric] | None:
    """How well the likelihoods of one task rank its records, as the name of a metric and the metric.

    Returns:
        ``auc`` of yes against no, ``macro_auc`` over the labels; None where a task has no labels to rank by, no likelihoods, or
        no label that some records have and some have not.
    """
    if group.kind not in ("yes_no", "classes", "labels") or not any(answer.scores for answer in group.answers):
        return None
    table = group.likelihoods()
    if group.kind == "yes_no":
        positive = np.array([item["answer"] == YES for item in group.items])
        return ("auc", _auc(positive, table[:, 0] - table[:, 1])) if positive.any() and not positive.all() else None
    truth = label_matrix([frozenset(item["labels"]) for item in group.items], label_family(group.items[0]))
    if not (truth.any(0) & ~truth.all(0)).any():
        return None
    return "macro_auc", lambda w: metrics.macro_auc(truth, table, w)


def text_metric(group: TaskGroup) -> tuple[str, Metric] | None:
    """How many generated answers of one task are right, as the name of a metric and the metric; None where there are no texts.

    Numbers are right within their tolerance; of reports it is the mean F1 of the findings named.
    """
    if any(answer.text is None for answer in group.answers):
        return None
    grades = [grade(item, answer.text or "") for item, answer in zip(group.items, group.answers, strict=True)]
    correct = np.array([found.correct for found in grades], dtype=np.float64)
    name = {"number": "within_tolerance", "report": "report_f1"}.get(group.kind, "accuracy")
    return name, lambda w: metrics.accuracy(correct, w)


def _number_scores(group: TaskGroup, grades: Sequence[Grade]) -> Scores:
    truth = np.array([g.truth for g in grades])
    predicted = np.array([np.nan if g.predicted is None else g.predicted for g in grades])
    tolerance = np.array([item["tolerance"] for item in group.items])
    constant = metrics.best_constant(truth, tolerance)
    scores: Scores = {
        (group.name, "within_tolerance"): group.estimate(
            lambda w: metrics.within_tolerance(truth, predicted, tolerance, w), lambda w: metrics.accuracy(constant, w)
        )
    }
    known = np.isfinite(predicted)
    if known.any():
        a, b, middle = truth[known], predicted[known], np.full(known.sum(), np.median(truth))
        scores[group.name, "mean_absolute_error"] = group.estimate(
            lambda w: metrics.mean_absolute_error(a, b, w),
            lambda w: metrics.mean_absolute_error(a, middle, w),
            rows=known,
            lower_is_better=True,
        )
    return scores


def _label_scores(group: TaskGroup, grades: Sequence[Grade], min_per_class: int) -> Scores:
    """Macro F1, Hamming loss and F1 per class, over the classes that occur."""
    classes = [c for c in label_family(group.items[0]) if any(c in g.truth for g in grades)]
    if group.kind == "classes":
        classes = list(label_family(group.items[0]))
    truth, predicted = (label_matrix([getattr(g, side) for g in grades], classes) for side in ("truth", "predicted"))
    everything = np.ones_like(truth)  # to name every class is the constant answer with the best F1
    majority = np.broadcast_to(truth.mean(0) > 0.5, truth.shape)  # majority vote minimises Hamming loss
    scores: Scores = {
        (group.name, "macro_f1"): group.estimate(_f1(truth, predicted), _f1(truth, everything)),
        (group.name, "hamming_loss"): group.estimate(
            lambda w: metrics.hamming_loss(truth, predicted, w),
            lambda w: metrics.hamming_loss(truth, majority, w),
            lower_is_better=True,
        ),
    }
    for i, code in enumerate(classes):
        if truth[:, i].sum() >= min_per_class:
            own = slice(i, i + 1)
            scores[f"{group.name}/{code}", "f1"] = group.estimate(
                _f1(truth[:, own], predicted[:, own]), _f1(truth[:, own], everything[:, own])
            )
            scores |= _two_rates(group, f"{group.name}/{code}", truth[:, i], predicted[:, i] == truth[:, i])
    return scores


def _two_rates(
    group: TaskGroup, name: str, positive: np.ndarray, correct: np.ndarray, among: np.ndarray | bool = True
) -> Scores:
    """Sensitivity and specificity: the share that is right of the positive and of the negative items. Shapes: (n,), bool."""

    def share(rows: np.ndarray) -> Estimate | None:
        return group.estimate(lambda w: metrics.accuracy(correct[rows], w), rows=rows)

    sides = {"sensitivity": positive & among, "specificity": ~positive & among}
    return {(name, metric): share(rows) for metric, rows in sides.items() if rows.any()}


def _yes_no_of_label(
    group: TaskGroup, name: str, rows: np.ndarray, grades: Sequence[Grade], min_per_class: int
) -> Scores:
    """Balanced accuracy and its two halves of the questions about one label, where both answers are right often enough."""
    own = [g for g, mine in zip(grades, rows, strict=True) if mine]
    truth = np.array([g.truth for g in own])
    if min(truth.sum(), (~truth).sum()) < min_per_class:
        return {}
    predicted = np.array([-1 if g.predicted is None else int(g.predicted) for g in own])
    found = group.estimate(lambda w: metrics.balanced_accuracy(truth.astype(int), predicted, w), 0.5, rows=rows)
    positive, correct = np.zeros((2, len(rows)), dtype=bool)
    positive[rows], correct[rows] = truth, predicted == truth
    return {(name, "balanced_accuracy"): found} | _two_rates(group, name, positive, correct, rows)


def _class_codes(group: TaskGroup, grades: Sequence[Grade]) -> tuple[np.ndarray, np.ndarray] | None:
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


def _balanced(group: TaskGroup, truth: np.ndarray, predicted: np.ndarray) -> Estimate | None:
    chance = 1 / len(np.unique(truth))
    return group.estimate(lambda w: metrics.balanced_accuracy(truth, predicted, w), chance)


def _chance(group: TaskGroup, truth: Sequence[Any]) -> Metric:
    """Accuracy of the better of the commonest answer and, among options, a random one."""
    hit = metrics.best_constant([str(sorted(t) if isinstance(t, frozenset) else t) for t in truth]).astype(float)
    if group.kind == "option":
        random = np.array([1 / len(item["options"]) for item in group.items])
        hit = max(hit, random, key=np.mean)
    return lambda w: metrics.accuracy(hit, w)


def _f1(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    return lambda w: metrics.macro_f1(truth, predicted, w)


def _auc(truth: np.ndarray, scores: np.ndarray) -> Metric:
    return lambda w: metrics.roc_auc(truth, scores, w)
