"""Embeddings that are computed already: checked, scaled to unit length, and their principal axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_mic.codes.inputs import Vectors, as_matrix
from hf_mic.statistics import check_prefixes

__all__ = ["checked_vectors", "distinct_unit_rows", "principal_axes", "unit_rows"]

SCAN_ROWS = 16384  # rows held at once, so that an index on disk need not fit into memory
COVARIANCE_ROWS = 100_000  # rows sampled to estimate the axes


def unit_rows(rows: NDArray, first: int = 0) -> Tensor:
    """Embedding rows as float32 unit vectors.

    Args:
        rows: Embeddings. Shape: (B, D).
        first: Number of the first row within the whole array, for messages.

    Raises:
        ValueError: If a row is zero or not finite.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    vectors = torch.from_numpy(np.array(rows, dtype=np.float32, order="C"))
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    bad = torch.nonzero(~(torch.isfinite(norms) & (norms > 0)).squeeze(1)).flatten()
    if bad.numel():
        row = int(bad[0])
        what = "is zero" if norms[row] == 0 else "holds NaN or infinity, or is too long for float32"
        raise ValueError(
            f"Embedding row {first + row} {what} ({bad.numel()} such rows among {len(rows)}): a direction is needed. "
            "Drop these rows, or embed their texts again."
        )
    return vectors / norms


def distinct_unit_rows(rows: NDArray, most: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors of rows drawn at random, in their order, without exact copies.

    Args:
        rows: Embeddings. Shape: (N, D).
        most: How many are drawn; of fewer, all are used.
        seed: Seed of the draw.

    Returns:
        Shape: (at most ``most``, D).

    Raises:
        ValueError: If a drawn row is zero or not finite.

    Example:
        >>> distinct_unit_rows(np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 2.0]]), most=3)
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    if len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False, shuffle=False))]
    unit = unit_rows(rows).numpy()
    _, first = np.unique(unit.view(f"V{unit.itemsize * unit.shape[1]}").ravel(), return_index=True)
    return unit[np.sort(first)]


def checked_vectors(embeddings: Vectors, dims: Sequence[int], batch_size: int) -> NDArray:
    """The embeddings as a numpy array, after a look at every row.

    Args:
        embeddings: A numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).
        dims: Prefix lengths, which must lie below D.
        batch_size: Rows that are needed at least.

    Raises:
        ValueError: If they are no floating-point matrix of that size, or a row is zero or not finite.
    """
    embeddings = as_matrix(embeddings)
    count, width = embeddings.shape
    check_prefixes(dims, width, allow_full=False)
    if count < batch_size:
        raise ValueError(
            f"A batch of {batch_size} needs at least as many embeddings, got {count}: lower batch_size, or give "
            "more vectors (ten times the width is a fair least)."
        )
    for start in range(0, count, SCAN_ROWS):
        unit_rows(embeddings[start : start + SCAN_ROWS], start)
    return embeddings


def principal_axes(rows: Vectors, seed: int = 0, *, among: NDArray | None = None) -> Tensor:
    """Principal axes of the unit vectors as an orthogonal matrix, most variance first, largest entry positive.

    Args:
        rows: Embeddings; of more than 100,000 rows a random sample of that size is used. Shape: (N, D).
        seed: Seed of the sample.
        among: Numbers of the rows to use, ascending; default all.

    Returns:
        The eigenvectors of the covariance matrix, as columns. Shape: (D, D).

    Example:
        >>> principal_axes(np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2]])).abs().round()  # directions vary along y
        tensor([[0., 1.],
                [1., 0.]])
    """
    rows = as_matrix(rows)
    width = rows.shape[1]
    used = np.arange(len(rows)) if among is None else among
    if len(used) > COVARIANCE_ROWS:
        used = np.sort(np.random.default_rng(seed).choice(used, COVARIANCE_ROWS, replace=False, shuffle=False))
    total, mean = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for start in range(0, len(used), SCAN_ROWS):
        unit = unit_rows(rows[used[start : start + SCAN_ROWS]])
        # Sums over 100,000 rows in float64: in float32 small eigenvalues would drown in the rounding of large ones.
        total += (unit.T @ unit).double()
        mean += unit.double().sum(dim=0)
    mean /= len(used)
    axes = torch.linalg.eigh(total / len(used) - torch.outer(mean, mean)).eigenvectors.flip(1)
    # An eigenvector has no sign of its own; fixed, the same vectors give the same map.
    sign = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return (axes * sign).float()
