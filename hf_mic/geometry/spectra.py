"""How evenly the variance of embeddings fills their dimensions.

Each function takes a matrix of N embeddings and returns ``nan`` where a value does not exist, as for a constant matrix.
"""

from __future__ import annotations

import math

import numpy as np

from .linalg import Matrix, as_matrix, centre, eigenvalues, entropy_rank, factorise, variation

__all__ = [
    "diagonal_cv",
    "effective_rank",
    "eigenvalue_cv",
    "isoscore",
    "isotropy",
    "participation",
    "participation_ratio",
    "spectrum",
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
    return participation(spectrum(embeddings))


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
    return isotropy(spectrum(embeddings))


def participation(variances: np.ndarray) -> float:
    """Participation ratio of a spectrum; nan when it is zero.

    Example:
        >>> participation(np.array([1.0, 1.0, 0.0]))
        2.0
    """
    return float(variances.sum() ** 2 / (variances**2).sum()) if variances.any() else math.nan


def isotropy(variances: np.ndarray) -> float:
    """IsoScore of a spectrum; nan in one dimension.

    Example:
        >>> isotropy(np.array([1.0, 1.0, 0.0]))  # (2 - 1) / (3 - 1)
        0.5
    """
    d = len(variances)
    return (participation(variances) - 1) / (d - 1) if d > 1 else math.nan
