"""How likely a model finds each of some answers: the prompt and its image are read once, each option only adds its tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.models.features import base_model

from .generation import prompt_inputs

__all__ = ["option_log_likelihoods"]


@torch.no_grad()
def option_log_likelihoods(
    model: nn.Module, batch: Mapping[str, Any], options: Sequence[Sequence[Sequence[int]]], pad_token_id: int
) -> Tensor:
    """Log-likelihood of options, of which each sample has its own, as whole first answers, the end of the turn included.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        batch: From `EVLECGCollator`.
        options: Token ids of each option of each sample, from `hf_evl_ecg.inference.generation.answer_token_ids`.
        pad_token_id: The padding token.

    Returns:
        Sum over an option's tokens, in nats, -inf where a sample has fewer options. Shape: (B, K), float32, K = the largest
        number of options.

    Raises:
        ValueError: Another number of option lists than samples, no option at all, or one without tokens.
    """
    prompt = prompt_inputs(batch, pad_token_id)
    size = prompt["input_ids"].shape[0]
    if len(options) != size or not any(options) or not all(map(len, (ids for own in options for ids in own))):
        raise ValueError(
            f"{len(options)} lists of options for {size} samples; give one list each, with at least one option in all and none empty"
        )
    was_training = model.training
    model.eval()
    try:
        output, last_position = _read(model, prompt)
        first = F.log_softmax(output.logits[:, -1].float(), -1)
        columns = []
        for number in range(max(map(len, options))):
            own = [list(o[number]) if number < len(o) else [] for o in options]
            columns.append(
                _continue(model, prompt["attention_mask"], output.past_key_values, last_position, first, own)
            )
    finally:
        model.train(was_training)
    return torch.stack(columns, 1)


def _read(model: nn.Module, prompt: Mapping[str, Any]) -> tuple[Any, Tensor | None]:
    """Output for a prompt with its cache, and the position the text decoder was given for the last token, if any.

    Rotary positions in one or three dimensions (M-RoPE) all grow by one from text token to text token, so that is all it
    takes to go on. Shape: (..., B, 1).
    """
    positions: list[Tensor | None] = []

    def before(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions.append(kwargs.get("position_ids"))

    handle = base_model(model).get_decoder().register_forward_pre_hook(before, with_kwargs=True)
    try:
        output = model(**prompt, use_cache=True, logits_to_keep=1)
    finally:
        handle.remove()
    return output, None if positions[0] is None else positions[0][..., -1:]


def _continue(
    model: nn.Module,
    prompt_mask: Tensor,
    cache: Any,
    last_position: Tensor | None,
    first: Tensor,
    answers: Sequence[list[int]],
) -> Tensor:
    """Log-likelihood of one answer per sample after a read prompt, -inf where it has no tokens. Shape: (B,)."""
    device = prompt_mask.device
    counts = torch.tensor([len(answer) for answer in answers], device=device)
    width = int(counts.max())
    ids = torch.tensor([answer + [0] * (width - len(answer)) for answer in answers], device=device)
    mask = torch.arange(width, device=device) < counts.unsqueeze(1)
    scores = [first.gather(1, ids[:, :1])]
    if width > 1:
        steps = torch.arange(1, width, device=device)
        output = model(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([prompt_mask, mask[:, :-1].to(prompt_mask)], 1),
            past_key_values=copy.deepcopy(cache),
            use_cache=True,
            **({} if last_position is None else {"position_ids": last_position + steps}),
        )
        rest = F.log_softmax(output.logits.float(), -1)
        scores.append(rest.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1))
    return torch.cat(scores, 1).masked_fill(~mask, 0).sum(1).masked_fill(counts == 0, -torch.inf)
