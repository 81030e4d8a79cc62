"""Entropic optimal transport between two padded token sets, and the visual matching loss built on it.

The solver is Sinkhorn in stabilised scaling form: the kernel ``exp((f + g - C) / epsilon)`` is computed once, iterations
are matrix-vector products, and whenever a scaling grows too large for the number format it is absorbed into the
potentials ``f, g`` and the kernel is rebuilt (Schmitzer 2019, https://arxiv.org/abs/1610.06519, Alg. 2). The iterates are
those of log-domain Sinkhorn at a small part of its cost. Beside the cost matrix one more is held: the kernel, which
becomes the plan in place.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["marginal_error", "ot_matching_loss", "sinkhorn"]

BACKENDS = ("torch", "pot")
_CPU_CHUNK_ELEMENTS = 2**16  # small problems share a chunk; larger ones are solved one by one, each staying in cache
_MASS_TOLERANCE = 1e-3


def sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    epsilon: float = 0.05,
    max_iter: int = 50,
    tol: float = 0.0,
    backend: str = "torch",
    chunk_size: int | None = None,
) -> Tensor:
    """Solve a batch of entropic transport problems, ``argmin_P <P, C> - epsilon H(P)`` with marginals ``a`` and ``b``.

    Every sample is solved on its own: a sample that has converged is frozen, and NaN in one sample gives NaN in its plan
    only. The last half-step normalises columns, so ``b`` is met to rounding and the error shows in the rows
    (see [`marginal_error`]). The plan carries no gradient.

    Args:
        cost: Cost of each pair. Shape: (B, N, M). Values at padding are ignored, also NaN; ``inf`` forbids a pair.
        a: Row masses, non-negative. Zero marks padding. Shape: (B, N).
        b: Column masses with the same total per sample as ``a``. Zero marks padding. Shape: (B, M).
        epsilon: Entropic regularisation, in units of the cost.
        max_iter: Upper limit of iterations (one row and one column update each).
        tol: A sample stops once the summed absolute error of its row marginal is at most ``tol``; 0 runs all iterations.
        backend: ``"torch"``, or ``"pot"`` for `ot.batch.solve_batch` of the POT package.
        chunk_size: Samples solved together. Default: all on an accelerator; on CPU few, so that a kernel stays in cache.

    Returns:
        The plan, float32 (float64 for a float64 cost), zero at padding. Shape: (B, N, M).

    Raises:
        ValueError: For wrong shapes, options out of range, negative masses or unequal totals.
        ImportError: For ``backend="pot"`` without POT installed.

    Example:
        >>> cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> half = torch.full((1, 2), 0.5)
        >>> sinkhorn(cost, half, half, epsilon=0.05).round(decimals=3)
        tensor([[[0.5000, 0.0000],
                 [0.0000, 0.5000]]])
    """
    _check_problem(cost, a, b, epsilon, max_iter, tol, chunk_size)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed are {', '.join(BACKENDS)}.")
    with torch.no_grad(), torch.autocast(cost.device.type, enabled=False):
        dtype = torch.promote_types(cost.dtype, torch.float32)
        a, b = a.to(cost.device, dtype), b.to(cost.device, dtype)
        _check_masses(a, b)
        if backend == "pot":
            return _solve_with_pot(cost.to(dtype), a, b, epsilon, max_iter, tol)
        plan = torch.empty(cost.shape, dtype=dtype, device=cost.device)
        size = chunk_size or _default_chunk(cost)
        for start in range(0, cost.shape[0], size):
            part = slice(start, start + size)
            _solve_chunk(cost[part], a[part], b[part], plan[part], epsilon, max_iter, tol)
        return plan


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Summed absolute error of both marginals of each plan, ``|P 1 - a|_1 + |P^T 1 - b|_1``.

    Args:
        plan: Transport plans. Shape: (B, N, M).
        a: Row masses. Shape: (B, N).
        b: Column masses. Shape: (B, M).

    Returns:
        Error per sample; the largest possible value is twice the total mass of ``a`` and ``b``. Shape: (B,).

    Example:
        >>> marginal_error(torch.tensor([[[0.5, 0.0], [0.0, 0.4]]]), torch.full((1, 2), 0.5), torch.full((1, 2), 0.5))
        tensor([0.2000])
    """
    return (plan.sum(2) - a).abs().sum(1) + (plan.sum(1) - b).abs().sum(1)


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
) -> Tensor:
    """Optimal-transport visual feature matching, ``sum_ij P*_ij ||t_i - s_j||^2`` (EVL-ECG, arXiv 2605.29977).

    Both token sets get uniform masses and unit norm. The plan is found without gradient on the cost divided by its mean
    over valid pairs, so ``epsilon`` does not depend on the scale of the features. With the plan held, the gradient is the
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

    Returns:
        Mean over the samples that have valid tokens on both sides (zero, connected to the graph, when none has). Scalar,
        float32 (float64 for float64 input).

    Raises:
        ValueError: For shapes that do not fit, or a ``position_weight`` out of range or without positions.

    Example:
        >>> tokens, mask = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)
        >>> ot_matching_loss(tokens, tokens.flip(1), mask, mask).round(decimals=4)
        tensor(0.)
    """
    _check_tokens(teacher, student, teacher_mask, student_mask)
    teacher_mask, student_mask = teacher_mask.to(torch.bool), student_mask.to(torch.bool)
    if not 0.0 <= position_weight <= 1.0:
        raise ValueError(f"position_weight is {position_weight}; it must lie in [0, 1].")
    if position_weight > 0 and (teacher_positions is None or student_positions is None):
        raise ValueError("position_weight > 0 needs teacher_positions and student_positions, or set it to 0.")
    with torch.autocast(student.device.type, enabled=False):
        dtype = torch.promote_types(student.dtype, torch.float32)
        t = _unit_tokens(teacher.detach().to(dtype), teacher_mask)
        s = _unit_tokens(student.to(dtype), student_mask)
        usable = teacher_mask.any(1) & student_mask.any(1)
        a = _uniform_masses(teacher_mask & usable[:, None], dtype)
        b = _uniform_masses(student_mask & usable[:, None], dtype)
        with torch.no_grad():
            cost = _normalise_cost(torch.bmm(t, s.mT).mul_(-2).add_(2).clamp_(min=0), a, b)
            if teacher_positions is not None and student_positions is not None and position_weight > 0:
                positions = (teacher_positions.to(dtype), student_positions.to(dtype))
                cost.mul_(1 - position_weight)
                cost.add_(_normalise_cost(_squared_distances(*positions), a, b), alpha=position_weight)
            plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=max_iter, tol=tol, backend=backend)
            del cost
            rows, columns = plan.sum(2), plan.sum(1)
            carried = torch.bmm(plan.mT, t)  # sum_i P_ij t_i
            constant = (rows * t.square().sum(2)).sum(1)
        per_sample = constant + (columns * s.square().sum(2)).sum(1) - 2 * (carried * s).sum((1, 2))
        return per_sample.sum() / usable.sum().clamp(min=1)


def _solve_chunk(cost: Tensor, a: Tensor, b: Tensor, plan: Tensor, epsilon: float, max_iter: int, tol: float) -> None:
    """Write the plans of a few samples into ``plan``, which holds their kernels meanwhile.

    The plan is ``diag(p) K diag(q)`` with ``p = a / rows`` and ``q = b / columns``, so ``rows`` and ``columns`` are the
    inverse scalings. They stay 1 at padding, where the mass is 0.
    """
    empty_rows, empty_columns = a == 0, b == 0
    f, g = _start_kernel(plan, cost, empty_rows, empty_columns, epsilon)
    row_floor, column_floor = empty_rows.to(plan.dtype), empty_columns.to(plan.dtype)
    rows, columns = torch.ones_like(a), torch.ones_like(b)
    p, q = a, b
    limit = torch.finfo(plan.dtype).max ** 0.25
    active = torch.ones(len(a), 1, dtype=torch.bool, device=a.device)
    for step in range(max_iter):
        sums = torch.bmm(plan, q.unsqueeze(2)).squeeze(2).add_(row_floor)
        if tol > 0 and step > 0:
            active &= (p * sums).sub_(a).abs_().sum(1, keepdim=True) > tol  # false for NaN: a broken sample freezes too
            if not active.any():
                break
        rows = torch.where(active, sums, rows) if tol > 0 else sums
        p = a / rows
        sums = torch.bmm(p.unsqueeze(1), plan).squeeze(1).add_(column_floor)
        columns = torch.where(active, sums, columns) if tol > 0 else sums
        q = b / columns
        low, high = torch.aminmax(torch.cat([rows, columns], dim=1), dim=1)
        if not (bool(low.min() > 1 / limit) and bool(high.max() < limit)):
            for i in ((low <= 1 / limit) | (high >= limit)).nonzero().flatten().tolist():
                f[i] -= epsilon * rows[i].log()
                g[i] -= epsilon * columns[i].log()
                rows[i], columns[i], p[i], q[i] = 1, 1, a[i], b[i]
                _rebuild_kernel(plan[i], cost[i], f[i], g[i], empty_rows[i], empty_columns[i], epsilon)
    plan.mul_(p.unsqueeze(2)).mul_(q.unsqueeze(1))


def _start_kernel(
    kernel: Tensor, cost: Tensor, empty_rows: Tensor, empty_columns: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Fill the kernel at the potentials ``f_i = min_j C_ij``, ``g_j = min_i C_ij - f_i``: each row and column peaks at 1."""
    kernel.copy_(cost)
    kernel.masked_fill_(empty_rows.unsqueeze(2), torch.inf).masked_fill_(empty_columns.unsqueeze(1), torch.inf)
    f = kernel.amin(2).masked_fill_(empty_rows, 0)
    kernel.sub_(f.unsqueeze(2))
    g = kernel.amin(1).masked_fill_(empty_columns, 0)
    kernel.sub_(g.unsqueeze(1)).div_(-epsilon).exp_()
    return f, g


def _rebuild_kernel(
    kernel: Tensor, cost: Tensor, f: Tensor, g: Tensor, empty_rows: Tensor, empty_columns: Tensor, epsilon: float
) -> None:
    """Recompute one sample's kernel ``exp((f + g - C) / epsilon)`` in place; zero at padding."""
    torch.sub(f.unsqueeze(1), cost.to(kernel.dtype), out=kernel)
    kernel.add_(g).div_(epsilon).exp_()
    kernel.masked_fill_(empty_rows.unsqueeze(1), 0).masked_fill_(empty_columns, 0)


def _solve_with_pot(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iter: int, tol: float) -> Tensor:
    """The same problem through POT's log-domain batched solver, which tests convergence for the batch as a whole."""
    try:
        from ot.batch import solve_batch
    except ImportError as error:
        raise ImportError('backend="pot" needs the POT package: pip install "POT>=0.9.7".') from error
    padding = (a == 0).unsqueeze(2) | (b == 0).unsqueeze(1)
    cost = cost.masked_fill(padding, 0)
    result = solve_batch(cost, epsilon, a, b, max_iter=max_iter, tol=tol, method="log_sinkhorn", grad="detach")
    return result.plan.masked_fill(padding, 0)


def _default_chunk(cost: Tensor) -> int:
    if cost.device.type != "cpu":
        return max(1, cost.shape[0])
    return max(1, _CPU_CHUNK_ELEMENTS // max(1, cost.shape[1] * cost.shape[2]))


def _unit_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """Unit-norm tokens, zero with zero gradient at padding."""
    return F.normalize(tokens.masked_fill(~mask.unsqueeze(2), 0), dim=2, eps=1e-6)


def _uniform_masses(mask: Tensor, dtype: torch.dtype) -> Tensor:
    weights = mask.to(dtype)
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _normalise_cost(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Divide each cost matrix, in place, by its mean over valid pairs."""
    mean = torch.bmm(torch.bmm(a.unsqueeze(1), cost), b.unsqueeze(2))
    return cost.div_(mean.clamp_(min=torch.finfo(cost.dtype).tiny))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _check_problem(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iter: int, tol: float, chunk_size: int | None
) -> None:
    if cost.dim() != 3 or a.shape != cost.shape[:2] or b.shape != (cost.shape[0], cost.shape[2]):
        raise ValueError(
            "cost must be (B, N, M) with masses a (B, N) and b (B, M); "
            f"given {tuple(cost.shape)}, {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(
            f"epsilon is {epsilon}; it must be positive and finite. For exact transport use ot.emd of POT."
        )
    if max_iter < 1 or not tol >= 0 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(
            f"max_iter {max_iter} and chunk_size {chunk_size} must be at least 1, and tol {tol} at least 0."
        )


def _check_masses(a: Tensor, b: Tensor) -> None:
    if (a < 0).any() or (b < 0).any():
        raise ValueError("Masses a and b must not be negative.")
    rows, columns = a.sum(1), b.sum(1)
    unequal = (rows - columns).abs() > _MASS_TOLERANCE * torch.maximum(rows, columns)
    if unequal.any():
        i = int(unequal.nonzero()[0])
        raise ValueError(
            f"Masses of sample {i} differ: a sums to {rows[i]:.6g}, b to {columns[i]:.6g}. "
            "Rescale one of them, or set both to zero for a sample without tokens."
        )


def _check_tokens(teacher: Tensor, student: Tensor, teacher_mask: Tensor, student_mask: Tensor) -> None:
    if (
        teacher.dim() != 3
        or student.dim() != 3
        or (teacher.shape[0], teacher.shape[2])
        != (
            student.shape[0],
            student.shape[2],
        )
    ):
        raise ValueError(
            f"teacher (B, N, D) and student (B, M, D) must agree in B and D; given {tuple(teacher.shape)} and "
            f"{tuple(student.shape)}. Project the student into the teacher's space first."
        )
    for name, mask, tokens in (("teacher", teacher_mask, teacher), ("student", student_mask, student)):
        if mask.shape != tokens.shape[:2]:
            raise ValueError(f"{name}_mask must have the shape {tuple(tokens.shape[:2])}; given {tuple(mask.shape)}.")
