"""How likely a model finds given answers: a forward pass each, or the prompt and its image read once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_evl_ecg.chat.batches import prompt_inputs
from hf_evl_ecg.chat.conversations import Turn, chat_messages, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import eval_mode, move_batch
from hf_evl_ecg.tokens import IGNORE

from .reading import log_probabilities, option_scores, read_prompt

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
            columns.append(log_probabilities(features.answer_logits, labels[:, -len(candidate) :]).sum(1))
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
        scores = option_scores(model, read_prompt(model, prompt), options, rows=size)
    width = max(map(len, options))
    return torch.tensor(
        [[*own, *[-torch.inf] * (width - len(own))] for own in scores], device=prompt["input_ids"].device
    )


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
