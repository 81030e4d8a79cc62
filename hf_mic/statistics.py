"""Sums and products from which the regularisers are computed, at no more than the cost that prefixes need.

Token statistics for soft collapse, the mean over tokens, and the products of features and of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "TokenStatistics",
    "at_least_float32",
    "check_prefixes",
    "feature_gram",
    "full_precision",
    "gathered_rows",
    "is_distributed",
    "masked_mean",
    "prefix_cosine",
    "prefix_gram",
    "similarity_divergence",
    "summed_statistics",
    "token_statistics",
]


@dataclass(frozen=True)
class TokenStatistics:
    """Sums over sequences from which SCR is computed; they add up over batches and processes.

    Attributes:
        correlation_sum: Sum over sequences of their feature correlations; zero where none was asked for. Shape: (D, D).
        std_sum: Sum over sequences of the standard deviation of each raw feature. Shape: (D,).
        num_sequences: Sequences of at least two valid tokens. Shape: ().
        num_tokens: Valid tokens of those sequences. Shape: ().
    """

    correlation_sum: Tensor
    std_sum: Tensor
    num_sequences: Tensor
    num_tokens: Tensor


def masked_mean(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of each sequence over its valid tokens.

    Args:
        hidden_states: Token states. Shape: (B, L, D).
        attention_mask: Non-zero where a token is valid. Shape: (B, L).

    Returns:
        Sequence embeddings. Shape: (B, D). A sequence without a valid token gives zeros.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [100.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[2.]])
    """
    with full_precision(hidden_states):
        valid = attention_mask.to(torch.bool).unsqueeze(-1)
        total = at_least_float32(hidden_states).masked_fill(~valid, 0.0).sum(dim=1)
        return total / valid.sum(dim=1).clamp(min=1)


def token_statistics(
    hidden_states: Tensor, attention_mask: Tensor, *, dims: Sequence[int] | None = None, eps: float = 1e-5
) -> TokenStatistics:
    """Per-sequence feature correlations and standard deviations, summed over the sequences of a batch.

    Each feature of each sequence is standardised over the valid tokens of that sequence, then
    ``correlation_sum = sum_i 1/N_i sum_l x_il x_il^T``. A sequence of fewer than two valid tokens has no correlation and is
    left out.

    Args:
        hidden_states: States of one layer. Shape: (B, L, D).
        attention_mask: Non-zero where a token is valid. Shape: (B, L).
        dims: Prefix lengths for whose SCR the sums are meant, to compute only those correlations. Default: all.
        eps: Added to each variance under its square root.

    Returns:
        The sums; divide by ``num_sequences`` for the means.

    Raises:
        ValueError: If the shapes do not match or a prefix length is not in [1, D - 1].

    Example:
        >>> h = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])  # two features that move together
        >>> token_statistics(h, torch.ones(1, 2), eps=0.0).correlation_sum.round(decimals=4)
        tensor([[1., 1.],
                [1., 1.]])
    """
    _check_tokens(hidden_states, attention_mask)
    if dims is not None:
        check_prefixes(dims, hidden_states.size(2), allow_full=False)
    with full_precision(hidden_states):
        valid = attention_mask.to(torch.bool)
        counts = valid.sum(dim=1)
        used = counts >= 2  # one token has no deviation from its own mean, and so no correlation
        valid = (valid & used.unsqueeze(1)).unsqueeze(-1)

        states = at_least_float32(hidden_states).masked_fill(~valid, 0.0)
        lengths = counts.clamp(min=1).view(-1, 1, 1).to(states.dtype)
        mean = states.sum(dim=1, keepdim=True) / lengths
        centred = torch.addcmul(states, valid.to(states.dtype), mean, value=-1)  # padding stays 0
        std = (centred.square().sum(dim=1, keepdim=True) / lengths + eps).sqrt()
        # With 1 / sqrt(N_i) in the rows, one product over all tokens is the sum of all sequences' correlations, C of MIC (2605.29987).
        scaled = centred * (std * lengths.sqrt()).reciprocal()
        return TokenStatistics(
            correlation_sum=feature_gram(scaled.flatten(0, 1), dims),
            std_sum=(std.squeeze(1) * used.unsqueeze(1)).sum(dim=0),
            # Counts as floats: processes add up all sums in one message.
            num_sequences=used.sum().to(states.dtype),
            num_tokens=counts[used].sum().to(states.dtype),
        )


def _check_tokens(hidden_states: Tensor, attention_mask: Tensor) -> None:
    if hidden_states.dim() != 3 or attention_mask.shape != hidden_states.shape[:2]:
        raise ValueError(
            f"hidden_states must be (B, L, D) and attention_mask (B, L), got {tuple(hidden_states.shape)} and "
            f"{tuple(attention_mask.shape)}."
        )


def is_distributed() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gathered_rows(embeddings: Tensor) -> Tensor:
    """The rows of all processes, with gradients. Shape: (B, D) → (processes · B, D)."""
    if not is_distributed():
        return embeddings
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(embeddings)))


def summed_statistics(statistics: TokenStatistics) -> TokenStatistics:
    """Sums and counts over all processes, with gradients: those of one process with the whole batch."""
    if not is_distributed():
        return statistics
    from torch.distributed.nn.functional import all_reduce

    parts = (statistics.correlation_sum, statistics.std_sum, statistics.num_sequences, statistics.num_tokens)
    packed = all_reduce(torch.cat([part.flatten() for part in parts]))  # one message instead of four
    summed = packed.split([part.numel() for part in parts])
    return TokenStatistics(*(new.view_as(part) for new, part in zip(summed, parts, strict=True)))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32: its 8 to 11 bits lose the small differences that variances and cosines are made of.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context without autocast, which would compute the matrix products in half precision again."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def check_prefixes(dims: Sequence[int], width: int, *, allow_full: bool) -> None:
    """Refuse prefix lengths that the width does not have; ``allow_full`` tells whether the whole width is one.

    Raises:
        ValueError: If there is none, or one is out of range.
    """
    upper = width if allow_full else width - 1
    if len(dims) == 0:
        raise ValueError(
            f"dims is empty: give a prefix length from 1 to {upper} (reg_dims, or shorter matryoshka_dims)"
        )
    if wrong := [dim for dim in dims if not 1 <= dim <= upper]:
        reason = "" if allow_full else ", since a prefix of the full width leaves no residual"
        raise ValueError(f"dims {wrong} are out of range: the width is {width}, allowed are 1 to {upper}{reason}.")


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


def prefix_gram(z: Tensor, dims: Sequence[int]) -> Tensor:
    """``z[:, :d] @ z[:, :d].T`` for each d, as running sums over the slices between the dims. Shape: (len(dims), B, B).

    Example:
        >>> prefix_gram(torch.tensor([[1.0, 2.0]]), [2, 1]).flatten()
        tensor([5., 1.])
    """
    bounds = sorted(set(dims))
    slices = torch.stack([z[:, a:b] @ z[:, a:b].T for a, b in zip([0, *bounds[:-1]], bounds, strict=True)])
    return slices.cumsum(dim=0)[[bounds.index(dim) for dim in dims]]


def prefix_cosine(z: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Cosine similarity matrix of each prefix. Shape: (len(dims), B, B).

    Example:
        >>> prefix_cosine(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [1, 2], 0.0)[:, 0, 1]
        tensor([1.0000, 0.7071])
    """
    gram = prefix_gram(z, dims)
    inverse_norm = (gram.diagonal(dim1=1, dim2=2) + eps).rsqrt()
    return gram * inverse_norm.unsqueeze(1) * inverse_norm.unsqueeze(2)


def similarity_divergence(
    teacher: Tensor, student: Tensor, teacher_temperature: float = 0.05, student_temperature: float = 0.05
) -> Tensor:
    """Divergence of similarity distributions over the other members of a batch.

    Args:
        teacher: Similarities of the teacher; row i is the distribution of member i. Shape: (B, B).
        student: Similarities of K students, also of unlike sides, such as floats with codes. Shape: (K, B, B).
        teacher_temperature: T_t.
        student_temperature: T_s.

    Returns:
        The divergence in nats of each student, a mean over rows. Shape: (K,).

    Example:
        Of the two others, the teacher finds both alike and the student one e times as likely: log((1 + e) / 2) - 1/2:

        >>> student = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> similarity_divergence(torch.zeros(3, 3), student[None], 1.0, 1.0)
        tensor([0.1201])
    """
    # Softmax over the others only: a sentence is always most similar to itself, which would teach nothing.
    diagonal = torch.eye(teacher.size(0), dtype=torch.bool, device=teacher.device)
    target = (teacher / teacher_temperature).masked_fill(diagonal, -torch.inf).log_softmax(dim=-1)
    log_ratio = target - (student / student_temperature).masked_fill(diagonal, -torch.inf).log_softmax(dim=-1)
    # The diagonal is -inf minus -inf, NaN, in value and gradient, unless it is replaced before the product.
    return (target.exp() * log_ratio.masked_fill(diagonal, 0.0)).sum(dim=-1).mean(dim=-1)
