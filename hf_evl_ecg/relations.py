"""Pairwise relations inside one token set, and the loss that matches them between two models.

Relations need no common space: the two sets share the number of tokens, not the width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.arguments import check_between
from hf_evl_ecg.padded import front_mask, mean_over_samples, normalise_weights, promote, take_tokens, zero_padding

__all__ = ["cosine_relations", "distance_relations", "relation_loss"]


def relation_loss(
    target: Tensor,
    student: Tensor,
    mask: Tensor,
    *,
    max_tokens: int = 1024,
    subset: int = 512,
    generator: torch.Generator | None = None,
    detach_target: bool = True,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Geometric relation matching, ``1/n^2 sum_ij (psi(target)_ij - psi(student)_ij)^2`` (EVL-ECG, arXiv 2605.29977).

    The distance term compares pairwise distances divided by their mean, the angle term pairwise cosines; the paper's loss
    is half their sum. The student's gradient passes through its mean distance. The distance term is invariant to
    translation, rotation and scale of either side, the angle term to rotation and to the scale of each token.

    Args:
        target: What to match. Shape: (B, L, D').
        student: What is trained. Shape: (B, L, D).
        mask: Non-zero at valid tokens, shared by both. Shape: (B, L).
        max_tokens: A sample with more valid tokens than this is reduced to a random subset, drawn anew at each call.
        subset: Tokens in such a subset.
        generator: Source of the draw; default is torch's global generator of the tensors' device.
        detach_target: Treat ``target`` as a constant.
        weights: Weight of each token, not negative, of any scale. A pair weighs ``w_i w_j``, in the mean over pairs and in
            the mean distance; zero is padding. None: all the same, the paper's form. Constants. Shape: (B, L).

    Returns:
        Distance term and angle term, each a mean over samples with valid tokens. Scalars, float32 (float64 for float64
        input).

    Raises:
        ValueError: For shapes that do not fit, negative weights, or ``subset`` outside [2, max_tokens].

    Example:
        >>> tokens = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]])
        >>> [float(term) for term in relation_loss(tokens, tokens, torch.ones(1, 3, dtype=torch.bool))]
        [0.0, 0.0]
    """
    _check(target, student, mask, max_tokens, subset)
    mask = mask.to(torch.bool)
    weights = mask.to(torch.float32) if weights is None else normalise_weights(weights, mask)
    mask = weights > 0
    if detach_target:
        target = target.detach()
    with torch.autocast(student.device.type, enabled=False):  # distances are differences of large squares
        if mask.shape[1] > max_tokens:  # memory grows with the square of the tokens
            index, mask = _draw_subset(mask, max_tokens, subset, generator)
            target, student = take_tokens(target, index, mask), take_tokens(student, index, mask)
            weights = weights.gather(1, index).masked_fill(~mask, 0)
        target, student = zero_padding(promote(target), mask), zero_padding(promote(student), mask)
        weights = weights.to(student.device, student.dtype)
        distance = _mean_square(distance_relations(target, weights) - distance_relations(student, weights), weights)
        angle = _mean_square(cosine_relations(target) - cosine_relations(student), weights)
    return distance, angle


def distance_relations(tokens: Tensor, mask: Tensor) -> Tensor:
    """Euclidean distances divided by their (weighted) mean over ordered pairs of two different valid tokens.

    Distances below the resolution of the number format count as zero, with zero gradient. Tokens that all coincide give
    zeros.

    Args:
        tokens: Shape: (B, L, D); finite at padding.
        mask: True at valid tokens; or their weights, zero at padding, where a pair weighs ``w_i w_j`` in the mean.
            Shape: (B, L).

    Returns:
        Relations, zero on the diagonal and at padding. Shape: (B, L, L).

    Example:
        >>> distance_relations(torch.tensor([[[0.0], [1.0], [3.0]]]), torch.ones(1, 3, dtype=torch.bool))
        tensor([[[0.0000, 0.5000, 1.5000],
                 [0.5000, 0.0000, 1.0000],
                 [1.5000, 1.0000, 0.0000]]])
    """
    weights, mask = mask.to(tokens.dtype), mask > 0
    inside = mask.to(tokens.dtype)
    count = inside.sum(1).clamp(min=1)
    centre = (tokens * inside.unsqueeze(2)).sum(1, keepdim=True) / count[:, None, None]
    centred = (tokens - centre) * inside.unsqueeze(2)  # the centre cancels; without it large offsets cost precision
    squares = centred.square().sum(2)
    scale = squares.unsqueeze(2) + squares.unsqueeze(1)
    squared = scale - 2 * torch.bmm(centred, centred.mT)
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1) & different
    # |x|^2 + |y|^2 - 2xy cancels to noise between close tokens, and the root's gradient there would be that noise's
    pairs &= squared.detach() > 16 * torch.finfo(tokens.dtype).eps * scale.detach()
    distances = torch.where(pairs, squared, 1).sqrt() * pairs  # where, not a product: sqrt'(0) is infinite, times 0 NaN
    # The weights of ordered pairs of two different tokens add up to this; distances are zero on the diagonal anyway.
    exact = weights.double()  # a difference of squares, where one token may weigh nearly all
    whole = (exact.sum(1).square() - exact.square().sum(1)).to(tokens.dtype)
    tiny = torch.finfo(tokens.dtype).tiny
    mean = _weighted_sum(distances, weights) / whole.clamp(min=tiny)
    return distances / mean.clamp(min=tiny)[:, None, None]


def cosine_relations(tokens: Tensor) -> Tensor:
    """Cosine of each pair of tokens, zero for a zero token.

    Args:
        tokens: Shape: (B, L, D).

    Returns:
        Cosines. Shape: (B, L, L).

    Example:
        >>> cosine_relations(torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]))
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    unit = F.normalize(tokens, dim=2, eps=1e-6)
    return torch.bmm(unit, unit.mT)


def _mean_square(difference: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the n^2 ordered pairs of each sample, then over samples that have tokens."""
    return mean_over_samples(_weighted_sum(difference.square(), weights), weights.sum(1).square())


def _weighted_sum(pairs: Tensor, weights: Tensor) -> Tensor:
    """``sum_ij w_i w_j pairs_ij``, as two products with a vector, which make no third matrix. Shapes: (B, L, L), (B, L) → (B,)."""
    weights = weights.to(pairs.dtype)
    return torch.einsum("bi,bij,bj->b", weights, pairs, weights)


def _draw_subset(
    mask: Tensor, max_tokens: int, subset: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Indices of the kept tokens (B, K) and their mask: all of a short sample, a random ``subset`` of a long one."""
    device = mask.device if generator is None else generator.device
    scores = torch.rand(mask.shape, generator=generator, device=device).to(mask.device).masked_fill_(~mask, -1)
    count = mask.sum(1)
    keep = torch.where(count > max_tokens, subset, count)
    width = int(keep.max())
    return scores.argsort(1, descending=True)[:, :width], front_mask(keep, width)


def _check(target: Tensor, student: Tensor, mask: Tensor, max_tokens: int, subset: int) -> None:
    if target.dim() != 3 or student.dim() != 3 or target.shape[:2] != student.shape[:2]:
        raise ValueError(
            f"target (B, L, D') and student (B, L, D) must agree in B and L; given {tuple(target.shape)} and "
            f"{tuple(student.shape)}. Align the target to the student's tokens first (CrossAttentionAligner)."
        )
    if mask.shape != student.shape[:2]:
        raise ValueError(f"mask must have the shape {tuple(student.shape[:2])}; given {tuple(mask.shape)}.")
    check_between("subset", subset, 2, max_tokens)
