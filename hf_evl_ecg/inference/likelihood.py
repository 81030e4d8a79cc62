"""How likely a model finds given answers: a forward pass each, or the prompt and its image read once for all of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.chat.batches import prompt_inputs
from hf_evl_ecg.chat.conversations import Turn, chat_messages, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import base_model, eval_mode, move_batch
from hf_evl_ecg.padded import front_mask, promote
from hf_evl_ecg.tokens import IGNORE

__all__ = ["answer_token_ids", "label_likelihoods", "option_log_likelihoods"]


def answer_token_ids(processor: Any, answers: Sequence[str], *, system: str | None = None) -> list[list[int]]:
    """Tokens that follow the generation prompt when a model gives each answer, end of turn included.

    Args:
        processor: The model's processor.
        answers: Texts such as ``"yes"``.
        system: System message of the chat.

    Raises:
        ValueError: If there is no answer, or an empty one.
    """
    if not answers or not all(answer.strip() for answer in answers):
        raise ValueError(f"answers={list(answers)}: at least one is needed and none may be empty.")
    # In a chat, not alone: the template decides about a space before the answer and the token after it.
    chats = [render_chat(processor, chat_messages([Turn("?", a)], system=system, images=0)) for a in answers]
    labels = encode_chats(processor, chats, None, records=list(answers))["labels"]
    return [row[row != IGNORE].tolist() for row in labels]


def label_likelihoods(
    model: nn.Module, batch: Mapping[str, Any], candidates: Sequence[Sequence[int]], pad_token_id: int
) -> Tensor:
    """Log-likelihood of each candidate as the first answer of each sample, in nats; one forward pass per candidate.

    Args:
        model: The model, not a distributed wrapper around it.
        batch: From `EVLECGCollator`.
        candidates: Token ids, from `answer_token_ids`.
        pad_token_id: The padding token.

    Returns:
        Sum over a candidate's tokens. Shape: (B, number of candidates), float32. Its softmax is a distribution over the candidates.
    """
    prompt = move_batch(prompt_inputs(batch, pad_token_id), model)
    columns = []
    with torch.no_grad(), eval_mode(model):
        for candidate in candidates:
            inputs, labels = _with_answer(prompt, candidate)
            features = extract_features(model, inputs, labels, FeatureRequest(visual=False))
            assert features.answer_logits is not None
            columns.append(_log_probabilities(features.answer_logits, labels[:, -len(candidate) :]).sum(1))
    return torch.stack(columns, 1)


@torch.no_grad()
def option_log_likelihoods(
    model: nn.Module, batch: Mapping[str, Any], options: Sequence[Sequence[Sequence[int]]], pad_token_id: int
) -> Tensor:
    """Log-likelihood of options, of which each sample has its own, as whole first answers, the end of the turn included.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        batch: From `EVLECGCollator`.
        options: Token ids of each option of each sample, from `answer_token_ids`.
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
    with eval_mode(model):
        output, last_position = _read(model, prompt)
        cache, mask = output.past_key_values, prompt["attention_mask"]
        columns = []
        for number in range(max(map(len, options))):
            own = [list(o[number]) if number < len(o) else [] for o in options]
            columns.append(_continue(model, mask, cache, last_position, output.logits[:, -1:], own))
    return torch.stack(columns, 1)


def _log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token under its logits, at least float32. Shapes: (B, A, V), (B, A) → (B, A)."""
    return F.log_softmax(promote(logits), -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _with_answer(prompt: Mapping[str, Any], candidate: Sequence[int]) -> tuple[dict[str, Any], Tensor]:
    """Left-padded prompts followed by one answer, and labels on that answer."""
    ids = prompt["input_ids"]
    answer = torch.tensor(list(candidate), device=ids.device).expand(ids.shape[0], -1)
    inputs = {}
    for name, value in prompt.items():
        if isinstance(value, Tensor) and value.shape == ids.shape:
            fill = 1 if name == "attention_mask" else 0
            tail = answer if name == "input_ids" else torch.full_like(answer, fill)
            value = torch.cat([value, tail.to(value.dtype)], 1)
        inputs[name] = value
    return inputs, torch.cat([torch.full_like(ids, IGNORE), answer], 1)


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
        output = model(
            **prompt, use_cache=True, logits_to_keep=1
        )  # left-padded: the last position is everyone's prompt end
    finally:
        handle.remove()
    return output, None if positions[0] is None else positions[0][..., -1:]


def _continue(
    model: nn.Module,
    prompt_mask: Tensor,
    cache: Any,
    last_position: Tensor | None,
    first_logits: Tensor,
    answers: Sequence[list[int]],
) -> Tensor:
    """Log-likelihood of one answer per sample after a read prompt, -inf where it has no tokens. Shape: (B,)."""
    device = prompt_mask.device
    counts = torch.tensor([len(answer) for answer in answers], device=device)
    width = int(counts.max())
    ids = torch.tensor([answer + [0] * (width - len(answer)) for answer in answers], device=device)
    mask = front_mask(counts, width)
    scores = [_log_probabilities(first_logits, ids[:, :1])]
    if width > 1:
        steps = torch.arange(1, width, device=device)
        output = model(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([prompt_mask, mask[:, :-1].to(prompt_mask)], 1),
            past_key_values=copy.deepcopy(
                cache
            ),  # a forward pass appends to it in place; the next option needs it whole
            use_cache=True,
            **({} if last_position is None else {"position_ids": last_position + steps}),
        )
        scores.append(_log_probabilities(output.logits, ids[:, 1:]))
    return torch.cat(scores, 1).masked_fill(~mask, 0).sum(1).masked_fill(counts == 0, -torch.inf)
