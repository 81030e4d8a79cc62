"""How evenly embeddings are spread over the directions, whatever their lengths; cosines with a zero vector count as 0."""

from __future__ import annotations

import numpy as np

from hf_mic.options import check_number

from .linalg import Matrix, as_matrix, cosines, draw, take, unit

__all__ = ["alignment", "mean_cosine", "uniformity"]


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
    check_number("t", t, positive=True)
    directions = unit(as_matrix(take(embeddings, draw(len(embeddings), max_rows, seed))))
    log_sum = -np.inf
    for rows, cosine in cosines(directions, np.arange(len(directions))):
        exponent = -2 * t * (1 - cosine)
        exponent[np.arange(len(rows)), rows] = -np.inf
        top = exponent.max()
        # Added up chunk by chunk, in logarithms, so that no N x N matrix is held.
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
    check_number("alpha", alpha, positive=True)
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
