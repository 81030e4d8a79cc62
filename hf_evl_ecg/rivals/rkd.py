"""Relational knowledge distillation (RKD, arXiv 1904.05068): distances and triplet angles between the samples of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.padded import promote
from hf_evl_ecg.relations import distance_relations

__all__ = ["MAX_SAMPLES", "rkd_angle_loss", "rkd_distance_loss"]

MAX_SAMPLES = 64
"""Samples of a batch that take part in triplets: 64 make 262,144 of them, and the tensor of differences 4,096 vectors."""


def rkd_distance_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """RKD-D: Huber loss between pairwise distances, each side's divided by their mean (arXiv 1904.05068, Eq. 4 to 6).

    Args:
        teacher: One vector per sample of the batch. Shape: (B, D_t).
        student: The same samples. Shape: (B, D_s).

    Returns:
        Mean over the B² ordered pairs, as in the authors' code. Scalar, float32; zero for fewer than two samples.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_distance_loss(points, 5 * points).round(decimals=6)
        tensor(0.)
    """
    with torch.autocast(student.device.type, enabled=False):
        everyone = torch.ones(1, len(student), dtype=torch.bool, device=student.device)
        target = distance_relations(promote(teacher.detach()).unsqueeze(0), everyone)
        return _huber(distance_relations(promote(student).unsqueeze(0), everyone), target)


def rkd_angle_loss(teacher: Tensor, student: Tensor, *, max_samples: int = MAX_SAMPLES) -> Tensor:
    """RKD-A: Huber loss between the cosines of the angles that each triplet of samples makes (arXiv 1904.05068, Eq. 7 to 9).

    Args:
        teacher: One vector per sample of the batch. Shape: (B, D_t).
        student: The same samples. Shape: (B, D_s).
        max_samples: Only so many samples, the first of the batch, take part: memory grows with their third power.

    Returns:
        Mean over the ordered triplets, as in the authors' code. Scalar, float32; zero for fewer than three samples.

    Example:
        >>> corner, line = torch.tensor([[0.0, 0], [1, 0], [0, 1]]), torch.tensor([[0.0, 0], [1, 0], [2, 0]])
        >>> rkd_angle_loss(corner, corner), rkd_angle_loss(corner, line) > 0
        (tensor(0.), tensor(True))
    """
    with torch.autocast(student.device.type, enabled=False):
        teacher, student = promote(teacher.detach()[:max_samples]), promote(student[:max_samples])
        return _huber(_angles(student), _angles(teacher))


def _huber(found: Tensor, target: Tensor) -> Tensor:
    """Mean of the Huber loss; zero, with its graph, where there is nothing: a batch without any answer."""
    return F.smooth_l1_loss(found, target, reduction="sum") / max(found.numel(), 1)


def _angles(points: Tensor) -> Tensor:
    """Cosine of the angle at each point between two others, zero where one of them is the point itself. (B, D) → (B, B, B)."""
    sides = points.unsqueeze(0) - points.unsqueeze(1)
    squares = sides.square().sum(2, keepdim=True)
    # Points that coincide but for rounding have no direction, and a division by their distance would have a gradient without bound.
    least = 16 * torch.finfo(points.dtype).eps * points.detach().norm(dim=1).amax() if len(points) else 0
    apart = squares.detach() > least**2
    sides = torch.where(apart, sides, 0) / torch.where(apart, squares, 1).sqrt()
    return torch.bmm(sides, sides.mT)
