"""Parts of a collated batch: the arguments of the forward pass, the prompt, the first answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.padded import kept_positions
from hf_evl_ecg.tokens import IGNORE

from .encoding import select_tokens

__all__ = ["first_answer", "model_inputs", "prompt_inputs"]

_BESIDE = ("labels", "places", "teacher", "groups", "keys", "records", "skipped", "ink")


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the student's forward pass in a batch of `EVLECGCollator`.

    Example:
        >>> list(model_inputs({"input_ids": 1, "pixel_values": 2, "labels": 3, "keys": 4}))
        ['input_ids', 'pixel_values']
    """
    return {name: value for name, value in batch.items() if name not in _BESIDE}


def prompt_inputs(batch: Mapping[str, Any], pad_token_id: int) -> dict[str, Any]:
    """Model inputs up to the first answer of each sample, padded on the left, so that all go on at the same place.

    Args:
        batch: From `EVLECGCollator`.
        pad_token_id: The student's padding token.
    """
    keep = batch["attention_mask"].bool() & ((batch["labels"] != IGNORE).cumsum(1) == 0)
    return select_tokens(model_inputs(batch), keep, pad_token_id, "left")


def first_answer(labels: Tensor) -> Tensor:
    """Token ids of the first answer of each sample, front-aligned, -100 elsewhere; a second one follows a question.

    Args:
        labels: From `EVLECGCollator`. Shape: (B, T).

    Example:
        >>> import torch
        >>> first_answer(torch.tensor([[-100, 5, 6, -100, 7], [-100, -100, 8, -100, -100]]))
        tensor([[   5,    6],
                [   8, -100]])
    """
    labelled = labels != IGNORE
    begins = labelled & ~F.pad(labelled, (1, 0))[:, :-1]
    first = labelled & (begins.cumsum(1) == 1)
    index, mask = kept_positions(first)
    return labels.gather(1, index).masked_fill(~mask, IGNORE)
