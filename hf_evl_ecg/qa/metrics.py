"""Scores of answers, each over many weightings of the items at once, so that a bootstrap is one matrix product.

Every metric takes `weights` of shape (R, n): how often each item counts in each of R resamples. Without weights each item
counts once and the result is one number; with them it has one entry per resample, NaN where it is undefined. Nothing here
knows about text or models.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import Array

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "best_constant",
    "class_f1",
    "exact_match",
    "hamming_loss",
    "macro_auc",
    "macro_f1",
    "mean_absolute_error",
    "pairs_told_apart",
    "roc_auc",
    "within_tolerance",
]


def accuracy(correct: ArrayLike, weights: Array | None = None) -> Array | float:
    """Share of items that are right. Shape of `correct`: (n,), bool, or a chance of being right.

    Example:
        >>> accuracy([True, True, False, True]), accuracy([True, False], np.array([[2.0, 0.0], [1.0, 1.0]]))
        (0.75, array([1. , 0.5]))
    """
    return _average(np.asarray(correct, dtype=np.float64), weights)


def exact_match(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array | float:
    """Share of items whose whole set of labels is right. Shapes: (n, C), bool.

    Example:
        >>> exact_match([[True, False], [True, True]], [[True, False], [True, False]])
        0.5
    """
    return accuracy((np.asarray(truth, bool) == np.asarray(predicted, bool)).all(1), weights)


def hamming_loss(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array | float:
    """Share of single label decisions that are wrong. Shapes: (n, C), bool.

    Example:
        >>> hamming_loss([[True, False], [True, True]], [[True, False], [True, False]])
        0.25
    """
    return accuracy((np.asarray(truth, bool) != np.asarray(predicted, bool)).mean(1), weights)


def within_tolerance(
    truth: ArrayLike, predicted: ArrayLike, tolerance: ArrayLike, weights: Array | None = None
) -> Array | float:
    """Share of values within ± tolerance; a NaN is a miss. Shapes: (n,).

    Example:
        >>> within_tolerance([60.0, 80.0], [64.0, 90.0], [5.0, 5.0])
        0.5
    """
    error = np.abs(np.asarray(truth, float) - np.asarray(predicted, float))
    return accuracy(error <= np.asarray(tolerance, float), weights)


def mean_absolute_error(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array | float:
    """Mean of the absolute errors. Shapes: (n,), finite."""
    return _average(np.abs(np.asarray(truth, float) - np.asarray(predicted, float)), weights)


def balanced_accuracy(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array | float:
    """Mean recall over the classes that occur; a predicted class that is none of them (unparsed) is wrong. Shapes: (n,).

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
        0.5
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    classes = np.unique(truth)
    member = truth[:, None] == classes
    hit = member & (predicted == truth)[:, None]
    w = _rows(weights, len(truth))
    total = w @ member
    recall = np.divide(w @ hit, total, out=np.full(total.shape, np.nan), where=total > 0)
    return _result(_nanmean(recall), weights)


def class_f1(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array:
    """F1 of each class; 0 where a class is neither there nor predicted. Shapes: (n, C) → (C,) or (R, C)."""
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    w = _rows(weights, len(truth))
    both, either = w @ (truth & predicted), w @ (truth.astype(float) + predicted)
    f1 = np.divide(2 * both, either, out=np.zeros(both.shape), where=either > 0)
    return f1[0] if weights is None else f1


def macro_f1(truth: ArrayLike, predicted: ArrayLike, weights: Array | None = None) -> Array | float:
    """Mean F1 over classes. Shapes: (n, C), bool.

    Example:
        >>> macro_f1([[True, False], [True, True]], [[True, False], [True, False]])
        0.5
    """
    f1 = class_f1(truth, predicted, weights)
    return float(f1.mean()) if weights is None else f1.mean(1)


def roc_auc(truth: ArrayLike, scores: ArrayLike, weights: Array | None = None) -> Array | float:
    """Area under the ROC curve: how often a positive item scores above a negative one, ties counting half.

    Args:
        truth: Shape: (n,), bool.
        scores: Higher means more likely. Shape: (n,), finite.
        weights: Shape: (R, n).

    Returns:
        NaN where there are no positive or no negative items.

    Raises:
        ValueError: A score that is not finite.

    Example:
        >>> roc_auc([True, False, False], [0.5, 0.5, 0.1])
        0.75
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite (a ranking needs every one)"
        )
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    w = _rows(weights, len(truth))[:, order]
    positive = np.add.reduceat(w * truth[order], starts, axis=1)
    negative = np.add.reduceat(w * ~truth[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    won = (positive * below).sum(1)
    return _result(np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0), weights)


def macro_auc(truth: ArrayLike, scores: ArrayLike, weights: Array | None = None) -> Array | float:
    """Mean AUC over the classes with positive and negative items (in each resample). Shapes: (n, C).

    Example:
        >>> macro_auc([[True], [False]], [[0.9], [0.2]])
        1.0
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    columns = [np.atleast_1d(roc_auc(truth[:, i], scores[:, i], weights)) for i in range(truth.shape[1])]
    return _result(_nanmean(np.stack(columns, 1)), weights)


def pairs_told_apart(
    records: ArrayLike, truth: ArrayLike, said: ArrayLike, weights: Array | None = None
) -> Array | float:
    """Share of pairs of yes/no questions about one record, one true and one not, that are answered differently.

    It tells whether a model listens: one that answers by the picture alone says the same to all questions about it, whatever its
    AUC over records; one that listens tells the pairs apart, rightly or not.

    Args:
        records: Record of each question; its questions must weigh the same. Shape: (n,).
        truth: Whether the right answer is yes. Shape: (n,), bool.
        said: Whether yes was said. Shape: (n,), bool.
        weights: See the module. Shape: (R, n).

    Returns:
        NaN where no record has such a pair.

    Example:
        >>> pairs_told_apart(["a", "a", "a", "b"], [True, False, False, True], [True, True, False, True])
        0.5
    """
    names, first, index = np.unique(np.asarray(records), return_index=True, return_inverse=True)
    truth, said = np.asarray(truth, bool), np.asarray(said, bool)
    count = lambda mask: np.bincount(index[mask], minlength=len(names)).astype(np.float64)  # noqa: E731
    pairs = count(truth) * count(~truth)
    apart = count(truth & said) * count(~truth & ~said) + count(truth & ~said) * count(~truth & said)
    rows = _rows(weights, len(truth))[:, first]
    with np.errstate(invalid="ignore"):
        return _result((rows @ apart) / (rows @ pairs), weights)


def best_constant(truth: ArrayLike, tolerance: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Which items the best constant answer gets right: the commonest class, or the value with most items in tolerance.

    It is chosen on the items themselves, so as a chance level it is a little too high, never too low.

    Args:
        truth: Classes, or values where a tolerance is given. Shape: (n,).
        tolerance: Shape: (n,).

    Example:
        >>> best_constant([60.0, 62.0, 100.0], [5.0, 5.0, 5.0])
        array([ True,  True, False])
    """
    truth = np.asarray(truth)
    if tolerance is None:
        _, index, counts = np.unique(truth, return_inverse=True, return_counts=True)
        return index == counts.argmax()
    low, high = truth - np.asarray(tolerance), truth + np.asarray(tolerance)
    candidates = np.unique(np.concatenate([low, high]))
    starts, ends = np.sort(low), np.sort(high)
    hits = np.searchsorted(starts, candidates, "right") - np.searchsorted(ends, candidates, "left")
    best = candidates[hits.argmax()]
    return (low <= best) & (best <= high)


def _rows(weights: Array | None, n: int) -> Array:
    if weights is None:
        return np.ones((1, n))
    if weights.ndim != 2 or weights.shape[1] != n:
        raise ValueError(f"weights of shape {weights.shape} for {n} items: (R, {n}) is needed")
    return weights


def _average(values: Array, weights: Array | None) -> Array | float:
    w = _rows(weights, len(values))
    with np.errstate(
        invalid="ignore"
    ):  # a resample without any of the items has no average: NaN, which intervals leave out
        return _result((w @ values) / w.sum(1), weights)


def _nanmean(values: Array) -> Array:
    """Mean over the last axis without NaN; NaN where nothing else is there."""
    known = ~np.isnan(values)
    count = known.sum(1)
    total = np.where(known, values, 0).sum(1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _result(values: Array, weights: Array | None) -> Array | float:
    return float(values[0]) if weights is None else values
