"""Intervals of a score by resampling groups of items, such as records: weights of shape (R, n) and what they give."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "Estimate", "bootstrap_weights", "estimate"]

Array = NDArray[np.float64]
_CHUNK = 2**22  # entries of a (resamples × items) matrix held at once


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval and what chance gives.

    Attributes:
        value: The score over all items.
        ci_low: 2.5th percentile over the resamples.
        ci_high: 97.5th percentile.
        n: Number of items.
        chance: The score without looking at the ECG.
        above_chance: Whether the score beats chance in at least 97.5 % of the resamples, chance being taken anew in each.
    """

    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    chance: float | None = None
    above_chance: bool | None = None


def bootstrap_weights(groups: ArrayLike, n_resamples: int, seed: int = 0) -> Array:
    """Draw groups with replacement; all items of a group (a record with several questions) are drawn together.

    Args:
        groups: Group of each item. Shape: (n,).
        n_resamples: R.
        seed: Seed; the same groups and seed give the same resamples.

    Returns:
        How often each item counts. Shape: (R, n).

    Example:
        >>> bootstrap_weights(["a", "b", "a"], 1, seed=0)
        array([[1., 1., 1.]])
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if index.ndim != 1 or not len(index) or n_resamples < 1:
        raise ValueError(
            f"groups of shape {np.shape(groups)}, {n_resamples} resamples: (n,) and at least 1 of each are needed"
        )
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    return counts[:, index].astype(np.float64)


def estimate(
    metric: Callable[[Array | None], Array | float],
    n: int,
    weights: Array | None,
    chance: Callable[[Array | None], Array | float] | float | None = None,
    *,
    lower_is_better: bool = False,
) -> Estimate | None:
    """Put a percentile interval around a metric.

    Args:
        metric: Weights → values, such as ``lambda w: accuracy(truth, predicted, w)``.
        n: Number of items.
        weights: Resamples, from `bootstrap_weights`; None gives no interval.
        chance: Weights → what chance gives, or a constant.
        lower_is_better: Whether to be above chance means to lie below it.

    Returns:
        The estimate; None where the metric is undefined on the items themselves (a class that never occurs).

    Example:
        >>> from hf_evl_ecg.qa.metrics import accuracy
        >>> right = np.array([True, True, True, False])
        >>> found = estimate(lambda w: accuracy(right, w), 4, bootstrap_weights([1, 2, 3, 4], 200), chance=0.25)
        >>> found.value, found.ci_low < 0.75 < found.ci_high, found.chance
        (0.75, True, 0.25)
    """
    value = float(metric(None))
    if not np.isfinite(value):
        return None
    fixed = chance if chance is None or isinstance(chance, int | float) else float(chance(None))
    if weights is None:
        return Estimate(value, None, None, n, fixed)
    step = max(1, _CHUNK // weights.shape[1])
    parts = [weights[i : i + step] for i in range(0, len(weights), step)]
    values = np.concatenate([np.asarray(metric(part)) for part in parts])
    low, high = np.nanquantile(values, [0.025, 0.975])
    above = None
    if chance is not None:
        floor = chance if isinstance(chance, int | float) else np.concatenate([np.asarray(chance(p)) for p in parts])
        gain = (floor - values) if lower_is_better else (values - floor)
        above = bool(np.nanquantile(gain, 0.025) > 0)
    return Estimate(value, float(low), float(high), n, fixed, above)
