"""What a model looks at while it answers: one layer's attention of the answer's states, noted as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_evl_ecg.padded import promote, take_tokens

from .native import UnsupportedModelError, base_model

__all__ = ["answer_attention", "attend_eagerly"]


def attend_eagerly(model: nn.Module) -> None:
    """Let a model's text decoder compute its attention step by step, so that it can be read; slower, and O(T²) memory a layer.

    Args:
        model: A native vision-language model, or a PEFT model around one; changed in place.

    Example:
        >>> attend_eagerly(teacher)
        >>> teacher.get_decoder().config._attn_implementation
        'eager'
    """
    base_model(model).set_attn_implementation({"text_config": "eager"})  # the vision tower's is not read


@contextmanager
def answer_attention(model: PreTrainedModel, positions: Tensor, mask: Tensor) -> Iterator[dict[str, Tensor]]:
    """Note the last decoder layer's attention while the context is open; no hook stays behind.

    Only its mean over heads and answer states is kept, the (T, T) matrices of no layer.

    Args:
        model: A native vision-language model that runs with ``attn_implementation="eager"``.
        positions: Index of the state that predicts each answer token. Shape: (B, A), int64.
        mask: True at answer tokens. Shape: (B, A), bool.

    Yields:
        After a forward pass, under ``"attention"``: how much the states that predict the answer attend to each token,
        float32; zeros in a sample without an answer. Shape: (B, T).

    Raises:
        UnsupportedModelError: If the layer's attention cannot be seen: another implementation never computes it.

    Example:
        >>> import torch
        >>> attend_eagerly(teacher)
        >>> positions, mask = torch.tensor([[2, 3]]), torch.tensor([[True, True]])
        >>> with answer_attention(teacher, positions, mask) as seen:
        ...     output = teacher(input_ids=torch.tensor([[1, 60, 61, 62, 63]]))
        >>> round(float(seen["attention"].sum()), 4), float(seen["attention"][0, 4])  # no state sees a later token
        (1.0, 0.0)
    """
    layers = getattr(model.get_decoder(), "layers", None)
    attend = getattr(layers[-1], "self_attn", None) if layers else None
    if attend is None:
        raise UnsupportedModelError(
            f"the last layer of {type(model).__name__}'s text decoder has no self_attn whose attention could be read; use "
            "visual_weights='teacher_contrast'."
        )
    seen: dict[str, Tensor] = {}

    def after(_module: Any, _args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None:  # sdpa and flash attention never make the matrix
            raise UnsupportedModelError(
                f"{type(model).__name__} runs with attn_implementation={model.get_decoder().config._attn_implementation!r}, "
                "which gives no attention; load it with attn_implementation='eager' (or call attend_eagerly), or use "
                "visual_weights='teacher_contrast'."
            )
        rows = take_tokens(promote(weights.detach()).mean(1), positions, mask)
        seen["attention"] = rows.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    handle = attend.register_forward_hook(after)
    try:
        yield seen
    finally:
        handle.remove()
