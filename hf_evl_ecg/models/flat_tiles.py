"""LLaVA-NeXT whose image tokens are its tiles one after the other ("flat"), as PULSE was trained (arXiv 2410.19008).

`transformers` packs tiles as one picture, without padding and with a newline token per row ("spatial_unpad"). LLaVA's
`mm_patch_merge_type: flat` takes the overview and then each tile row by row, all their tokens, no newlines: 5 × 576 for an
image of 2 × 2 tiles. The weights are the same; what differs is the packing and the number of image tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration, LlavaNextModel, LlavaNextProcessor, PreTrainedConfig
from transformers.image_processing_utils import select_best_resolution

from hf_evl_ecg.arguments import check_choice

__all__ = [
    "PACKINGS",
    "FlatLlavaNextForConditionalGeneration",
    "FlatLlavaNextProcessor",
    "is_flat",
]

PACKINGS = ("flat", "spatial_unpad")


def is_flat(config: PreTrainedConfig) -> bool:
    """Whether a configuration asks for flat packing (``mm_patch_merge_type``); one that says nothing does not.

    Raises:
        ValueError: It names a packing that is not known.

    Example:
        >>> from transformers import LlavaNextConfig
        >>> is_flat(LlavaNextConfig()), is_flat(LlavaNextConfig(mm_patch_merge_type="flat"))
        (False, True)
    """
    if config.model_type != "llava_next":
        return False
    packing = getattr(config, "mm_patch_merge_type", "spatial_unpad")
    check_choice("mm_patch_merge_type", packing, PACKINGS)
    return packing == "flat"


class FlatLlavaNextModel(LlavaNextModel):
    """`LlavaNextModel` with flat packing."""

    def pack_image_features(
        self, image_features: Any, image_sizes: Any, vision_feature_select_strategy: Any, image_newline: Any = None
    ) -> tuple[list[Tensor], Tensor]:
        """Tokens of all tiles of an image in a row; the other arguments have no part in it.

        Returns:
            One tensor per image, of shape (tiles * tokens per tile, D), and their lengths.
        """
        packed = [feature.flatten(0, 1) for feature in image_features]
        lengths = torch.tensor([len(feature) for feature in packed], dtype=torch.long, device=packed[0].device)
        return packed, lengths


class FlatLlavaNextForConditionalGeneration(LlavaNextForConditionalGeneration):
    """`LlavaNextForConditionalGeneration` with flat packing; loads the same checkpoints."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        config.mm_patch_merge_type = "flat"  # what is saved says how it must be loaded
        self.model = FlatLlavaNextModel(config)
        self.post_init()


class FlatLlavaNextProcessor(LlavaNextProcessor):
    """`LlavaNextProcessor` that puts as many image tokens into the prompt as flat packing makes."""

    def _get_number_of_features(self, orig_height: int, orig_width: int, height: int, width: int) -> int:
        pinpoints = self.image_processor.image_grid_pinpoints
        best_height, best_width = select_best_resolution((orig_height, orig_width), pinpoints)
        tiles = (best_height // height) * (best_width // width) + 1
        per_tile = (height // self.patch_size) * (width // self.patch_size)
        strategy_offset = self.num_additional_image_tokens  # the base class takes one off under "default"
        if self.vision_feature_select_strategy == "full":
            per_tile, strategy_offset = per_tile + self.num_additional_image_tokens, 0
        return tiles * per_tile + strategy_offset
