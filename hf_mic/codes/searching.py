"""The best rows for each query, over chunks of scores of which only one is held."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["best_rows"]


def best_rows(
    scored: Iterable[tuple[int, Tensor]], queries: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best rows of each query, best first; of equal scores the lower row.

    Equal scores are common among codes of few bits, so which of them is returned must not depend on the chunks.

    Args:
        scored: Number of the first row and scores of each chunk, by ascending row. Shape of the scores: (B, queries).
        queries: How many queries there are.
        k: How many rows, at most as many as there are.

    Returns:
        Scores and rows. Shape: (queries, k) each.

    Example:
        >>> best_rows([(0, torch.tensor([[1.0], [5.0]])), (2, torch.tensor([[5.0], [3.0]]))], 1, 3)
        (array([[5., 5., 3.]], dtype=float32), array([[1, 2, 3]]))
    """
    best = np.full((queries, k), -np.inf, dtype=np.float32)
    rows = np.full((queries, k), np.iinfo(np.int64).max)
    for start, scores in scored:
        last = torch.from_numpy(best[:, -1].copy()).to(scores.device)
        found = _positions(scores > last)
        if len(found) > 8 * queries * k and k < len(scores):
            # Most of them are not even among the k best of this chunk.
            bound = torch.topk(scores.T, k, dim=1, sorted=False).values.amin(dim=1)
            found = _positions((scores >= bound) & (scores > last))
        if len(found):
            numbers, owners = np.divmod(found, queries)
            values = scores[torch.from_numpy(numbers), torch.from_numpy(owners)].cpu().numpy()
            best, rows = _merged(best, rows, owners, values, numbers + start)
    return best, rows


def _positions(mask: Tensor) -> NDArray[np.int64]:
    """Positions of what is true in the flattened mask; numpy finds a few among millions four times as fast as torch."""
    if mask.device.type == "cpu":
        return np.flatnonzero(mask.numpy())
    return mask.flatten().nonzero().squeeze(1).cpu().numpy()


def _merged(
    best: NDArray, rows: NDArray, owners: NDArray, values: NDArray, new_rows: NDArray
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of what there was and of new rows, each of which belongs to the query ``owners`` names."""
    queries, k = best.shape
    owners = np.concatenate([np.repeat(np.arange(queries), k), owners])
    values, numbers = np.concatenate([best.ravel(), values]), np.concatenate([rows.ravel(), new_rows])
    order = np.lexsort((numbers, -values, owners))
    # Each query brings its k rows of before, so it has at least k.
    first = np.searchsorted(owners[order], np.arange(queries))
    chosen = order[first[:, None] + np.arange(k)]
    return values[chosen], numbers[chosen]
