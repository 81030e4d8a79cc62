"""Padded token sets, (B, T, D) with a mask (B, T): precision, padding, means, variance, and moving the tokens that matter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "front_mask",
    "gather_tokens",
    "kept_positions",
    "mean_over_samples",
    "normalise_weights",
    "pool_tokens",
    "promote",
    "take_tokens",
    "token_variance",
    "zero_padding",
]


def promote(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if its type is wider: sums over thousands of tokens need that much.

    Example:
        >>> promote(torch.zeros(1, dtype=torch.bfloat16)).dtype, promote(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def zero_padding(tokens: Tensor, mask: Tensor) -> Tensor:
    """Tokens with zeros at padding, whatever stood there, NaN included; padding gets exactly zero gradient.

    Args:
        tokens: Shape: (B, T, D).
        mask: True at tokens. Shape: (B, T), bool.

    Example:
        >>> zero_padding(torch.tensor([[[1.0], [float("nan")]]]), torch.tensor([[True, False]])).flatten()
        tensor([1., 0.])
    """
    return tokens.masked_fill(~mask.unsqueeze(2), 0)  # a product with the mask would keep NaN


def mean_over_samples(total: Tensor, count: Tensor) -> Tensor:
    """Mean of each sample's ``total / count``, over the samples that have any; zero, with its graph, if none has.

    Samples weigh the same however many tokens they have, so a batch of two is the mean of two batches of one.

    Args:
        total: Sums over the tokens of each sample. Shape: (B,).
        count: Tokens in each sum. Shape: (B,).

    Example:
        >>> mean_over_samples(torch.tensor([6.0, 0.0, 2.0]), torch.tensor([3, 0, 2]))
        tensor(1.5000)
    """
    return (total / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def normalise_weights(weights: Tensor, mask: Tensor) -> Tensor:
    """Weights of each sample over the largest of them, zero at padding, so that equal weights of any size give exactly ones.

    A sum over a sample is at least 1 then, or the sample has no weight at all. No gradient: weights are constants.

    Args:
        weights: Not negative; values at padding are ignored, also NaN. Shape: (B, T).
        mask: True at tokens. Shape: (B, T), bool.

    Raises:
        ValueError: For another shape, or a weight that is negative or not finite.

    Example:
        >>> normalise_weights(torch.tensor([[0.2, 0.4, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([[0.5000, 1.0000, 0.0000]])
    """
    if weights.shape != mask.shape:
        raise ValueError(f"weights={tuple(weights.shape)}: one for each token is needed, {tuple(mask.shape)}.")
    weights = promote(weights.detach()).masked_fill(~mask, 0)
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(
            f"weights from {weights.min():.4g} to {weights.max():.4g}: must be finite and not negative (0 leaves a token out)."
        )
    return weights / weights.amax(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def gather_tokens(states: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Move the kept tokens of each sample to the front and cut the rest.

    Args:
        states: Shape: (B, T, D).
        keep: Shape: (B, T), bool.

    Returns:
        The kept states in their order, zero on padding, and their mask. Shapes: (B, N, D) and (B, N), N = the largest
        count in the batch. Padding gets exactly zero gradient.

    Example:
        >>> gather_tokens(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[True, False, True]]))[0].flatten()
        tensor([1., 3.])
    """
    index, mask = kept_positions(keep)
    return take_tokens(states, index, mask), mask


def take_tokens(states: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """States at the given positions, zero where masked.

    Args:
        states: Shape: (B, T, D).
        index: Positions within T. Shape: (B, N), int64.
        mask: Shape: (B, N), bool.

    Returns:
        Shape: (B, N, D).
    """
    return zero_padding(states.gather(1, index.unsqueeze(2).expand(-1, -1, states.shape[2])), mask)


def front_mask(count: Tensor, width: int) -> Tensor:
    """True at the first ``count`` places of each row. Shapes: (B,) → (B, width).

    Example:
        >>> front_mask(torch.tensor([2, 0]), 3)
        tensor([[ True,  True, False],
                [False, False, False]])
    """
    return torch.arange(width, device=count.device) < count.unsqueeze(1)


def kept_positions(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the kept tokens, front-aligned, 0 on padding, and their mask. Shapes: (B, N), (B, N)."""
    counts = keep.sum(1)
    length = int(counts.max())
    index = keep.int().argsort(dim=1, descending=True, stable=True)[:, :length]  # stable: they keep their order
    mask = front_mask(counts, length)
    return index.masked_fill(~mask, 0), mask


def pool_tokens(states: Tensor, mask: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Average runs of ``factor`` consecutive tokens; the last run of a sample may be shorter.

    Args:
        states: Front-aligned tokens, as `gather_tokens` returns them. Shape: (B, N, D).
        mask: Shape: (B, N), bool.
        factor: Tokens per run.

    Returns:
        Shapes: (B, ⌈N / factor⌉, D) and (B, ⌈N / factor⌉).
    """
    if factor == 1:
        return states, mask
    batch, length, width = states.shape
    rest = -length % factor
    runs = F.pad(states, (0, 0, 0, rest)).view(batch, -1, factor, width)
    weight = F.pad(mask, (0, rest)).view(batch, -1, factor, 1).to(states.dtype)
    count = weight.sum(2)
    return (runs * weight).sum(2) / count.clamp(min=1), count.squeeze(-1) > 0


def token_variance(tokens: Tensor, mask: Tensor) -> Tensor:
    """Variance over the tokens of a sample, a mean over channels and over samples that have tokens.

    Args:
        tokens: Finite at padding. Shape: (B, T, D).
        mask: True at tokens. Shape: (B, T), bool.

    Example:
        >>> token_variance(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor(1.)
    """
    weights = mask.unsqueeze(2).to(tokens.dtype)
    count = weights.sum(1, keepdim=True).clamp(min=1)
    centred = (tokens - (tokens * weights).sum(1, keepdim=True) / count) * weights
    return mean_over_samples(centred.square().mean(2).sum(1), mask.sum(1))
