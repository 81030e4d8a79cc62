"""Linear centred kernel alignment (CKA, arXiv 1905.00414) as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_evl_ecg.padded import promote

__all__ = ["cka_loss"]


def cka_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """``1 - CKA``, with ``CKA = |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)`` of centred states (arXiv 1905.00414, linear kernel).

    Invariant to rotation and to one common scale of either side, so it needs no projector.

    Args:
        teacher: States that correspond row by row: one for each group of answer tokens that both models have, over the whole
            batch. Shape: (P, D_t).
        student: Shape: (P, D_s).

    Returns:
        In [0, 1]. Scalar, float32 (float64 for float64 input); zero where there are fewer than two rows or a side does not
        vary.

    Example:
        >>> states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        >>> cka_loss(states, -3 * states).abs().round(decimals=5)
        tensor(0.)
    """
    with torch.autocast(student.device.type, enabled=False):
        x, y = (promote(side) - promote(side).mean(0, keepdim=True) for side in (student, teacher.detach()))
        # Gram matrices: rows are answer tokens of a batch, far fewer than channels of a large model.
        k, m = x @ x.T, y @ y.T
        scale = k.norm() * m.norm()
        similarity = (k * m).sum() / scale.clamp(min=torch.finfo(scale.dtype).tiny)
        return torch.where(scale > 0, 1 - similarity, 0)
