"""Move the tokens that matter to the front, take some, average runs of them: (B, T, D) → (B, N, D) and a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gather_tokens", "kept_positions", "pool_tokens", "take_tokens"]


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
    gathered = states.gather(1, index.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
    return gathered.masked_fill(~mask.unsqueeze(-1), 0), mask


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


def kept_positions(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the kept tokens, front-aligned, 0 on padding, and their mask. Shapes: (B, N), (B, N)."""
    counts = keep.sum(1)
    length = int(counts.max())
    index = keep.int().argsort(dim=1, descending=True, stable=True)[:, :length]
    mask = torch.arange(length, device=keep.device) < counts.unsqueeze(1)
    return index.masked_fill(~mask, 0), mask


def take_tokens(states: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """States at the given positions, zero where masked. Shape: (B, A, D)."""
    taken = states.gather(1, index.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
    return taken.masked_fill(~mask.unsqueeze(-1), 0)
