"""Optimisation over rotations: Adam in the Lie algebra, with a low-rank Cayley step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hf_mic.options import check_between

__all__ = ["CayleyAdam", "cayley_step", "nearest_orthogonal"]


def cayley_step(weight: Tensor, update: Tensor, step_size: float) -> Tensor:
    r"""Rotate an orthogonal matrix along a skew-symmetric direction.

    .. math:: W \leftarrow W \,(I + \tfrac{\eta}{2} U)^{-1} (I - \tfrac{\eta}{2} U), \quad
        U = \begin{pmatrix} A & -B^\top \\ B & 0 \end{pmatrix}

    U turns the first k columns among themselves (A, skew) and against the others (B). It has rank 2k, so by the
    Sherman-Morrison-Woodbury formula a step costs O(k D^2) instead of O(D^3) (Wen & Yin, "A feasible method for
    optimization with orthogonality constraints", 2013).

    Args:
        weight: Orthogonal matrix W. Shape: (D, D).
        update: A stacked on B, 1 <= k <= D. Shape: (D, k).
        step_size: eta; W moves by about ``eta * U`` radians.

    Returns:
        The rotated matrix, orthogonal up to rounding. Shape: (D, D).

    Example:
        In the plane the Cayley transform of ``U = [[0, -2], [2, 0]]`` at step 1 is a turn by 90 degrees:

        >>> cayley_step(torch.eye(2), torch.tensor([[0.0], [2.0]]), 1.0)
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    k = update.size(1)
    identity = torch.eye(k, dtype=weight.dtype, device=weight.device)
    half_skew = update[:k] / 2
    right = torch.cat([half_skew, update[k:]])  # U = right @ E' - E @ right', with E the first k columns of I
    # The 2k x 2k system of Sherman, Morrison and Woodbury instead of a D x D inverse.
    inner = torch.cat([torch.cat([half_skew, -identity], dim=1), torch.cat([right.T @ right, half_skew], dim=1)]) * (
        step_size / 2
    )
    inner.diagonal().add_(1.0)
    selector = torch.zeros_like(update).fill_diagonal_(1.0)
    solved = torch.linalg.solve(inner, torch.cat([selector.T, right.T]))
    return weight - step_size * torch.cat([weight @ right, -weight[:, :k]], dim=1) @ solved


def nearest_orthogonal(weight: Tensor, iterations: int = 4) -> Tensor:
    """Remove rounding drift from an almost orthogonal matrix: Newton-Schulz iterations in float64 to its polar factor.

    Args:
        weight: Matrix whose singular values lie near 1. Shape: (D, D).
        iterations: Each about squares the deviation from orthogonality.

    Returns:
        The orthogonal polar factor in the dtype of ``weight``. Shape: (D, D).

    Example:
        >>> nearest_orthogonal(torch.tensor([[0.0, 1.001], [-0.999, 0.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    result = weight.double()
    for _ in range(iterations):
        result = 1.5 * result - 0.5 * result @ (result.T @ result)
    return result.to(weight.dtype)


class CayleyAdam(torch.optim.Optimizer):
    """Adam for square orthogonal matrices of which only the span and order of the first columns matter.

    The gradient G is pulled back to the Lie algebra of the rotations, ``S = W'G - G'W``, where moments of different steps
    can be added. The second moment is one number per matrix, as in Riemannian Adam (Bécigneul & Ganea,
    arXiv 1810.00760): an element-wise one would amplify directions in which the loss is flat. Entries of S that turn the
    columns after the first ``columns`` among themselves are not moved. The retraction is :func:`cayley_step`.

    Args:
        params: Orthogonal matrices. Shape of each: (D, D).
        lr: Root mean square, over the entries of the update, of the angle of a first step in radians.
        columns: Number k of leading columns that are optimised; default all.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.

    Raises:
        ValueError: If a parameter is not a square matrix or ``columns`` is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        columns: int | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-12,
    ):
        super().__init__(params, {"lr": lr, "columns": columns, "betas": betas, "eps": eps})
        for group in self.param_groups:
            for param in group["params"]:
                if param.dim() != 2 or param.size(0) != param.size(1):
                    raise ValueError(
                        f"CayleyAdam rotates square matrices, got a parameter of shape {tuple(param.shape)}."
                    )
                if columns is not None:
                    check_between("columns", columns, 1, param.size(1))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Rotate every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._rotate(param, param.grad, group)
        return loss

    def _rotate(self, param: Tensor, grad: Tensor, group: dict) -> None:
        k = group["columns"] or param.size(1)
        pulled = param.T @ grad
        skew = pulled[:, :k] - pulled[:k].T
        state = self.state[param]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(skew)
            state["exp_avg_sq"] = skew.new_zeros(())
        beta1, beta2 = group["betas"]
        state["step"] += 1
        state["exp_avg"].lerp_(skew, 1 - beta1)
        state["exp_avg_sq"].lerp_(skew.square().mean(), 1 - beta2)
        scale = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
        update = state["exp_avg"] / ((1 - beta1 ** state["step"]) * scale)
        param.copy_(cayley_step(param, update, group["lr"]))
