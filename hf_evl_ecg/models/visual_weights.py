"""What each visual token is worth: from the ink of a drawn page, or from the teacher's own tokens.

A weight is a density, content per area: evenly spread content gives every token the same weight, coarse tokens and fine ones
alike, and so the uniform masses of the paper. Weights of one model reach another through a map of the image, as both look at
one page however they cut it up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.arguments import check_between
from hf_evl_ecg.padded import normalise_weights, promote, zero_padding
from hf_evl_ecg.tokens import TokenFeatures

__all__ = [
    "WEIGHT_SOURCES",
    "WeightSource",
    "contrast_weights",
    "draw_map",
    "mix_uniform",
    "read_map",
    "share_weights",
    "token_weights",
]

WeightSource = Literal["uniform", "ink", "teacher_contrast", "teacher_attention"]
WEIGHT_SOURCES = get_args(WeightSource)
_CELLS = 128  # of a map that is made from tokens; a finer one would hold nothing more


def read_map(density: Tensor, boxes: Tensor) -> Tensor:
    """Mean of a map of the image over each token's box, exact where a cell is cut.

    Args:
        density: What each cell of an even grid over the image holds, not negative. Shape: (B, G, H).
        boxes: Centre and size (x, y, width, height), as fractions of the image. Shape: (B, N, 4).

    Returns:
        0 for a box without size (a newline token, padding); what of a box lies outside of the image holds nothing.
        Shape: (B, N), float32.

    Example:
        >>> left = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
        >>> read_map(left, torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0], [1.0, 0.5, 0.0, 0.0]]]))
        tensor([[1.0000, 0.5000, 0.0000]])
    """
    density, boxes = promote(density), promote(boxes)
    columns, rows = (_overlaps(boxes[..., i::2], cells) for i, cells in ((0, density.shape[2]), (1, density.shape[1])))
    tiny = torch.finfo(boxes.dtype).tiny
    columns, rows = columns / boxes[..., 2:3].clamp(min=tiny), rows / boxes[..., 3:4].clamp(min=tiny)
    with torch.autocast(density.device.type, enabled=False):
        return (torch.bmm(rows, density) * columns).sum(2)


def draw_map(weights: Tensor, boxes: Tensor, cells: int = _CELLS) -> Tensor:
    """Lay the tokens' weights over the image; where several tokens cover a cell (coarse and fine tiles), their mean by area.

    Args:
        weights: Weight of each token. Shape: (B, N).
        boxes: Centre and size, as in `read_map`; without size: padding. Shape: (B, N, 4).
        cells: Rows and columns of the map.

    Returns:
        Shape: (B, cells, cells), float32.

    Example:
        >>> halves = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]]])
        >>> draw_map(torch.tensor([[3.0, 1.0]]), halves, cells=2)
        tensor([[[3., 1.],
                 [3., 1.]]])
    """
    weights, boxes = promote(weights), promote(boxes)
    columns, rows = _overlaps(boxes[..., 0::2], cells), _overlaps(boxes[..., 1::2], cells)
    with torch.autocast(weights.device.type, enabled=False):
        total = torch.bmm(rows.mT, columns * weights.unsqueeze(2))
        area = torch.bmm(rows.mT, columns)
    return total / area.clamp(min=torch.finfo(area.dtype).tiny)


def contrast_weights(tokens: Tensor, mask: Tensor) -> Tensor:
    """Distance of each unit token from the mean of the page's: blank paper looks like most of the page, a trace does not.

    Args:
        tokens: Visual tokens. Shape: (B, N, D).
        mask: True at tokens that show a part of the image. Shape: (B, N), bool.

    Returns:
        0 elsewhere; no gradient. Shape: (B, N), float32.

    Example:
        >>> tokens = torch.tensor([[[1.0, 0.0], [9.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
        >>> contrast_weights(tokens, torch.tensor([[True, True, True, False]]))
        tensor([[0.4714, 0.4714, 0.9428, 0.0000]])
    """
    unit = F.normalize(zero_padding(promote(tokens.detach()), mask), dim=2)
    mean = unit.sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
    return (unit - mean).norm(dim=2).masked_fill(~mask, 0)


def token_weights(
    source: str, tokens: Tensor, mask: Tensor, boxes: Tensor, ink: Tensor | None, attention: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights of a model's visual tokens, and their map of the image.

    Args:
        source: ``"ink"``, ``"teacher_contrast"`` or ``"teacher_attention"``.
        tokens: The visual tokens. Shape: (B, N, D).
        mask: True at tokens. Shape: (B, N), bool.
        boxes: Their boxes, as in `read_map`. Shape: (B, N, 4).
        ink: Share of trace in each cell of the image, for ``"ink"``. Shape: (B, G, G).
        attention: How much the answer attends to each token, for ``"teacher_attention"``. Shape: (B, N).

    Returns:
        Shapes: (B, N) and (B, G, G), float32.

    Raises:
        ValueError: If there is no ink where it is needed.
    """
    if source == "ink":
        if ink is None:
            raise ValueError(
                "visual_weights='ink', but the batch holds no ink; give EVLECGCollator ink=True and a load_image that draws pages "
                "(RenderedECG), or use 'teacher_contrast'."
            )
        ink = ink.to(boxes.device)
        return read_map(ink, boxes), ink
    half = boxes[..., 2:] / 2  # a newline has no size, and padding around the image lies outside of it
    shown = mask & ((boxes[..., :2] + half).clamp(max=1) > (boxes[..., :2] - half).clamp(min=0)).all(2)
    weights = contrast_weights(tokens, shown) if attention is None else attention.masked_fill(~shown, 0)
    return weights, draw_map(weights, boxes)


def mix_uniform(weights: Tensor, mask: Tensor, floor: float) -> Tensor:
    """Masses that sum to 1: a share ``floor`` spread evenly over all tokens, the rest by their weights.

    Args:
        weights: Not negative, of any scale. A sample without any weight (a page without a trace) gets uniform masses.
            Shape: (B, N).
        mask: True at tokens. Shape: (B, N), bool.
        floor: In [0, 1]; 1 gives uniform masses.

    Raises:
        ValueError: For a floor out of range, or negative weights.

    Example:
        >>> mix_uniform(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool), floor=0.5)
        tensor([[0.6250, 0.3750]])
    """
    check_between("floor", floor, 0, 1)
    relative = normalise_weights(weights, mask)
    relative = torch.where(relative.any(1, keepdim=True), relative, mask.to(relative.dtype))
    masses = relative / relative.sum(1, keepdim=True).clamp(min=1)
    even = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return (1 - floor) * masses + floor * even


def share_weights(student: TokenFeatures, teacher: TokenFeatures, floor: float) -> tuple[TokenFeatures, TokenFeatures]:
    """Turn what the teacher's features say of the image into masses of both models' visual tokens.

    The student's masses are read from the teacher's map at the student's own boxes, and never uniform beside weighted
    ones of the teacher: both marginals must hold the same share of trace, else paper would have to move onto trace.

    Args:
        student: Features with ``visual_boxes``.
        teacher: Features with ``visual_weights`` and ``visual_map``.
        floor: See `mix_uniform`.

    Returns:
        Student and teacher with ``visual_weights`` that sum to 1; the student also with ``hidden_weights``, in which
        text weighs 1 and the mean image token too.

    Raises:
        ValueError: If one of these fields is missing.
    """
    boxes, mask, index = student.visual_boxes, student.visual_mask, student.visual_index
    drawn, own, own_mask = teacher.visual_map, teacher.visual_weights, teacher.visual_mask
    if boxes is None or mask is None or index is None or drawn is None or own is None or own_mask is None:
        raise ValueError(
            "weights of visual tokens need features of a student with boxes=True and of a teacher with weights (FeatureRequest)."
        )
    masses = mix_uniform(read_map(drawn, boxes), mask, floor)
    covered = mask & (index >= 0)
    hidden = promote(student.mask.to(masses.dtype))
    sample, token = covered.nonzero(as_tuple=True)
    hidden[sample, index[sample, token]] = (masses * mask.sum(1, keepdim=True))[sample, token]
    return (
        replace(student, visual_weights=masses, hidden_weights=hidden),
        replace(teacher, visual_weights=mix_uniform(own, own_mask, floor)),
    )


def _overlaps(spans: Tensor, cells: int) -> Tensor:
    """Length that spans (middle, length) share with each of even cells of [0, 1]. Shapes: (B, N, 2) → (B, N, cells)."""
    middle, half = spans[..., :1], spans[..., 1:] / 2
    borders = torch.arange(cells + 1, device=spans.device, dtype=spans.dtype) / cells
    return (torch.minimum(middle + half, borders[1:]) - torch.maximum(middle - half, borders[:-1])).clamp(min=0)
