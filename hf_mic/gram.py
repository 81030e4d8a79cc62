"""Products of all pairs of features, at no more than the cost that a regulariser of prefixes needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["feature_gram"]


def feature_gram(features: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """``features.T @ features``, whole or only where a prefix meets its residual.

    The gradient is one product, ``features @ (G + G.T)``, where autograd would compute two.

    Args:
        features: One row per observation. Shape: (N, D).
        dims: Prefix lengths d in [1, D - 1]. If given, only entries (u, v) with u < d <= v for some d are computed, less
            than half of the matrix; the others are zero and pass no gradient. Default: all entries.

    Returns:
        The products. Shape: (D, D).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 3.0]])
        >>> feature_gram(x, dims=[1])
        tensor([[0., 2., 3.],
                [0., 0., 0.],
                [0., 0., 0.]])
    """
    return _FeatureGram.apply(features, None if dims is None else sorted(set(dims)))


class _FeatureGram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, bounds: list[int] | None) -> Tensor:
        ctx.save_for_backward(features)
        ctx.bounds = bounds
        if bounds is None:
            return features.T @ features
        gram = features.new_zeros(features.size(1), features.size(1))
        for start, end in _blocks(bounds):
            gram[start:end, end:] = features[:, start:end].T @ features[:, end:]
        return gram

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        if ctx.bounds is not None:
            used = torch.zeros_like(grad)
            for start, end in _blocks(ctx.bounds):
                used[start:end, end:] = grad[start:end, end:]
            grad = used
        return features @ (grad + grad.T), None


def _blocks(bounds: list[int]) -> list[tuple[int, int]]:
    """Rows [start, end) pair with the columns from ``end`` on: the residual of the shortest prefix that holds them."""
    return list(zip([0, *bounds[:-1]], bounds, strict=True))
