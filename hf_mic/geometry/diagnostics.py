"""Geometry of an embedding matrix, at full width and at each prefix, in one report.

Every measure of this room takes a matrix of N embeddings as a numpy array or torch tensor of any dtype or device, works in fp64 on
the CPU and returns a Python float. A value that does not exist (the spectrum of a constant matrix, IsoScore in one
dimension) is ``nan``, and ``None`` in the rows of :func:`geometry_report`. Nothing is normalised unless the formula
says so; cosines with a zero vector count as 0.

Values of N independent isotropic Gaussian vectors, to know before reading a number: eigenvalue CV ≈ √(d/N), diagonal
CV ≈ √(2/N), cross-correlation energy = 1/(N − 1), unadjusted R² = d/(N − 1), uniformity (t = 2) ≈ −4 + 8/d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_mic.files import plain
from hf_mic.options import check_at_least, check_distinct

from .directions import alignment, mean_cosine, uniformity
from .linalg import (
    Matrix,
    as_matrix,
    centre,
    draw,
    eigenvalues,
    entropy_rank,
    factorise,
    neighbours,
    prefix_width,
    regression_r2,
    shared,
    squared_correlation,
    take,
    variation,
)
from .spectra import isotropy, participation

__all__ = ["geometry_report"]


def _spectral_values(raw: np.ndarray, factor: np.ndarray, d: int, n: int) -> dict[str, float]:
    """The measures of one prefix that follow from the factors of n raw and of n centred rows."""
    values = eigenvalues(factor[:, :d], n)
    full = d == factor.shape[1]
    r2, r2_adjusted = (math.nan, math.nan) if full else regression_r2(factor, d, n)
    return {
        "effective_rank": entropy_rank(raw[:, :d]),
        "participation_ratio": participation(values),
        "eigen_cv": variation(values),
        "isoscore": isotropy(values),
        "cross_correlation": math.nan if full else squared_correlation(factor, d),
        "residual_r2": r2,
        "residual_r2_adjusted": r2_adjusted,
    }


def _pair_sides(embeddings: Matrix, pairs: Any, max_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The two matrices of paired rows, from row indices."""
    index = np.asarray(pairs)
    if index.ndim != 2 or index.shape[1] != 2 or not len(index) or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"pairs must be integer row indices of shape (M >= 1, 2), got {index.dtype} {index.shape}")
    if index.min() < 0 or index.max() >= len(embeddings):
        raise ValueError(f"pairs must index rows 0..{len(embeddings) - 1}, got {index.min()}..{index.max()}")
    index = index[draw(len(index), max_rows, seed)]
    first, second = (as_matrix(take(embeddings, column), min_rows=1) for column in index.T)
    return first, second


def geometry_report(
    embeddings: Matrix,
    dims: Sequence[int],
    pairs: np.ndarray | Sequence[tuple[int, int]] | None = None,
    *,
    k: int = 10,
    max_rows: int = 20_000,
    max_queries: int = 1_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """All measures of this module at each prefix width, one json-serialisable row per dimension.

    A row holds ``dim``, ``n`` (rows measured), ``knn_k`` and the measures ``effective_rank``, ``participation_ratio``,
    ``eigen_cv``, ``isoscore``, ``cross_correlation``, ``residual_r2``, ``residual_r2_adjusted``, ``diagonal_cv``,
    ``uniformity``, ``alignment``, ``mean_cosine`` and ``knn_overlap`` (recall@k); ``None`` where undefined: alignment
    without pairs, prefix/residual measures at full width. One QR decomposition serves all dimensions.

    Args:
        embeddings: Shape: (N, D), N ≥ 2. A memory-mapped array is read only where sampled.
        dims: Prefix widths, each 1 ≤ d ≤ D.
        pairs: Row indices of positive pairs, shape (M, 2), for the alignment.
        k: Neighbours per query; at most N − 1 are used.
        max_rows: Larger matrices, and lists of pairs, are sampled down to that many rows.
        max_queries: Queries of the k-NN overlap; four times as many rows enter the uniformity.
        seed: Seed of every draw.

    Raises:
        ValueError: Not a finite 2-D matrix with two rows or more, dims outside 1..D or repeated, pairs out of range.

    Example:
        >>> rows = geometry_report(np.eye(8), [2, 8])
        >>> [(row["dim"], round(row["effective_rank"], 6)) for row in rows]
        [(2, 2.0), (8, 8.0)]
    """
    dims, k = plain(dims), plain(k)
    for name, value, least in (("k", k, 1), ("max_queries", max_queries, 1), ("max_rows", max_rows, 2)):
        check_at_least(name, value, least)
    x = as_matrix(take(embeddings, draw(len(embeddings), max_rows, seed)))
    n, width = x.shape
    widths = sorted(prefix_width(dim, width, full=True) for dim in dims)
    check_distinct("dims", widths)
    sides = None if pairs is None else _pair_sides(embeddings, pairs, max_rows, seed)
    centred = centre(x)
    raw, factor = factorise(x), factorise(centred)
    queries, k = draw(n, max_queries, seed), min(k, n - 1)
    nearest = neighbours(x, queries, k)
    rows: list[dict[str, Any]] = []
    for d in widths:
        values = _spectral_values(raw, factor, d, n) | {
            "diagonal_cv": variation((centred[:, :d] ** 2).mean(axis=0)),
            "uniformity": uniformity(x[:, :d], max_rows=4 * max_queries, seed=seed),
            "alignment": math.nan if sides is None else alignment(sides[0][:, :d], sides[1][:, :d]),
            "mean_cosine": mean_cosine(x[:, :d]),
            "knn_overlap": float(shared(nearest, neighbours(x[:, :d], queries, k)).mean() / k),
        }
        defined = {name: None if math.isnan(value) else value for name, value in values.items()}
        rows.append({"dim": d, "n": n, "knn_k": k, **defined})
    return rows
