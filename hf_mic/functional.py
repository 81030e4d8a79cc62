"""The equations of MIC as pure functions of tensors.

Soft collapse regularisation (SCR), spectral isotropy regularisation (SIR) and full-to-prefix similarity distillation.
Every function evaluates all prefix lengths at once: the correlation matrix and the Gram matrices of the longest prefix
hold those of the shorter ones as blocks and partial sums, so the cost hardly depends on how many dimensions are asked for.

All arithmetic is done in float32 (float64 stays float64) with autocast off.

Source: "Maximizing Informational Capacity in Adaptive Representations via Isotropic Subspace Alignment",
https://arxiv.org/abs/2605.29987.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hf_mic.options import check_choice, check_number, check_number_or_auto
from hf_mic.statistics import (
    TokenStatistics,
    at_least_float32,
    check_prefixes,
    full_precision,
    masked_mean,
    prefix_cosine,
    prefix_gram,
    similarity_divergence,
    token_statistics,
)

__all__ = [
    "TokenStatistics",
    "masked_mean",
    "similarity_distillation_loss",
    "soft_collapse_from_statistics",
    "soft_collapse_loss",
    "spectral_isotropy_loss",
    "token_statistics",
]


def soft_collapse_from_statistics(
    statistics: TokenStatistics, dims: Sequence[int], *, tau: float | Literal["auto"] = 0.1, var_weight: float = 1.0
) -> Tensor:
    """L_SCR for each prefix length from the sums of :func:`token_statistics`.

    Args:
        statistics: The sums, of one batch or added up over several.
        dims: Prefix lengths d, each at least 1 and below D.
        tau: Correlations up to this size are not punished; ``"auto"`` is twice the sampling noise, ``2 / sqrt(num_tokens)``.
        var_weight: Weight of the variance floor in the sum.

    Returns:
        One value per prefix length. Shape: (len(dims),). Zero when no sequence had two valid tokens.

    Raises:
        ValueError: If a prefix length or ``tau`` is out of range.

    Example:
        >>> h = torch.tensor([[[2.0, 2.0], [-2.0, -2.0]]])  # prefix and residual are copies: (1 - tau)^2
        >>> soft_collapse_from_statistics(token_statistics(h, torch.ones(1, 2)), [1], tau=0.5)
        tensor([0.2500])
    """
    width = statistics.std_sum.numel()
    check_prefixes(dims, width, allow_full=False)
    check_number_or_auto("tau", tau)
    with full_precision(statistics.correlation_sum):
        num_sequences = statistics.num_sequences.clamp(min=1)
        # Correlations of N independent tokens scatter by about 1 / sqrt(N) around 0; "auto" tolerates two of these.
        threshold = 2.0 / statistics.num_tokens.clamp(min=1).sqrt() if tau == "auto" else tau
        # The hinge of L_corr in MIC (arXiv 2605.29987): a correlation below tau is taken for noise, not for repetition.
        excess = torch.relu((statistics.correlation_sum / num_sequences).abs() - threshold).square()
        std = statistics.std_sum / num_sequences

        prefix = _prefix_membership(dims, width, std)  # (len(dims), D), 1 inside the prefix
        prefix_size = prefix.sum(dim=1)
        residual_size = width - prefix_size
        # Row k of the product, outside of the prefix, adds up the block [:d_k, d_k:]: all prefixes in one product.
        corr = ((prefix @ excess) * (1 - prefix)).sum(dim=1) / (prefix_size * residual_size)
        prefix_std = (prefix @ std) / prefix_size
        residual_std = ((1 - prefix) @ std) / residual_size
        # L_var in MIC (arXiv 2605.29987): the residual's floor counts half.
        var = torch.relu(1 - prefix_std) + 0.5 * torch.relu(1 - residual_std)
        # Times 0, not a new zero: in a distributed run every parameter must get a gradient in each step.
        return (corr + var_weight * var) * (statistics.num_sequences > 0)


def soft_collapse_loss(
    hidden_states: Tensor,
    attention_mask: Tensor,
    dims: Sequence[int],
    *,
    tau: float | Literal["auto"] = 0.1,
    var_weight: float = 1.0,
    eps: float = 1e-5,
) -> Tensor:
    r"""Soft collapse regularisation: prefix and residual of a representation must not repeat each other.

    With x standardised per sequence and feature over the valid tokens,

    .. math::
        C &= \frac1B \sum_i \frac1{N_i} \sum_l x^{pre}_{il} {x^{res}_{il}}^\top, \quad
        L_{corr} = \frac1{d\,d_{res}} \sum_{uv} \max(0, |C_{uv}| - \tau)^2 \\
        L_{var} &= \max(0, 1 - \bar\sigma_{pre}) + \tfrac12 \max(0, 1 - \bar\sigma_{res}), \quad
        L_{SCR} = L_{corr} + \lambda_{var} L_{var}

    where the mean standard deviations come from the raw states (of standardised ones they are 1 by construction).

    Args:
        hidden_states: States H of one layer. Shape: (B, L, D).
        attention_mask: Non-zero where a token is valid. Shape: (B, L).
        dims: Prefix lengths d, each at least 1 and below D.
        tau: Correlations up to this size are not punished; ``"auto"`` is twice the sampling noise, ``2 / sqrt(sum N_i)``.
        var_weight: Weight of the variance floor, lambda_var.
        eps: Added to each variance under its square root.

    Returns:
        L_SCR of each prefix length. Shape: (len(dims),). Sequences of one valid token are left out; if none is left the
        result is a zero that is connected to the graph.

    Raises:
        ValueError: If shapes do not match, a prefix length is not in [1, D - 1], or ``tau`` is negative.

    Source: arXiv 2605.29987, soft collapse regularisation.

    Example:
        Two features that move together and a third of its own; the first repeats the second, so C = (1, 0):

        >>> h = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]]])
        >>> soft_collapse_loss(h, torch.ones(1, 4), [1], tau=0.0, var_weight=0.0)  # (1^2 + 0^2) / (1 * 2)
        tensor([0.5000])
    """
    statistics = token_statistics(hidden_states, attention_mask, dims=dims, eps=eps)
    return soft_collapse_from_statistics(statistics, dims, tau=tau, var_weight=var_weight)


def spectral_isotropy_loss(
    embeddings: Tensor,
    dims: Sequence[int],
    *,
    t: float = 2.0,
    eps: float = 1e-8,
    cv_mode: Literal["diagonal", "eigen"] = "diagonal",
) -> Tensor:
    r"""Spectral isotropy regularisation: short prefixes must fill their space evenly.

    .. math::
        L_{cv} = \frac{\sqrt{\frac1d \sum_j (v_j - \bar v)^2}}{\bar v + \epsilon}, \quad
        L_{unif} = \log \frac{\sum_{i \ne j} e^{-2t(1 - S_{ij})}}{B(B-1)}, \quad
        L_{SIR} = \tfrac12 (L_{cv} + L_{unif})

    with v_j the variance of coordinate j over the batch and S the cosine similarities of the prefixes. The variances see
    only the diagonal of the covariance matrix; ``cv_mode="eigen"`` replaces them by its eigenvalues, whose coefficient of
    variation is :math:`\sqrt{d \lVert\Sigma\rVert_F^2 / (\mathrm{tr}\,\Sigma)^2 - 1}`, without an eigendecomposition.

    Args:
        embeddings: Sequence embeddings Z. Shape: (B, D).
        dims: Prefix lengths d, each in [1, D].
        t: Sharpness of the uniformity term.
        eps: Guards the divisions and square roots.
        cv_mode: ``"diagonal"`` as in the paper, or ``"eigen"``.

    Returns:
        L_SIR of each prefix length. Shape: (len(dims),). For B = 1 a zero that is connected to the graph. The value can be
        negative: L_unif of evenly spread points is about -4 + 8/d at t = 2, L_SIR half of that.

    Raises:
        ValueError: If the shape, a prefix length, ``t`` or ``cv_mode`` is not allowed.

    Source: arXiv 2605.29987, spectral isotropy regularisation; uniformity after Wang & Isola, arXiv 2005.10242.

    Example:
        Four points on the corners of a square: both variances are 1, so L_cv = 0; of the three other corners two are at
        a right angle and one is opposite, L_unif = log((2 e^-4 + e^-8) / 3):

        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> spectral_isotropy_loss(z, [2])
        tensor([-2.1982])
    """
    _check_embeddings(embeddings)
    check_prefixes(dims, embeddings.size(1), allow_full=True)
    check_number("t", t, positive=True)
    check_choice("cv_mode", cv_mode, ("diagonal", "eigen"))
    with full_precision(embeddings):
        z = at_least_float32(embeddings)
        batch_size = z.size(0)
        if batch_size < 2:
            return z.sum() * 0.0 + z.new_zeros(len(dims))
        if cv_mode == "diagonal":
            cv = _diagonal_cv(z, dims, eps)
        else:
            cv = _eigenvalue_cv(z, dims, eps)
        similarity = prefix_cosine(z, dims, eps)
        diagonal = torch.eye(batch_size, dtype=torch.bool, device=z.device)
        # L_unif is over pairs i != j, and exp(-inf) = 0; the logarithm of the sum is taken without leaving the exponents.
        exponent = (-2.0 * t * (1.0 - similarity)).masked_fill(diagonal, -torch.inf)
        uniformity = torch.logsumexp(exponent.flatten(1), dim=1) - math.log(batch_size * (batch_size - 1))
        return 0.5 * (cv + uniformity)


def similarity_distillation_loss(
    embeddings: Tensor,
    dims: Sequence[int],
    *,
    teacher: Tensor | None = None,
    student_temperature: float = 0.05,
    teacher_temperature: float = 0.05,
    eps: float = 1e-8,
) -> Tensor:
    r"""Full-to-prefix self-distillation: each prefix should see the batch as the full embedding does.

    .. math:: L_d = \frac1B \sum_i \mathrm{KL}\big(\mathrm{softmax}_{j \ne i}(S^{D}_{ij} / T_t) \,\Vert\,
        \mathrm{softmax}_{j \ne i}(S^{d}_{ij} / T_s)\big)

    S is the matrix of cosine similarities within the batch; the teacher is detached. Distributions are over the other
    members of the batch, never over coordinates, so widths may differ.

    Args:
        embeddings: Embeddings whose prefixes are the students. Shape: (B, D).
        dims: Prefix lengths d, each in [1, D].
        teacher: Embeddings of the same sequences by the teacher. Shape: (B, D'). Default: ``embeddings`` at full width.
        student_temperature: T_s.
        teacher_temperature: T_t.
        eps: Added under the square root of each squared norm.

    Returns:
        The divergence in nats for each prefix length. Shape: (len(dims),). For B < 3 there is nothing to compare and the
        result is a zero that is connected to the graph.

    Raises:
        ValueError: If shapes do not match, a prefix length is out of range or a temperature is not positive.

    Example:
        A full-width prefix is its own teacher:

        >>> similarity_distillation_loss(torch.eye(4), [4])
        tensor([0.])
    """
    _check_embeddings(embeddings)
    check_prefixes(dims, embeddings.size(1), allow_full=True)
    check_number("student_temperature", student_temperature, positive=True)
    check_number("teacher_temperature", teacher_temperature, positive=True)
    teacher = embeddings if teacher is None else teacher
    _check_embeddings(teacher)
    if teacher.size(0) != embeddings.size(0):
        raise ValueError(
            f"teacher holds {teacher.size(0)} embeddings, the student {embeddings.size(0)}; they must match."
        )
    with full_precision(embeddings):
        z = at_least_float32(embeddings)
        if z.size(0) < 3:  # with a single other member each softmax is 1, whatever the embeddings are
            return z.sum() * 0.0 + z.new_zeros(len(dims))
        # Detached: the full width is the target, else it would move towards its own prefixes.
        reference = prefix_cosine(at_least_float32(teacher.detach()), [teacher.size(1)], eps)[0]
        return similarity_divergence(reference, prefix_cosine(z, dims, eps), teacher_temperature, student_temperature)


def _diagonal_cv(z: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Coefficient of variation of the coordinate variances of each prefix."""
    variances = z.var(dim=0, correction=0)
    values = []
    for dim in dims:
        mean = variances[:dim].mean()
        relative = variances[:dim] / (mean + eps)
        values.append((relative.var(correction=0) + eps**2).sqrt())  # the square root has no derivative at 0
    return torch.stack(values)


def _eigenvalue_cv(z: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Coefficient of variation of the eigenvalues of each prefix's covariance matrix, from Gram matrices."""
    # tr(C) and ||C||_F of the (d, d) covariance are those of the (B, B) Gram matrix: no eigenvalues, and B is small.
    gram = prefix_gram(z - z.mean(dim=0), dims) / z.size(0)
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    relative = gram / (trace + eps).view(-1, 1, 1)
    size = torch.tensor(dims, device=z.device, dtype=z.dtype)
    # Rounding may take an isotropic cloud below 0; eps^2 keeps the derivative of the square root finite there.
    return (torch.relu(size * relative.square().sum(dim=(1, 2)) - 1.0) + eps**2).sqrt()


def _prefix_membership(dims: Sequence[int], width: int, like: Tensor) -> Tensor:
    """Row k is 1 on the first dims[k] coordinates. Shape: (len(dims), width)."""
    bounds = torch.tensor(list(dims), device=like.device).unsqueeze(1)
    return (torch.arange(width, device=like.device) < bounds).to(like.dtype)


def _check_embeddings(embeddings: Tensor) -> None:
    if embeddings.dim() != 2:
        raise ValueError(f"embeddings must be (B, D), got {tuple(embeddings.shape)}.")
