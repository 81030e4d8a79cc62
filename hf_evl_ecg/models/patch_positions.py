"""Where on the image each image token lies, and how much of it it covers, for the ways in which native models lay out their patches.

Models cut an image into patches in four ways: one grid of any shape (Qwen-VL), a coarse tile and a fine grid with a
newline token after each row, or tile after tile (LLaVA-NeXT), tiles with a coarse tile last, separated by text (Idefics3, SmolVLM) or
not (InternVL, whose pixels tell how many stand in a row), or one square grid (Gemma 3, PaliGemma). A layout that is not known, or cannot be told from the inputs, is refused,
never guessed: LLaVA-1.5 cuts the middle out of a page, Idefics2 has no patches behind its tokens, Gemma 3 may add cuts of the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

__all__ = ["UnknownLayoutError", "patch_boxes", "patch_positions"]

# Families whose layout is known. Others may have inputs of the same names, or a square number of tokens, and another layout.
_GRIDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v")
_TILED = ("idefics3", "smolvlm")
_SQUARES: dict[str, Callable[[Any], int]] = {  # tokens of the one tile that is the whole image
    "gemma3": lambda config: config.mm_tokens_per_image,
    "paligemma": lambda config: (config.vision_config.image_size // config.vision_config.patch_size) ** 2,
}
_LIKE = 0.5  # of the next best order's error: tiles in their order are the coarse tile but for rounding, others another picture
_WITHOUT = "set ot_position_weight to 0 and visual_weights to 'uniform'."
_SAME_ROW = 3  # from tile to tile in a row: past a separator and the tile's name; a line break makes it more


class UnknownLayoutError(ValueError):
    """A model whose inputs do not tell where its patches lie."""


def patch_positions(model: PreTrainedModel, inputs: Mapping[str, Any], image_mask: Tensor) -> Tensor:
    """Centres (x, y) of the patches behind the image tokens: the first half of `patch_boxes`. Shape: (B, N, 2), float32.

    Example:
        >>> from types import SimpleNamespace
        >>> from transformers import Qwen2VLConfig  # whose patches are merged two by two
        >>> qwen = SimpleNamespace(config=Qwen2VLConfig())
        >>> mask = torch.tensor([[False, True, True, False]])
        >>> patch_positions(qwen, {"image_grid_thw": torch.tensor([[1, 2, 4]])}, mask)[0]
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000]])
    """
    return patch_boxes(model, inputs, image_mask)[..., :2]


def patch_boxes(model: PreTrainedModel, inputs: Mapping[str, Any], image_mask: Tensor) -> Tensor:
    """Centre and size (x, y, width, height) of the patches behind the image tokens, as fractions of the image.

    Args:
        model: A native vision-language model.
        inputs: Its forward arguments, with one image per sample.
        image_mask: True at image tokens. Shape: (B, T), bool.

    Returns:
        From the upper left corner, front-aligned and padded with zeros, in the order of the tokens. A newline token lies at
        the end of its row and has no size. What lies outside of [0, 1] is padding around the image, not a part of it.
        Shape: (B, N, 4), float32.

    Raises:
        UnknownLayoutError: If the layout cannot be told from the inputs.

    Example:
        >>> from types import SimpleNamespace
        >>> from transformers import Qwen2VLConfig  # whose patches are merged two by two
        >>> qwen = SimpleNamespace(config=Qwen2VLConfig())
        >>> mask = torch.tensor([[False, True, True, False]])
        >>> patch_boxes(qwen, {"image_grid_thw": torch.tensor([[1, 2, 4]])}, mask)[0]
        tensor([[0.2500, 0.5000, 0.5000, 1.0000],
                [0.7500, 0.5000, 0.5000, 1.0000]])
    """
    counts = image_mask.sum(1).tolist()
    family = model.config.model_type
    if family in _GRIDS and "image_grid_thw" in inputs:
        merge = model.config.vision_config.spatial_merge_size
        rows = [_grid(int(h) // merge, int(w) // merge) for _, h, w in inputs["image_grid_thw"]]
    elif family == "llava_next" and "image_sizes" in inputs:
        rows = [_coarse_and_fine(model, size) for size in inputs["image_sizes"]]
    elif family in _TILED:
        rows = [_tiles(mask.nonzero().flatten().tolist()) for mask in image_mask.cpu()]
    elif family == "internvl":
        rows = _tiles_of_pixels(image_mask.cpu(), inputs.get("pixel_values"), model.config.image_seq_length)
    elif family in _SQUARES:
        whole = _SQUARES[family](model.config)
        rows = [_square(mask.nonzero().flatten().tolist(), whole) for mask in image_mask.cpu()]
    else:
        known = ", ".join((*_GRIDS, "llava_next", "internvl", *_TILED, *_SQUARES))
        raise UnknownLayoutError(
            f"{type(model).__name__} lays out its patches in a way that is not known ({known} are); {_WITHOUT}"
        )
    if [len(row) for row in rows] != counts:
        raise UnknownLayoutError(
            f"{type(model).__name__} has {counts} image tokens per sample, but the layout of its inputs explains "
            f"{[len(row) for row in rows]}; one image per sample is needed, or {_WITHOUT}"
        )
    return pad_sequence(rows, batch_first=True).to(image_mask.device)


def _grid(height: int, width: int) -> Tensor:
    """Boxes of a grid over the whole image, row by row. Shape: (height · width, 4)."""
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    size = torch.tensor([1 / width, 1 / height]).expand(height * width, 2)
    return torch.cat([torch.stack([x.repeat(height), y.repeat_interleave(width)], 1), size], 1)


def _coarse_and_fine(model: Any, size: Tensor) -> Tensor:
    """LLaVA-NeXT: let the model pack coordinates as it packs features, and measure them from the page on its canvas.

    The overview is the page stretched to one tile. The tiles are a canvas on which the page, as large as it fits, lies in the
    middle of padding; tokens of the padding alone lie outside of [0, 1].
    """
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    rows = (
        torch.arange(side) + 0.5
    ) * vision.patch_size  # in pixels: patches need not fill a tile (SigLIP: 27 · 14 of 384)
    tile = torch.stack([rows.repeat(side), rows.repeat_interleave(side)], 1)
    canvas = select_best_resolution(tuple(size.tolist()), model.config.image_grid_pinpoints)
    down, across = (edge // vision.image_size for edge in canvas)
    corners = torch.tensor([[column, row] for row in range(down) for column in range(across)])
    packed, _ = model.pack_image_features(
        [torch.cat([tile[None], tile + corners.unsqueeze(1) * vision.image_size])],
        [size],
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        image_newline=torch.full((2,), math.nan),  # marks where the model puts its newline tokens
    )
    height, width = size.tolist()
    blank = np.broadcast_to(np.uint8(0), (1, height, width))
    page = get_patch_output_size(blank, canvas, input_data_format=ChannelDimension.FIRST)
    above, before = ((whole - part) // 2 for whole, part in zip(canvas, page, strict=True))
    shown = torch.tensor([page[1], page[0]])
    fine = (packed[0][side * side :] - torch.tensor([before, above])) / shown
    newline = fine.isnan().any(1)
    at = newline.nonzero().flatten()
    fine[at] = torch.stack([torch.ones(len(at)), fine[at - 1, 1]], 1)
    sizes = vision.patch_size / shown * ~newline.unsqueeze(1)
    coarse = torch.tensor(vision.patch_size / vision.image_size).expand(side * side, 2)
    return torch.cat([torch.cat([tile / vision.image_size, coarse], 1), torch.cat([fine, sizes], 1)])


def _runs(tokens: list[int]) -> list[list[int]]:
    """Places of tokens, cut where other tokens stand between them."""
    runs: list[list[int]] = []
    for token in tokens:
        if runs and token == runs[-1][-1] + 1:
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def _square(tokens: list[int], whole: int) -> Tensor:
    """One square grid over the whole image, of as many tokens as the configuration says."""
    runs = _runs(tokens)
    side = math.isqrt(whole)
    if [len(run) for run in runs] != [whole] or side * side != whole:
        raise UnknownLayoutError(
            f"{len(tokens)} image tokens in runs of {[len(run) for run in runs]} are not one square of {whole}: tiles and cuts whose "
            f"place the inputs do not tell; let the processor make one (crop_to_patches=False, do_pan_and_scan=False), or {_WITHOUT}"
        )
    return _grid(side, side)


def _tiles_of_pixels(image_mask: Tensor, pixels: Tensor | None, whole: int) -> list[Tensor]:
    """InternVL: square tiles one after the other, the last one of the whole image; or one tile alone.

    Args:
        image_mask: True at image tokens. Shape: (B, T), bool.
        pixels: The tiles of all samples; None will do where each has one tile. Shape: (tiles, 3, H, W).
        whole: Tokens of a tile.
    """
    rows, at = [], 0
    for mask in image_mask:
        tokens = mask.nonzero().flatten().tolist()
        count, side = len(tokens) // whole, math.isqrt(whole)
        one_run = len(_runs(tokens)) == 1 and len(tokens) == count * whole
        if (
            pixels is not None and count > 2 and one_run and side * side == whole
        ):  # no overview is made of a single tile
            down, across = _order_of_tiles(pixels[at : at + count].float().cpu())
            rows.append(_tiles_and_overview(_grid(side, side), down, across))
        else:
            rows.append(_square(tokens, whole))
        at += count
    if pixels is not None and at != len(pixels):
        raise UnknownLayoutError(f"{len(pixels)} tiles for {at} times {whole} image tokens; {_WITHOUT}")
    return rows


def _order_of_tiles(tiles: Tensor) -> tuple[int, int]:
    """Rows and columns in which tiles make up the picture of the last one. Shape: (tiles, 3, H, W)."""
    count, (height, width) = len(tiles) - 1, tiles.shape[-2:]
    errors: list[tuple[float, int]] = []
    for down in range(1, count + 1):
        if count % down == 0:
            canvas = (
                tiles[:-1]
                .reshape(down, count // down, 3, height, width)
                .permute(2, 0, 3, 1, 4)
                .flatten(1, 2)
                .flatten(2)
            )
            small = F.interpolate(canvas[None], (height, width), mode="bilinear", antialias=True)
            errors.append((float((small[0] - tiles[-1]).square().mean()), down))
    (best, down), *others = sorted(errors)
    if others and not best < _LIKE * others[0][0]:
        raise UnknownLayoutError(
            f"{count} tiles could stand in several orders (a blank page, or no coarse tile at the end); let the processor make one tile "
            f"(crop_to_patches=False), or {_WITHOUT}"
        )
    return down, count // down


def _tiles_and_overview(tile: Tensor, down: int, across: int) -> Tensor:
    """Boxes of tiles in rows and columns, each a grid of its own, and of a last tile of the whole image."""
    scale = torch.tensor([across, down])
    corners = torch.tensor([[column, row] for row in range(down) for column in range(across)])
    centres = ((tile[:, :2] + corners.unsqueeze(1)) / scale).flatten(0, 1)
    return torch.cat([torch.cat([centres, (tile[:, 2:] / scale).repeat(len(corners), 1)], 1), tile])


def _tiles(tokens: list[int]) -> Tensor:
    """Square tiles of equal size separated by text, the last one of the whole image; or one tile alone."""
    runs = _runs(tokens)
    side = math.isqrt(len(runs[0])) if runs else 0
    if not runs or {len(run) for run in runs} != {side * side}:
        raise UnknownLayoutError(
            f"{len(tokens)} image tokens in runs of {[len(run) for run in runs]} are no square tiles, so their "
            f"positions are not known; {_WITHOUT}"
        )
    tile = _grid(side, side)
    if len(runs) == 1:
        return tile
    gaps = [after[0] - before[-1] for before, after in pairwise(runs[:-1])]
    breaks = [i + 1 for i, gap in enumerate(gaps) if gap > _SAME_ROW]
    across = breaks[0] if breaks else len(runs) - 1
    down = (len(runs) - 1) // across
    if breaks != list(range(across, len(runs) - 1, across)) or down * across != len(runs) - 1:
        raise UnknownLayoutError(f"{len(runs) - 1} tiles do not form a grid; {_WITHOUT}")
    return _tiles_and_overview(tile, down, across)
