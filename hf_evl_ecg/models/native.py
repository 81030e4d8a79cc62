"""What is asked of every native vision-language model: the model inside a wrapper, its image token, inputs where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from .flat_tiles import FlatLlavaNextForConditionalGeneration, is_flat

__all__ = ["UnsupportedModelError", "base_model", "eval_mode", "image_token_id", "move_batch"]


class UnsupportedModelError(ValueError):
    """A model that is no native vision-language model, or lacks what the distillation needs."""


def base_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, or the model itself.

    Raises:
        UnsupportedModelError: If there is no transformers model inside, or one that packs its image tokens otherwise than
            its configuration says.
    """
    # get_base_model is PEFT's; what has neither it nor a transformers model inside is refused below
    inner: Any = model if isinstance(model, PreTrainedModel) else getattr(model, "get_base_model", lambda: model)()
    if not isinstance(inner, PreTrainedModel):
        raise UnsupportedModelError(
            f"{type(model).__name__} is neither a transformers model nor a PEFT model around one; load it with "
            "AutoModelForImageTextToText.from_pretrained."
        )
    if is_flat(inner.config) and not isinstance(inner, FlatLlavaNextForConditionalGeneration):
        raise UnsupportedModelError(
            f"{type(inner).__name__} packs image tokens as 'spatial_unpad', but was trained with mm_patch_merge_type='flat'; load "
            "it and its processor with hf_evl_ecg.models.load_model, not with Auto classes."
        )
    return inner


def image_token_id(model: nn.Module) -> int:
    """Id of the token whose embedding a model replaces by an image feature.

    Raises:
        UnsupportedModelError: If the model's configuration names no image token.
    """
    token_id = getattr(base_model(model).config, "image_token_id", None)
    if token_id is None:
        raise UnsupportedModelError(
            f"{type(base_model(model)).__name__} has no image_token_id in its configuration, so its image tokens "
            "cannot be found; use a native vision-language model (LlavaNext, Idefics3, Qwen2-VL, InternVL …)."
        )
    return int(token_id)


def move_batch(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Move the tensors of a batch to a model's device, and its pixels to the model's type; all else stays as it is.

    Args:
        batch: Keyword arguments of the model's forward pass, or a batch of `EVLECGCollator`.
        model: A native vision-language model, or a PEFT model around one.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.ones(1, 4, dtype=torch.long), "pixel_values": torch.zeros(1, 3, 8, 8)}
        >>> [tensor.dtype for tensor in move_batch(batch, student.to(torch.bfloat16)).values()]
        [torch.int64, torch.bfloat16]
    """
    network = base_model(model)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(network.device, network.dtype if value.is_floating_point() else None)  # ids stay integers

    return {name: moved(value) for name, value in batch.items()}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off while the context is open, then put the model back into the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
