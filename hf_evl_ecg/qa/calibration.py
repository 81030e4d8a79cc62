"""Whether stated probabilities come true; thresholds and temperatures, which belong to validation data."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

__all__ = [
    "best_thresholds",
    "expected_calibration_error",
    "fit_temperature",
    "option_probabilities",
    "reliability_bins",
]

Array = NDArray[np.float64]


def option_probabilities(log_likelihoods: ArrayLike, temperature: float = 1.0) -> Array:
    """Softmax over the options of each item.

    Args:
        log_likelihoods: -inf where an item does not have an option. Shape: (n, K), nats.
        temperature: Divides them; above 1 makes the probabilities more alike.

    Returns:
        Shape: (n, K), each row summing to 1.

    Raises:
        ValueError: A temperature of 0 or less.

    Example:
        >>> option_probabilities([[0.0, 0.0, -np.inf]])
        array([[0.5, 0.5, 0. ]])
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: it must be above 0")
    logits = np.asarray(log_likelihoods, np.float64) / temperature
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def fit_temperature(log_likelihoods: ArrayLike, target: ArrayLike) -> float:
    """Temperature that makes the right options of validation items most likely (Guo et al., arXiv 1706.04599).

    Args:
        log_likelihoods: Shape: (n, K), nats.
        target: Index of the right option. Shape: (n,).

    Returns:
        Between 0.01 and 100.

    Example:
        >>> round(fit_temperature([[0.0, -2.0]] * 4, [0, 0, 0, 1]), 2)  # right 3 times of 4: odds of e^(2 / 1.82) = 3
        1.82
    """
    scores, target = np.asarray(log_likelihoods, np.float64), np.asarray(target, int)
    if scores.ndim != 2 or len(scores) != len(target) or not len(target):
        raise ValueError(
            f"log_likelihoods of shape {scores.shape}, target of {target.shape}: (n, K) and (n,) are needed"
        )
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        probability = option_probabilities(scores, float(np.exp(log_temperature)))[rows, target]
        return float(-np.log(np.maximum(probability, 1e-300)).mean())  # log 0 would end the search

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def best_thresholds(truth: ArrayLike, scores: ArrayLike) -> Array:
    """Threshold of each class with the highest F1 on validation items: predict where score ≥ threshold.

    Args:
        truth: Shape: (n, C), bool.
        scores: Shape: (n, C).

    Returns:
        Halfway to the next lower score. Shape: (C,). Infinite for a class without positive items.

    Example:
        >>> best_thresholds([[True], [True], [False]], [[0.9], [0.5], [0.1]])
        array([0.3])
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    thresholds = np.full(truth.shape[1], np.inf)
    for column in range(truth.shape[1]):
        order = np.argsort(-scores[:, column], kind="stable")
        ordered, positive = scores[order, column], truth[order, column]
        if not positive.any():
            continue
        last = np.flatnonzero(np.r_[np.diff(ordered) < 0, True])  # a threshold cannot part ties
        f1 = 2 * positive.cumsum()[last] / (last + 1 + positive.sum())
        best = last[f1.argmax()]
        lower = ordered[best + 1] if best + 1 < len(ordered) else ordered[best]
        thresholds[column] = (ordered[best] + lower) / 2
    return thresholds


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10
) -> Sequence[dict[str, float | int | None]]:
    """Group items by confidence and compare it with how often they are right.

    Args:
        confidence: Probability of the given answer, 0 to 1. Shape: (n,).
        correct: Shape: (n,), bool.
        n_bins: Bins of equal width.

    Returns:
        Per bin: "low", "high", "n", and the means "confidence" and "accuracy" (None where it is empty).

    Example:
        >>> reliability_bins([0.6, 0.7, 0.9], [True, False, True], n_bins=2)[1]["n"]
        3
    """
    confidence, correct, index = _binned(confidence, correct, n_bins)
    bins: list[dict[str, float | int | None]] = []
    for number in range(n_bins):
        inside = index == number
        n = int(inside.sum())
        means = (float(confidence[inside].mean()), float(correct[inside].mean())) if n else (None, None)
        bins.append(
            {
                "low": number / n_bins,
                "high": (number + 1) / n_bins,
                "n": n,
                "confidence": means[0],
                "accuracy": means[1],
            }
        )
    return bins


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, weights: Array | None = None, *, n_bins: int = 10
) -> Array | float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by their items (Naeini et al., 2015).

    Never negative, so biased upwards where bins hold few items.
    """
    confidence, correct, index = _binned(confidence, correct, n_bins)
    member = np.eye(n_bins)[index]
    w = np.ones((1, len(index))) if weights is None else weights
    gap = np.abs(w @ (member * (confidence - correct)[:, None])).sum(1) / w.sum(1)
    return float(gap[0]) if weights is None else gap


def _binned(confidence: ArrayLike, correct: ArrayLike, n_bins: int) -> tuple[Array, Array, NDArray[np.int_]]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if n_bins < 1 or confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(
            f"n_bins={n_bins}, shapes {confidence.shape} and {correct.shape}: at least 1 bin and (n,) twice are needed"
        )
    if len(confidence) and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-9):
        raise ValueError(f"confidence from {confidence.min()} to {confidence.max()}: 0 to 1 is allowed")
    return confidence, correct, np.minimum((confidence * n_bins).astype(int), n_bins - 1)
