"""Geometry of an embedding matrix, at full width and at each prefix.

Every function takes a matrix of N embeddings as a numpy array or torch tensor of any dtype or device, works in fp64 on
the CPU and returns a Python float. A value that does not exist (the spectrum of a constant matrix, IsoScore in one
dimension) is ``nan``, and ``None`` in the rows of :func:`geometry_report`. Nothing is normalised unless the formula
says so; cosines with a zero vector count as 0.

Values of N independent isotropic Gaussian vectors, to know before reading a number: eigenvalue CV ≈ √(d/N), diagonal
CV ≈ √(2/N), cross-correlation energy = 1/(N − 1), unadjusted R² = d/(N − 1), uniformity (t = 2) ≈ −4 + 8/d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .linalg import (
    Matrix,
    as_matrix,
    centre,
    cosines,
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
    unit,
    variation,
)

__all__ = [
    "alignment",
    "cross_correlation_energy",
    "diagonal_cv",
    "effective_rank",
    "eigenvalue_cv",
    "geometry_report",
    "isoscore",
    "knn_overlap",
    "mean_cosine",
    "participation_ratio",
    "residual_r2",
    "spectrum",
    "uniformity",
]


def spectrum(embeddings: Matrix) -> np.ndarray:
    """Eigenvalues of the covariance matrix (divisor N − 1), largest first.

    Args:
        embeddings: Shape: (N, D), N ≥ 2.

    Returns:
        Shape: (D,); zeros beyond the rank.

    Example:
        >>> spectrum([[1, 0], [-1, 0], [0, 2], [0, -2]]).round(4).tolist()
        [2.6667, 0.6667]
    """
    x = as_matrix(embeddings)
    return eigenvalues(factorise(centre(x)), len(x))


def effective_rank(embeddings: Matrix, *, center: bool = False) -> float:
    """RankMe: exponential of the entropy of the normalised singular values, exp(−Σ p_k ln p_k), p_k = σ_k / Σσ.

    Between 1 and min(N, D). Source: Garrido et al. 2023 (arXiv 2210.02885), Eq. 1, without its ε = 1e-7, which fp64
    does not need; Roy & Vetterli 2007 for the effective rank itself.

    Args:
        embeddings: Shape: (N, D), N ≥ 2.
        center: Subtract the mean vector first. RankMe does not.

    Example:
        >>> round(effective_rank([[3, 0], [0, 1]]), 4)  # p = 3/4, 1/4
        1.7548
    """
    x = as_matrix(embeddings)
    return entropy_rank(factorise(centre(x) if center else x))


def participation_ratio(embeddings: Matrix) -> float:
    """Number of directions that carry the variance: (Σλ)² / Σλ² of the covariance eigenvalues.

    Between 1 and D. Source: Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement".

    Args:
        embeddings: Shape: (N, D), N ≥ 2.

    Example:
        >>> round(participation_ratio([[1, 0], [-1, 0], [0, 2], [0, -2]]), 4)  # λ ∝ 4, 1: 25/17
        1.4706
    """
    return _participation(spectrum(embeddings))


def eigenvalue_cv(embeddings: Matrix) -> float:
    """Coefficient of variation of the covariance eigenvalues: sqrt(d ‖Σ‖_F² / (tr Σ)² − 1).

    0 for an isotropic cloud, sqrt(d − 1) for one direction; equals sqrt(d / participation ratio − 1). This is the
    rotation-invariant form of the L_cv of MIC (arXiv 2605.29987), which sees the diagonal of Σ only.

    Args:
        embeddings: Shape: (N, d), N ≥ 2.

    Example:
        >>> round(eigenvalue_cv([[1, 0], [-1, 0], [0, 2], [0, -2]]), 4)  # λ ∝ 4, 1: 1.5 / 2.5
        0.6
    """
    return variation(spectrum(embeddings))


def diagonal_cv(embeddings: Matrix) -> float:
    """Coefficient of variation of the coordinates' variances: sqrt(mean (v_j − v̄)²) / v̄.

    The L_cv of MIC (arXiv 2605.29987) without its ε. Blind to correlation: rank-one data with equal variances gives 0.

    Args:
        embeddings: Shape: (N, d), N ≥ 2.

    Example:
        >>> diagonal_cv([[1, 1], [-1, -1]]), eigenvalue_cv([[1, 1], [-1, -1]])
        (0.0, 1.0)
    """
    return variation((centre(as_matrix(embeddings)) ** 2).mean(axis=0))


def isoscore(embeddings: Matrix) -> float:
    """IsoScore: share of dimensions used uniformly, from 0 (one direction) to 1 (isotropic).

    Source: Rudman et al. 2022 (arXiv 2108.07344), Algorithm 1. Its steps (isotropy defect of the normalised PCA
    variances, then rescaling) simplify to (PR − 1) / (d − 1) with PR the participation ratio. Biased low when N is
    not far above d. Undefined for d = 1.

    Args:
        embeddings: Shape: (N, d), N ≥ 2.

    Example:
        >>> round(isoscore([[1, 0], [-1, 0], [0, 2], [0, -2]]), 4)
        0.4706
    """
    return _isoscore(spectrum(embeddings))


def uniformity(embeddings: Matrix, *, t: float = 2.0, max_rows: int | None = None, seed: int = 0) -> float:
    """Log of the mean Gaussian potential over pairs of unit vectors: log mean_{i≠j} exp(−2t (1 − S_ij)), S = cosine.

    Lower is more uniform; 0 when all directions are equal. Source: Wang & Isola 2020 (arXiv 2005.10242), whose
    exp(−t‖x − y‖²) is the same number since ‖x − y‖² = 2(1 − S); the L_unif of MIC (arXiv 2605.29987).

    Args:
        embeddings: Shape: (N, d), N ≥ 2. The cost is quadratic in N.
        t: Inverse width of the potential, positive.
        max_rows: Use that many rows, drawn with `seed`.
        seed: Seed of the draw.

    Example:
        >>> uniformity([[1, 0], [-3, 0]])  # opposite: S = −1, −2·2·2
        -8.0
    """
    if not (math.isfinite(t) and t > 0):
        raise ValueError(f"t must be a positive finite number, got {t}")
    directions = unit(as_matrix(take(embeddings, draw(len(embeddings), max_rows, seed))))
    log_sum = -np.inf
    for rows, cosine in cosines(directions, np.arange(len(directions))):
        exponent = -2 * t * (1 - cosine)
        exponent[np.arange(len(rows)), rows] = -np.inf
        top = exponent.max()
        log_sum = np.logaddexp(log_sum, top + np.log(np.exp(exponent - top).sum()))
    return float(log_sum - np.log(len(directions) * (len(directions) - 1)))


def alignment(first: Matrix, second: Matrix, *, alpha: float = 2.0) -> float:
    """Mean distance of positive pairs on the unit sphere: mean ‖x_i − y_i‖^α. Lower is closer.

    Source: Wang & Isola 2020 (arXiv 2005.10242). With α = 2 this is 2 (1 − mean cosine of the pairs).

    Args:
        first: Shape: (M, d).
        second: Shape: (M, d); row i is the partner of row i of `first`.
        alpha: Power of the distance, positive.

    Example:
        >>> alignment([[2, 0]], [[0, 5]])  # a right angle
        2.0
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a positive finite number, got {alpha}")
    x, y = as_matrix(first, min_rows=1), as_matrix(second, min_rows=1)
    if x.shape != y.shape:
        raise ValueError(f"pairs need two matrices of one shape, got {x.shape} and {y.shape}")
    return float((((unit(x) - unit(y)) ** 2).sum(axis=1) ** (alpha / 2)).mean())


def mean_cosine(embeddings: Matrix) -> float:
    """Mean cosine over all pairs i ≠ j, the anisotropy estimate of Ethayarajh 2019 (arXiv 1909.00512).

    Computed exactly in O(N d): (‖Σ u_i‖² − Σ ‖u_i‖²) / (N (N − 1)) with u the unit vectors.

    Args:
        embeddings: Shape: (N, d), N ≥ 2.

    Example:
        >>> round(mean_cosine([[1, 0], [0, 1], [-1, 0]]), 4)  # 0, 0, −1
        -0.3333
    """
    u = unit(as_matrix(embeddings))
    return float(((u.sum(axis=0) ** 2).sum() - (u**2).sum()) / (len(u) * (len(u) - 1)))


def cross_correlation_energy(embeddings: Matrix, dim: int) -> float:
    """Mean squared Pearson correlation between prefix and residual coordinates: mean_uv C_uv² over the d × d_res block.

    The pooled L_corr of MIC (arXiv 2605.29987) at τ = 0. Constant coordinates correlate with nothing (0) and count in
    the mean.

    Args:
        embeddings: Shape: (N, D), N ≥ 2.
        dim: Width d of the prefix, 1 ≤ d < D.

    Example:
        >>> cross_correlation_energy([[1, 2, 1], [-1, -2, 1], [1, 2, -1], [-1, -2, -1]], 1)  # C = 1, 0
        0.5
    """
    x = as_matrix(embeddings)
    return squared_correlation(factorise(centre(x)), prefix_width(dim, x.shape[1]))


def residual_r2(embeddings: Matrix, dim: int, *, adjusted: bool = False) -> float:
    """Share of the residual's variance that the best linear map (with intercept) of the prefix explains.

    R² = 1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖², summed over the D − d coordinates of the residual y; ordinary least squares, no
    ridge, the minimum-norm solution for a prefix of rank p < d. Even independent data gives p / (N − 1); the adjusted
    form 1 − (1 − R²)(N − 1) / (N − 1 − p) (Wherry 1931; Theil 1961) has mean 0 there and may be negative. With
    N ≤ p + 1 the fit is exact, so R² = 1 says nothing and the adjusted form is undefined.

    Args:
        embeddings: Shape: (N, D), N ≥ 2.
        dim: Width d of the prefix, 1 ≤ d < D.
        adjusted: Correct for the degrees of freedom of the fit.

    Example:
        >>> residual_r2([[1, 2, 1], [-1, -2, 1], [1, 2, -1], [-1, -2, -1]], 1)  # variance 4 of 4 + 1
        0.8
    """
    x = as_matrix(embeddings)
    return regression_r2(factorise(centre(x)), prefix_width(dim, x.shape[1]), len(x))[int(adjusted)]


def knn_overlap(
    embeddings: Matrix,
    dim: int,
    *,
    k: int = 10,
    measure: Literal["recall", "jaccard"] = "recall",
    max_queries: int | None = None,
    seed: int = 0,
) -> float:
    """How many of the k nearest neighbours (cosine) at full width remain the k nearest in the prefix.

    Mean over queries of |A ∩ B| / k ("recall", recall@k with the full width as truth) or |A ∩ B| / |A ∪ B|
    ("jaccard"). A query is not its own neighbour; every row is a candidate. Chance level of the recall: k / (N − 1).
    Ties, as between duplicate rows, are cut arbitrarily.

    Args:
        embeddings: Shape: (N, D), N > k. The cost is queries × N × D.
        dim: Width d of the prefix, 1 ≤ d ≤ D.
        k: Neighbours per query.
        measure: "recall" or "jaccard".
        max_queries: Use that many rows as queries, drawn with `seed`.
        seed: Seed of the draw.

    Example:
        >>> points = [[1, 0, 0], [1, 0.1, 5], [0, 1, 0], [0.1, 1, 5]]
        >>> knn_overlap(points, 2, k=1)  # rows 0 and 2 keep their neighbour, 1 and 3 were each other's
        0.5
    """
    if measure not in ("recall", "jaccard"):
        raise ValueError(f"measure must be 'recall' or 'jaccard', got {measure!r}")
    x = as_matrix(embeddings)
    if not 1 <= k < len(x):
        raise ValueError(f"k must be between 1 and N - 1 = {len(x) - 1}, got {k}")
    dim = prefix_width(dim, x.shape[1], full=True)
    queries = draw(len(x), max_queries, seed)
    common = shared(neighbours(x, queries, k), neighbours(x[:, :dim], queries, k))
    return float((common / (k if measure == "recall" else 2 * k - common)).mean())


def _participation(variances: np.ndarray) -> float:
    return float(variances.sum() ** 2 / (variances**2).sum()) if variances.any() else math.nan


def _isoscore(variances: np.ndarray) -> float:
    d = len(variances)
    return (_participation(variances) - 1) / (d - 1) if d > 1 else math.nan


def _spectral_values(raw: np.ndarray, factor: np.ndarray, d: int, n: int) -> dict[str, float]:
    """The measures of one prefix that follow from the factors of n raw and of n centred rows."""
    values = eigenvalues(factor[:, :d], n)
    full = d == factor.shape[1]
    r2, r2_adjusted = (math.nan, math.nan) if full else regression_r2(factor, d, n)
    return {
        "effective_rank": entropy_rank(raw[:, :d]),
        "participation_ratio": _participation(values),
        "eigen_cv": variation(values),
        "isoscore": _isoscore(values),
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
    if min(k, max_queries) < 1 or max_rows < 2:
        raise ValueError(f"need k, max_queries >= 1 and max_rows >= 2, got {k}, {max_queries}, {max_rows}")
    x = as_matrix(take(embeddings, draw(len(embeddings), max_rows, seed)))
    n, width = x.shape
    widths = sorted(prefix_width(dim, width, full=True) for dim in dims)
    if not widths or len(set(widths)) < len(widths):
        raise ValueError(f"dims must be a non-empty list without repetition, got {list(dims)}")
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
