"""Mean-pooled hidden states of a sample: the simplest feature distillation, and what RKD compares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.padded import mean_over_samples, promote, zero_padding

__all__ = ["pool_states", "pooled_mse_loss"]


def pool_states(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of each sample's states over its tokens, in at least float32; zero for a sample without any.

    Args:
        states: Shape: (B, L, D).
        mask: True at tokens. Shape: (B, L), bool.

    Returns:
        Shape: (B, D).

    Example:
        >>> pool_states(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    return zero_padding(promote(states), mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def pooled_mse_loss(teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor) -> Tensor:
    """Squared error between mean-pooled states (FitNets, arXiv 1412.6550, on means, as the lengths differ).

    The teacher's mean is normalised without parameters first: the last states of large language models have a few channels of
    huge magnitude, which would be all that is learnt.

    Args:
        teacher: Shape: (B, L_t, D).
        student: Projected to the teacher's width. Shape: (B, L_s, D).
        teacher_mask: True at tokens. Shape: (B, L_t), bool.
        student_mask: True at tokens. Shape: (B, L_s), bool.

    Returns:
        Mean over channels, then over samples that have tokens on both sides. Scalar, float32 (float64 for float64 input).

    Example:
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> teacher = torch.tensor([[[0.0, 2.0], [0.0, 4.0]]])  # mean (0, 3), normalised (-1, 1)
        >>> pooled_mse_loss(teacher, torch.zeros(1, 2, 2), mask, mask).round(decimals=4)
        tensor(1.)
    """
    with torch.autocast(student.device.type, enabled=False):
        target = pool_states(teacher.detach(), teacher_mask)
        target = F.layer_norm(target, target.shape[-1:])
        usable = teacher_mask.any(1) & student_mask.any(1)
        per_sample = (pool_states(student, student_mask) - target).square().mean(1)
        return mean_over_samples(per_sample * usable, usable.int())
