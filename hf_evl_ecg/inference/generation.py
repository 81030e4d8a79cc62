"""Written answers: a collated batch of questions → generated tokens or texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_evl_ecg.chat.batches import prompt_inputs
from hf_evl_ecg.chat.conversations import special_tokens
from hf_evl_ecg.models.native import eval_mode, move_batch
from hf_evl_ecg.tokens import IGNORE

__all__ = ["generate_answers", "generate_ids"]


def generate_ids(
    model: nn.Module, batch: Mapping[str, Any], tokenizer: Any, *, max_new_tokens: int = 64, **options: Any
) -> Tensor:
    """Generate the first answer of each sample, greedily unless ``options`` say otherwise.

    Generation ends at the tokenizer's end-of-sequence token and at the token that ends the batch's own answers.

    Args:
        model: The model, not a distributed wrapper around it.
        batch: From `EVLECGCollator`.
        tokenizer: Its tokenizer.
        max_new_tokens: Longest answer in tokens.
        options: Further arguments of ``model.generate``.

    Returns:
        New tokens, padded on the right with the padding token. Shape: (B, at most max_new_tokens).
    """
    inputs = move_batch(prompt_inputs(batch, tokenizer.pad_token_id), model)
    with torch.no_grad(), eval_mode(model):
        output: Any = model.generate(  # type: ignore[operator]
            **inputs,
            **{"do_sample": False, **options},
            max_new_tokens=max_new_tokens,
            eos_token_id=_stop_tokens(batch["labels"], tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    return output[:, inputs["input_ids"].shape[1] :]


def generate_answers(
    model: nn.Module, batch: Mapping[str, Any], tokenizer: Any, *, max_new_tokens: int = 64, **options: Any
) -> list[str]:
    """Generate the first answer of each sample as text, without special tokens; arguments as in `generate_ids`."""
    ids = generate_ids(model, batch, tokenizer, max_new_tokens=max_new_tokens, **options)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _stop_tokens(labels: Tensor, tokenizer: Any) -> list[int]:
    """End of sequence, and what ends the batch's answers: many chat templates end a turn with a token of their own."""
    special = set(tokenizer.convert_tokens_to_ids(sorted(special_tokens(tokenizer))))
    last = {int(row[row != IGNORE][-1]) for row in labels if (row != IGNORE).any()}
    return sorted((last & special) | ({tokenizer.eos_token_id} - {None}))
