"""Codes of one or two bits while a map is fitted: a quantiser whose steps are smooth, and get steeper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["SHARPNESS", "coded_similarity", "soft_codes", "soft_quantize"]

LEVELS = {1: (-0.7979, 0.7979), 2: (-1.5104, -0.4528, 0.4528, 1.5104)}
"""Levels of least squared error for a standard normal coordinate (Max, "Quantizing for minimum distortion", 1960)."""

SHARPNESS = (2.0, 20.0)
"""Of the steps at the start and at the end of a fit: at 2 a coordinate is hardly quantised, at 20 nearly wholly."""


def soft_quantize(x: Tensor, bits: int, sharpness: float) -> Tensor:
    r"""A staircase of sigmoids between the levels of a code.

    .. math:: q(x) = l_0 + \sum_i (l_{i+1} - l_i)\, \sigma\big(s\,(x - \tfrac12 (l_i + l_{i+1}))\big)

    With one bit this is :math:`l_1 \tanh(s x / 2)`. As s grows q becomes the quantiser, and unlike that it has a gradient,
    which is large for coordinates near a threshold, where the code can still change.

    Args:
        x: Standardised coordinates, any shape.
        bits: 1 or 2.
        sharpness: s; ``inf`` gives the levels themselves.

    Returns:
        Same shape.

    Example:
        >>> soft_quantize(torch.tensor([-3.0, 0.0, 0.2]), bits=1, sharpness=100.0)
        tensor([-0.7979,  0.0000,  0.7979])
    """
    levels = LEVELS[bits]
    if sharpness == math.inf:  # inf * 0 would be NaN
        return x.new_tensor(levels)[torch.bucketize(x, x.new_tensor([sum(pair) / 2 for pair in pairwise(levels)]))]
    result = torch.full_like(x, levels[0])
    for low, high in pairwise(levels):
        result = result + (high - low) * torch.sigmoid(sharpness * (x - (low + high) / 2))
    return result


def soft_codes(rows: Tensor, bits: int, sharpness: float, eps: float = 1e-6) -> Tensor:
    """Rows as an index of a few bits gives them back: unit length, each coordinate standardised, quantised, and rescaled.

    Args:
        rows: Prefixes of any length. Shape: (B, d).
        bits: 1 or 2.
        sharpness: Of :func:`soft_quantize`; ``inf`` is the code itself.
        eps: Added to the standard deviations.

    Returns:
        Shape: (B, d).

    Example:
        >>> soft_codes(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), bits=1, sharpness=math.inf)
        tensor([[0.5394, 0.8202],
                [0.0606, 0.9798]])
    """
    unit = nn.functional.normalize(rows, dim=1)
    mean, spread = unit.mean(dim=0), unit.std(dim=0, correction=0) + eps
    return soft_quantize((unit - mean) / spread, bits, sharpness) * spread + mean


def coded_similarity(mapped: Tensor, dims: Sequence[int], bits: int, sharpness: float) -> Tensor:
    """Cosines of prefixes, as floats, with the soft codes of the same prefixes: a query in floats, an index in codes.

    Args:
        mapped: Mapped vectors. Shape: (B, at least max(dims)).
        dims: Prefix lengths.
        bits: 1 or 2.
        sharpness: Of :func:`soft_quantize`.

    Returns:
        Row i: query i with all codes. Shape: (len(dims), B, B).

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> coded_similarity(z, [2], bits=1, sharpness=math.inf)[0, 0].round(decimals=4) + 0.0
        tensor([ 1.,  0.,  0., -1.])
    """
    similarities = []
    for dim in dims:
        codes = nn.functional.normalize(soft_codes(mapped[:, :dim], bits, sharpness), dim=1)
        similarities.append(nn.functional.normalize(mapped[:, :dim], dim=1) @ codes.T)
    return torch.stack(similarities)
