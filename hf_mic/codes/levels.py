"""Where a coordinate is cut and what stands for each piece: the levels of least mean squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hf_mic.options import check_at_least

__all__ = ["lloyd_max", "nearest_level"]

MAX_ITERATIONS = 100
TOLERANCE = 1e-5  # of the spread of the values: far below the error of 256 levels


def lloyd_max(values: NDArray, count: int) -> NDArray[np.float32]:
    r"""Levels that represent numbers with the least mean squared error a few iterations can find.

    Lloyd's iteration in one dimension: each number goes to its nearest level, each level to the mean of its numbers,

    .. math:: t_i = \tfrac12 (l_i + l_{i+1}), \quad l_i = \mathrm{E}[x \mid t_{i-1} < x \le t_i]

    It starts from equal shares of the cube root of the density, near which the best levels lie when there are many (Panter &
    Dite, "Quantization distortion in pulse-count modulation", 1951); from quantiles the tails of 256 levels take hundreds of
    iterations. A level that no number is nearest to stays where it is.

    Args:
        values: Numbers of any distribution. Shape: (N,).
        count: How many levels, at least 2.

    Returns:
        Ascending levels. Shape: (count,).

    Source: Lloyd, "Least squares quantization in PCM", 1982; Max, "Quantizing for minimum distortion", 1960.

    Example:
        >>> lloyd_max(np.array([-1.0, -3.0, 2.0, 4.0]), 2)
        array([-2.,  3.], dtype=float32)
    """
    check_at_least("count", count, 2)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = ordered[0], ordered[-1]
    if low == high:  # one number needs one level; the others must only be ascending
        return np.full(count, low, dtype=np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    levels = _companded(ordered, count)
    for _ in range(MAX_ITERATIONS):
        cuts = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2, side="right")
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        sizes = np.diff(edges)
        means = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), levels)
        moved = np.abs(means - levels).max()
        levels = means
        if moved <= TOLERANCE * (high - low):
            break
    return levels.astype(np.float32)


def _companded(ordered: NDArray, count: int) -> NDArray:
    """Middles of ``count`` equal shares of the cube root of the density."""
    shares, edges = np.histogram(ordered, bins=min(512, max(2 * count, int(np.sqrt(len(ordered))))))
    mass = np.concatenate([[0.0], np.cumsum(np.cbrt(shares))])
    return np.interp((np.arange(count) + 0.5) / count * mass[-1], mass, edges)


def nearest_level(values: NDArray, levels: NDArray) -> NDArray[np.uint8]:
    """Number of the level nearest to each value; the lower one in the middle between two.

    Args:
        values: Numbers. Shape: any.
        levels: Ascending, at most 256. Shape: (count,).

    Returns:
        The shape of ``values``.

    Example:
        >>> nearest_level(np.array([0.1, 0.9, 0.5]), np.array([0.0, 1.0]))
        array([0, 1, 0], dtype=uint8)
    """
    cuts = (levels[1:] + levels[:-1]) / 2
    if len(cuts) > 15:
        return np.searchsorted(cuts, values).astype(np.uint8)
    chosen = np.zeros(values.shape, dtype=np.uint8)
    for cut in cuts:  # a few comparisons of everything are faster than a search per value
        chosen += values > cut
    return chosen
