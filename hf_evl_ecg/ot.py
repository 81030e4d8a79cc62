"""Optimal-transport matching of the visual tokens of two models (EVL-ECG, arXiv 2605.29977)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.arguments import check_between
from hf_evl_ecg.padded import mean_over_samples, normalise_weights, promote, zero_padding
from hf_evl_ecg.sinkhorn import marginal_error, sinkhorn

__all__ = ["marginal_error", "ot_matching_loss", "sinkhorn"]


def ot_matching_loss(
    teacher: Tensor,
    student: Tensor,
    teacher_mask: Tensor,
    student_mask: Tensor,
    *,
    epsilon: float = 0.05,
    max_iter: int = 50,
    tol: float = 0.0,
    position_weight: float = 0.0,
    teacher_positions: Tensor | None = None,
    student_positions: Tensor | None = None,
    backend: str = "torch",
    teacher_masses: Tensor | None = None,
    student_masses: Tensor | None = None,
) -> Tensor:
    """Optimal-transport visual feature matching, ``sum_ij P*_ij ||t_i - s_j||^2`` (EVL-ECG, arXiv 2605.29977).

    Both token sets get unit norm and, as in the paper, uniform masses, unless masses are given: density of content, so that
    background takes no part (as in HEED, https://arxiv.org/abs/2605.17093). The plan is found without gradient on the cost
    divided by its mean over pairs (by their masses), so ``epsilon`` does not depend on the scale of the features. With the plan held, the gradient is the
    envelope gradient ``2 (b_j s_j - sum_i P_ij t_i)`` on the normalised student tokens; the teacher is a constant.

    Args:
        teacher: Teacher tokens. Shape: (B, N, D).
        student: Student tokens in the teacher's space. Shape: (B, M, D).
        teacher_mask: Non-zero at valid tokens. Shape: (B, N).
        student_mask: Non-zero at valid tokens. Shape: (B, M).
        epsilon: Entropic regularisation on the mean-normalised cost; large values pull every token to the teacher's mean.
        max_iter: Sinkhorn iterations.
        tol: See [`sinkhorn`].
        position_weight: Weight in [0, 1] of the squared distance between patch centres (also divided by its mean) in the
            cost that decides the plan. It keeps leads that look alike apart; the loss itself stays on features.
        teacher_positions: Patch centres (x, y) in [0, 1], needed for a positive ``position_weight``. Shape: (B, N, 2).
        student_positions: The same for the student. Shape: (B, M, 2).
        backend: See [`sinkhorn`].
        teacher_masses: Mass of each teacher token, not negative, of any scale: each sample's are divided by their sum.
            Zero is padding. None: uniform. Constants, as is the plan. Shape: (B, N).
        student_masses: The same for the student. Shape: (B, M).

    Returns:
        Mean over the samples that have tokens of positive mass on both sides (zero, connected to the graph, when none has). Scalar,
        float32 (float64 for float64 input).

    Raises:
        ValueError: For shapes that do not fit, negative masses, or a ``position_weight`` out of range or without positions.

    Example:
        >>> tokens, mask = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)
        >>> ot_matching_loss(tokens, tokens.flip(1), mask, mask).round(decimals=4)
        tensor(0.)
    """
    _check_tokens(teacher, student, teacher_mask, student_mask)
    teacher_mask, student_mask = teacher_mask.to(torch.bool), student_mask.to(torch.bool)
    check_between("position_weight", position_weight, 0, 1)
    if position_weight > 0 and (teacher_positions is None or student_positions is None):
        raise ValueError(
            f"position_weight={position_weight} needs teacher_positions and student_positions; give both or set it to 0."
        )
    with torch.autocast(student.device.type, enabled=False):  # exp(-C / epsilon) overflows in half precision
        s = _unit_tokens(promote(student), student_mask)
        dtype = s.dtype
        t = _unit_tokens(teacher.detach().to(dtype), teacher_mask)
        a, b = _masses(teacher_masses, teacher_mask, dtype), _masses(student_masses, student_mask, dtype)
        usable = a.any(1) & b.any(1)  # a side without tokens leaves the other nowhere to go
        a, b = a * usable[:, None], b * usable[:, None]
        with torch.no_grad():  # envelope theorem: at the optimal plan its own derivative does not count
            # |t - s|^2 = 2 - 2 ts for unit tokens; rounding can take equal ones below zero
            cost = _normalise_cost(torch.bmm(t, s.mT).mul_(-2).add_(2).clamp_(min=0), a, b)
            if teacher_positions is not None and student_positions is not None and position_weight > 0:
                positions = (teacher_positions.to(dtype), student_positions.to(dtype))
                cost.mul_(1 - position_weight)
                cost.add_(_normalise_cost(_squared_distances(*positions), a, b), alpha=position_weight)
            plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=max_iter, tol=tol, backend=backend)
            del cost  # as large as the plan, and not needed beside it
            rows, columns = plan.sum(2), plan.sum(1)
            carried = torch.bmm(plan.mT, t)  # sum_i P_ij t_i
            constant = (rows * t.square().sum(2)).sum(1)
        # sum_ij P_ij |t_i - s_j|^2 multiplied out, so that no (N, M) tensor takes part in the backward pass
        per_sample = constant + (columns * s.square().sum(2)).sum(1) - 2 * (carried * s).sum((1, 2))
        return mean_over_samples(per_sample, usable.int())


def _unit_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """Unit-norm tokens, zero with zero gradient at padding."""
    return F.normalize(zero_padding(tokens, mask), dim=2, eps=1e-6)


def _masses(masses: Tensor | None, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Masses that sum to 1 in each sample that has any."""
    weights = mask.to(dtype) if masses is None else normalise_weights(masses.to(mask.device, dtype), mask)
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _normalise_cost(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Divide each cost matrix, in place, by its mean over valid pairs."""
    mean = torch.bmm(torch.bmm(a.unsqueeze(1), cost), b.unsqueeze(2))
    return cost.div_(mean.clamp_(min=torch.finfo(cost.dtype).tiny))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # by subtraction: the matrix product cancels to noise between near neighbours
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _check_tokens(teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor) -> None:
    if teacher.dim() != 3 or student.dim() != 3 or teacher.shape[::2] != student.shape[::2]:
        raise ValueError(
            f"teacher (B, N, D) and student (B, M, D) must agree in B and D; given {tuple(teacher.shape)} and "
            f"{tuple(student.shape)}. Project the student into the teacher's space first."
        )
    for name, mask, tokens in (("teacher", teacher_mask, teacher), ("student", student_mask, student)):
        if mask.shape != tokens.shape[:2]:
            raise ValueError(f"{name}_mask must have the shape {tuple(tokens.shape[:2])}; given {tuple(mask.shape)}.")
