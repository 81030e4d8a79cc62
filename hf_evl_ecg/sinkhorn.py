"""Sinkhorn's algorithm: entropic optimal transport between two sets of masses, for a batch of padded problems.

The solver is Sinkhorn (Cuturi 2013, https://arxiv.org/abs/1306.0895, Alg. 1) in stabilised scaling form: the kernel
``exp((f + g - C) / epsilon)`` is computed once, iterations are matrix-vector products, and whenever a scaling grows too large
for the number format it is absorbed into the potentials ``f, g`` and the kernel is rebuilt (Schmitzer 2019,
https://arxiv.org/abs/1610.06519, Alg. 2). The iterates are those of log-domain Sinkhorn at a small part of its cost. Beside the
cost matrix one more is held: the kernel, which becomes the plan in place.
"""

import math

import torch
from torch import Tensor

from hf_evl_ecg.arguments import check_choice

__all__ = ["BACKENDS", "marginal_error", "sinkhorn"]

BACKENDS = ("torch", "pot")
_CPU_CHUNK_ELEMENTS = 2**16  # small problems share a chunk; larger ones are solved one by one, each staying in cache
_MASS_TOLERANCE = 1e-3  # relative: rounding of float16 masses passes, a forgotten normalisation does not


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
    check_choice("backend", backend, BACKENDS)
    with torch.no_grad(), torch.autocast(cost.device.type, enabled=False):  # bmm would run in half precision
        dtype = torch.promote_types(cost.dtype, torch.float32)  # of the plan; the cost itself is not copied
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
    limit = torch.finfo(plan.dtype).max ** 0.25  # the product of two scalings stays far from overflow
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
        if not (bool(low.min() > 1 / limit) and bool(high.max() < limit)):  # "not": NaN in one sample hides no other
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
    f = kernel.amin(2).masked_fill_(empty_rows, 0)  # a padded row is inf throughout; inf - inf would be NaN
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
    cost = cost.masked_fill(padding, 0)  # POT computes with padding, where a cost may be NaN
    result = solve_batch(cost, epsilon, a, b, max_iter=max_iter, tol=tol, method="log_sinkhorn", grad="detach")
    return result.plan.masked_fill(padding, 0)


def _default_chunk(cost: Tensor) -> int:
    if cost.device.type != "cpu":
        return max(1, cost.shape[0])  # an accelerator waits for kernels to start, not for memory
    return max(1, _CPU_CHUNK_ELEMENTS // max(1, cost.shape[1] * cost.shape[2]))


def _check_problem(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iter: int, tol: float, chunk_size: int | None
) -> None:
    if cost.dim() != 3 or a.shape != cost.shape[:2] or b.shape != (cost.shape[0], cost.shape[2]):
        raise ValueError(
            "cost must be (B, N, M) with masses a (B, N) and b (B, M); "
            f"given {tuple(cost.shape)}, {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon={epsilon}: must be positive and finite (for exact transport use ot.emd of POT).")
    if max_iter < 1 or not tol >= 0 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(
            f"max_iter={max_iter} and chunk_size={chunk_size}: must be at least 1; tol={tol}: must be at least 0."
        )


def _check_masses(a: Tensor, b: Tensor) -> None:
    if (a < 0).any() or (b < 0).any():
        raise ValueError("a and b: masses must not be negative (0 marks padding).")
    rows, columns = a.sum(1), b.sum(1)
    unequal = (rows - columns).abs() > _MASS_TOLERANCE * torch.maximum(rows, columns)
    if unequal.any():
        i = int(unequal.nonzero()[0])
        raise ValueError(
            f"Masses of sample {i} differ: a sums to {rows[i]:.6g}, b to {columns[i]:.6g}. "
            "Rescale one of them, or set both to zero for a sample without tokens."
        )
