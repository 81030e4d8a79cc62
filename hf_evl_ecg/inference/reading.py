"""What a model keeps of a text it has read, so that the text can go on in several ways without being read again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.padded import front_mask, promote

__all__ = ["Reading", "log_probabilities", "option_scores", "read_on", "read_prompt"]


@dataclass(frozen=True)
class Reading:
    """Texts that were read up to the same place.

    Attributes:
        logits: Of the token that comes next. Shape: (B, 1, V).
        cache: Keys and values of every layer, or what else the model keeps.
        mask: 1 at tokens, 0 at padding. Shape: (B, T).
        position: What the text decoder was given for the last token, if anything; rotary positions in one or three
            dimensions (M-RoPE) all grow by one from text token to text token. Shape: (..., B, 1).
    """

    logits: Tensor
    cache: Any
    mask: Tensor
    position: Tensor | None

    def rows(self, index: Tensor) -> Reading:
        """Some of the texts, as often as they are named; this reading stays as it is. Shape of the index: (R,)."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:  # layers of recurrent states keep several in a dict or list
            held = {name: copy.copy(value) for name, value in vars(layer).items() if isinstance(value, dict | list)}
            vars(layer).update(held)
        cache.reorder_cache(index)  # new tensors: what goes on from them does not write into these
        position = None if self.position is None else self.position.index_select(-2, index)
        return Reading(self.logits[index], cache, self.mask[index], position)


def read_prompt(model: nn.Module, prompt: Mapping[str, Any]) -> Reading:
    """Read prompts that are padded on the left, so that all end at the same place.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        prompt: From `hf_evl_ecg.chat.batches.prompt_inputs`.
    """
    positions: list[Tensor | None] = []

    def before(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions.append(kwargs.get("position_ids"))

    handle = base_model(model).get_decoder().register_forward_pre_hook(before, with_kwargs=True)
    try:
        output = model(**prompt, use_cache=True, logits_to_keep=1)
    finally:
        handle.remove()
    last = None if positions[0] is None else positions[0][..., -1:]
    if last is not None and last.shape[-2] != len(output.logits):  # one row of positions for the whole batch
        last = last.expand(*last.shape[:-2], len(output.logits), 1)
    return Reading(output.logits[:, -1:], output.past_key_values, prompt["attention_mask"], last)


def read_on(model: nn.Module, reading: Reading, ids: Tensor) -> Reading:
    """Read as many further tokens of each text; the given reading is used up, as its cache grows in place.

    Args:
        model: The model that made the reading.
        reading: Where to go on.
        ids: Tokens without padding, at least one. Shape: (B, T').
    """
    output, mask, position = _forward(model, reading, ids, torch.ones_like(ids), logits_to_keep=1)
    return Reading(output.logits[:, -1:], output.past_key_values, mask, position)


def option_scores(
    model: nn.Module, reading: Reading, options: Sequence[Sequence[Sequence[int]]], rows: int
) -> list[list[float]]:
    """Log-likelihood of ways in which each text can go on.

    Args:
        model: The model that made the reading.
        reading: B texts; stays as it is.
        options: Token ids of each option of each text; none of them empty.
        rows: Most options in one forward pass.

    Returns:
        Sum over each option's tokens, in nats.
    """
    scores = [[0.0] * len(own) for own in options]
    pairs = [(text, number) for text, own in enumerate(options) for number in range(len(own))]
    pairs.sort(key=lambda pair: len(options[pair[0]][pair[1]]))  # alike in length: little padding
    for start in range(0, len(pairs), rows):
        chunk = pairs[start : start + rows]
        found = _scores(model, reading, [text for text, _ in chunk], [options[text][n] for text, n in chunk])
        for (text, number), score in zip(chunk, found.tolist(), strict=True):
            scores[text][number] = score
    return scores


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token under its logits, at least float32. Shapes: (B, A, V), (B, A) → (B, A)."""
    return F.log_softmax(promote(logits), -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _scores(model: nn.Module, reading: Reading, texts: list[int], options: list[Sequence[int]]) -> Tensor:
    """Log-likelihood of one option each after the texts of these numbers. Shape: (R,), float32."""
    device = reading.mask.device
    counts = torch.tensor([len(option) for option in options], device=device)
    width = int(counts.max())
    ids = torch.tensor([[*option, *[0] * (width - len(option))] for option in options], device=device)
    mask = front_mask(counts, width)
    index = torch.tensor(texts, device=device)
    scores = [log_probabilities(reading.logits[index], ids[:, :1])]
    if width > 1:
        output, _, _ = _forward(model, reading.rows(index), ids[:, :-1], mask[:, :-1])
        scores.append(log_probabilities(output.logits, ids[:, 1:]))
    return torch.cat(scores, 1).masked_fill(~mask, 0).sum(1)


def _forward(
    model: nn.Module, reading: Reading, ids: Tensor, mask: Tensor, **options: Any
) -> tuple[Any, Tensor, Tensor | None]:
    """Output for further tokens, the mask of all tokens, and the position of the last one."""
    whole = torch.cat([reading.mask, mask.to(reading.mask)], 1)
    position = None
    if reading.position is not None:
        position = reading.position + torch.arange(1, ids.shape[1] + 1, device=ids.device)
    output = model(
        input_ids=ids,
        attention_mask=whole,
        past_key_values=reading.cache,
        use_cache=True,
        **({} if position is None else {"position_ids": position}),
        **options,
    )
    return output, whole, None if position is None else position[..., -1:]
