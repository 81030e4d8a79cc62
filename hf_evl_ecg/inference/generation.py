"""What a model answers to a collated batch: by generating text, and by the likelihood of given answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_evl_ecg.chat.conversations import Turn, chat_messages, render_chat, special_tokens
from hf_evl_ecg.chat.encoding import encode_chats, select_tokens
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.tokens import IGNORE

__all__ = [
    "BESIDE_MODEL_INPUTS",
    "answer_token_ids",
    "first_answer",
    "generate_answers",
    "generate_ids",
    "label_likelihoods",
    "prompt_inputs",
]

BESIDE_MODEL_INPUTS = ("labels", "teacher", "groups", "keys", "skipped")
"""What a batch of `EVLECGCollator` holds beside the arguments of the student's forward pass."""


def prompt_inputs(batch: Mapping[str, Any], pad_token_id: int) -> dict[str, Any]:
    """Model inputs up to the first answer of each sample, padded on the left.

    Args:
        batch: From `EVLECGCollator`.
        pad_token_id: The student's padding token.
    """
    keep = batch["attention_mask"].bool() & ((batch["labels"] != IGNORE).cumsum(1) == 0)
    inputs = {name: value for name, value in batch.items() if name not in BESIDE_MODEL_INPUTS}
    return select_tokens(inputs, keep, pad_token_id, "left")


def first_answer(labels: Tensor) -> Tensor:
    """Token ids of the first answer of each sample, front-aligned, -100 elsewhere; a second one follows a question.

    Args:
        labels: From `EVLECGCollator`. Shape: (B, T).

    Example:
        >>> first_answer(torch.tensor([[-100, 5, 6, -100, 7], [-100, -100, 8, -100, -100]]))
        tensor([[   5,    6],
                [   8, -100]])
    """
    labelled = labels != IGNORE
    begins = labelled & ~F.pad(labelled, (1, 0))[:, :-1]
    first = labelled & (begins.cumsum(1) == 1)
    order = first.int().argsort(dim=1, descending=True, stable=True)
    return labels.masked_fill(~first, IGNORE).gather(1, order)[:, : int(first.sum(1).max())]


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
    special = set(tokenizer.convert_tokens_to_ids(sorted(special_tokens(tokenizer))))
    last = {int(row[row != IGNORE][-1]) for row in batch["labels"] if (row != IGNORE).any()}
    stop = sorted((last & special) | ({tokenizer.eos_token_id} - {None}))
    inputs = _on_device(prompt_inputs(batch, tokenizer.pad_token_id), model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output: Any = model.generate(  # type: ignore[operator]
                **inputs,
                **{"do_sample": False, **options},
                max_new_tokens=max_new_tokens,
                eos_token_id=stop,
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,
            )
    finally:
        model.train(was_training)
    return output[:, inputs["input_ids"].shape[1] :]


def generate_answers(
    model: nn.Module, batch: Mapping[str, Any], tokenizer: Any, *, max_new_tokens: int = 64, **options: Any
) -> list[str]:
    """Generate the first answer of each sample as text, without special tokens; arguments as in `generate_ids`."""
    ids = generate_ids(model, batch, tokenizer, max_new_tokens=max_new_tokens, **options)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


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
    chats = [render_chat(processor, chat_messages([Turn("?", a)], system=system, images=0)) for a in answers]
    labels = encode_chats(processor, chats, None, records=list(answers))["labels"]
    return [row[row != IGNORE].tolist() for row in labels]


def label_likelihoods(
    model: nn.Module,
    batch: Mapping[str, Any],
    candidates: Sequence[Sequence[int]],
    pad_token_id: int,
    *,
    per_token: bool = False,
) -> Tensor:
    """Log-likelihood of each candidate as the first answer of each sample, in nats; one forward pass per candidate.

    Args:
        model: The model, not a distributed wrapper around it.
        batch: From `EVLECGCollator`.
        candidates: Token ids, from `answer_token_ids`.
        pad_token_id: The padding token.
        per_token: Mean over the candidate's tokens instead of their sum, so that long labels are no worse off.

    Returns:
        Shape: (B, number of candidates), float32. Its softmax is a distribution over the candidates.
    """
    prompt = _on_device(prompt_inputs(batch, pad_token_id), model)
    columns = []
    was_training = model.training
    model.eval()
    try:
        for candidate in candidates:
            inputs, labels = _with_answer(prompt, candidate)
            with torch.no_grad():
                features = extract_features(model, inputs, labels, FeatureRequest(visual=False))
            assert features.answer_logits is not None
            target = labels[:, -len(candidate) :].unsqueeze(-1)
            scores = F.log_softmax(features.answer_logits.float(), -1).gather(-1, target).squeeze(-1)
            columns.append(scores.mean(1) if per_token else scores.sum(1))
    finally:
        model.train(was_training)
    return torch.stack(columns, 1)


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


def _on_device(inputs: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
