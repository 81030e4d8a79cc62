"""How far a prefix repeats the rest of an embedding, and how much of the neighbourhoods it keeps."""

from __future__ import annotations

from typing import Literal

from hf_mic.options import check_between, check_choice

from .linalg import (
    Matrix,
    as_matrix,
    centre,
    draw,
    factorise,
    neighbours,
    prefix_width,
    regression_r2,
    shared,
    squared_correlation,
)

__all__ = ["cross_correlation_energy", "knn_overlap", "residual_r2"]


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
    check_choice("measure", measure, ("recall", "jaccard"))
    x = as_matrix(embeddings)
    check_between("k", k, 1, len(x) - 1)
    dim = prefix_width(dim, x.shape[1], full=True)
    queries = draw(len(x), max_queries, seed)
    common = shared(neighbours(x, queries, k), neighbours(x[:, :dim], queries, k))
    return float((common / (k if measure == "recall" else 2 * k - common)).mean())
