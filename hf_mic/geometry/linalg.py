"""Matrix computations behind the measures of this room: input checks, factors, spectra, cosines, neighbours.

All of it is numpy in fp64. A centred matrix X with X = QR has the singular values, the covariance and the least-squares
fits of its small factor R, and so have its column prefixes, so one decomposition serves every dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from hf_mic.codes.inputs import as_array
from hf_mic.options import check_at_least

__all__ = [
    "Matrix",
    "as_matrix",
    "centre",
    "cosines",
    "draw",
    "eigenvalues",
    "entropy_rank",
    "factorise",
    "neighbours",
    "prefix_width",
    "regression_r2",
    "shared",
    "squared_correlation",
    "take",
    "unit",
    "variation",
]

Matrix: TypeAlias = np.ndarray | torch.Tensor | Sequence[Sequence[float]]
CHUNK = 1024  # rows of a cosine matrix held at once


def as_matrix(embeddings: Matrix, *, min_rows: int = 2) -> np.ndarray:
    """Checked fp64 numpy copy or view of embeddings. Shape: (N, D).

    Example:
        >>> as_matrix([[1, 2], [3, 4]]).dtype
        dtype('float64')
    """
    x = as_array(embeddings)
    if x.ndim != 2 or len(x) < min_rows or x.shape[1] < 1:
        raise ValueError(f"embeddings must be a matrix of shape (N >= {min_rows}, D >= 1), got shape {x.shape}")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise ValueError(f"embeddings must be real numbers, got dtype {x.dtype}")
    x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise ValueError(f"embeddings hold NaN or infinity in {len(bad)} rows, the first is row {bad[0]}; remove them")
    return x


def prefix_width(dim: int, width: int, *, full: bool = False) -> int:
    """`dim` checked against the width D: 1..D where the full width is allowed, else 1..D − 1."""
    top = width if full else width - 1
    if not isinstance(dim, int | np.integer) or isinstance(dim, bool) or not 1 <= dim <= top:
        raise ValueError(f"dim={dim!r}: must be an integer between 1 and {top} for embeddings of width {width}")
    return int(dim)


def draw(n: int, size: int | None, seed: int) -> np.ndarray:
    """Sorted row numbers: all n, or `size` of them drawn without replacement.

    Example:
        >>> draw(3, None, seed=0), len(draw(100, 10, seed=0))
        (array([0, 1, 2]), 10)
    """
    if size is not None:
        check_at_least("size", size, 1)
    if size is None or size >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def take(embeddings: Matrix, rows: np.ndarray) -> Matrix:
    """Rows of embeddings before any conversion, so that a memory-mapped array is read only there."""
    if isinstance(embeddings, torch.Tensor):
        return embeddings[torch.as_tensor(rows, device=embeddings.device)]
    return as_array(embeddings)[rows]


def centre(x: np.ndarray) -> np.ndarray:
    """Subtract the column means; columns constant up to rounding become exactly zero.

    Example:
        >>> centre(np.array([[1.0, 5.0], [3.0, 5.0]]))
        array([[-1.,  0.],
               [ 1.,  0.]])
    """
    centred = x - x.mean(axis=0)
    centred[:, np.abs(centred).max(axis=0) <= 1e-12 * np.abs(x).max(axis=0)] = 0.0
    return centred


def factorise(x: np.ndarray) -> np.ndarray:
    """R of the QR decomposition. Shape: (N, D) → (min(N, D), D)."""
    return np.asarray(np.linalg.qr(x, mode="r"))


def eigenvalues(factor: np.ndarray, n: int) -> np.ndarray:
    """Covariance eigenvalues from the factor of n centred rows, zeros beyond the rank. Shape: (·, d) → (d,)."""
    values = np.linalg.svd(factor, compute_uv=False) ** 2 / (n - 1)
    return np.pad(values, (0, factor.shape[1] - len(values)))


def entropy_rank(factor: np.ndarray) -> float:
    """Exp of the entropy of the normalised singular values; nan for a zero matrix."""
    sigma = np.linalg.svd(factor, compute_uv=False)
    if not sigma.any():
        return math.nan
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def variation(values: np.ndarray) -> float:
    """Population standard deviation ÷ mean of non-negative values; nan when all are zero.

    Example:
        >>> variation(np.array([1.0, 3.0]))  # 1 / 2
        0.5
    """
    return float(values.std() / values.mean()) if values.any() else math.nan


def squared_correlation(factor: np.ndarray, dim: int) -> float:
    """Mean squared correlation between the first `dim` columns and the others, of the factor of a centred matrix.

    Example:
        >>> squared_correlation(np.array([[1.0, 0.0], [0.0, 1.0]]), 1)  # two columns of their own
        0.0
    """
    norms = np.linalg.norm(factor, axis=0)
    columns = factor / np.where(norms > 0, norms, 1.0)
    return float(((columns[:, :dim].T @ columns[:, dim:]) ** 2).mean())


def regression_r2(factor: np.ndarray, dim: int, n: int) -> tuple[float, float]:
    """R² and adjusted R² of the later columns regressed on the first `dim`, from the factor of n centred rows."""
    prefix, residual = factor[:, :dim], factor[:, dim:]
    total = (residual**2).sum()
    if total == 0:
        return math.nan, math.nan
    u, sigma, _ = np.linalg.svd(prefix, full_matrices=False)
    # Directions below the rounding of the largest singular value are no directions (the rule of numpy.linalg.matrix_rank).
    u = u[:, sigma > sigma[0] * max(n, dim) * np.finfo(np.float64).eps]
    unexplained = ((residual - u @ (u.T @ residual)) ** 2).sum() / total
    freedom = n - 1 - u.shape[1]
    return float(1 - unexplained), float(1 - unexplained * (n - 1) / freedom) if freedom > 0 else math.nan


def unit(x: np.ndarray) -> np.ndarray:
    """Rows divided by their norms; zero rows stay zero.

    Example:
        >>> unit(np.array([[0.0, 2.0]]))
        array([[0., 1.]])
    """
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def cosines(unit_rows: np.ndarray, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of queries and their cosines with every row. Shapes: (C,), (C, N)."""
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]
        yield chunk, unit_rows[chunk] @ unit_rows.T


def neighbours(x: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the k nearest other rows by cosine, unordered. Shape: (Q, k).

    Example:
        >>> neighbours(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array([0]), 1)
        array([[1]])
    """
    found = []
    for chunk, cosine in cosines(unit(x), queries):
        cosine[np.arange(len(chunk)), chunk] = -np.inf  # nobody is their own neighbour
        # A partition is enough: overlaps count members, not their order.
        found.append(np.argpartition(-cosine, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number of common entries per row of two arrays without repetition. Shape: (Q, k), (Q, k) → (Q,).

    Example:
        >>> shared(np.array([[1, 2]]), np.array([[2, 3]]))
        array([1])
    """
    return (first[:, :, None] == second[:, None, :]).sum(axis=(1, 2))
