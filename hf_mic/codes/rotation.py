"""A random rotation: it spreads what a few coordinates hold over all of them, which even codes need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hf_mic.options import check_at_least

__all__ = ["random_orthogonal"]


def random_orthogonal(dims: int, seed: int = 0) -> NDArray[np.float32]:
    """An orthogonal matrix, uniformly distributed over all of them (Haar measure).

    Args:
        dims: Its size d.
        seed: The same seed, the same matrix.

    Returns:
        Shape: (d, d).

    Source: Mezzadri, "How to generate random matrices from the classical compact groups", 2007: QR of a Gaussian matrix, signs
        taken from the diagonal of R.

    Example:
        >>> turned = random_orthogonal(3)
        >>> np.allclose(turned @ turned.T, np.eye(3), atol=1e-6)
        True
    """
    check_at_least("dims", dims, 1)
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(dims, dims)))
    return (q * np.sign(np.diag(r))).astype(np.float32)
