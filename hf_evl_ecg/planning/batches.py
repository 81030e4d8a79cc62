"""How many tokens a page and its chat take in a model, by its own processor, and a batch of such examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import chat_messages, read_turns, render_chat
from hf_evl_ecg.chat.encoding import encode_chats, image_tokens
from hf_evl_ecg.tokens import IGNORE

__all__ = ["PAGE", "TextBudget", "TokenBudget", "example_batch", "measure_budget", "measure_text"]


PAGE = {
    "id": "page",
    "record": "NORM/0",
    "storage": "simulated",
    "root": "",
    "question": "Rhythm?",
    "answer": "sinus rhythm",
}
"""An example with a page that is drawn from nothing on disk, and the shortest of chats."""


@dataclass(frozen=True)
class TextBudget:
    """Tokens of a chat beside its page.

    Attributes:
        text: Tokens of template, question and answer.
        answer: Of these, tokens with a label.
    """

    text: int
    answer: int


@dataclass(frozen=True)
class TokenBudget:
    """Tokens of one example in one model.

    Attributes:
        image: Image tokens of a page.
        page: All tokens that the page adds to a chat: image tokens, and those around and between them.
        least_text: Tokens of a chat with the shortest question and answer.
    """

    image: int
    page: int
    least_text: int


def measure_budget(
    processor: Any, load_image: Callable[[Mapping[str, Any]], Any], system_prompt: str | None = None
) -> TokenBudget:
    """Let a processor read one page, and count.

    Args:
        processor: A processor of a vision-language model.
        load_image: Example → picture, such as `hf_evl_ecg.data.rendered.RenderedECG`; all its pages have one size.
        system_prompt: System message of the chat.

    Example:
        >>> from hf_evl_ecg.data.rendered import RenderedECG
        >>> from hf_evl_ecg.drawing.config import RenderConfig
        >>> measure_budget(processor, RenderedECG(RenderConfig(width_px=440, height_px=340)))  # Idefics3, four tiles and one
        TokenBudget(image=20, page=33, least_text=34)
    """
    batch = EVLECGCollator(processor, load_image=load_image, system_prompt=system_prompt).check([PAGE])
    bare = render_chat(processor, chat_messages(read_turns(PAGE, "page"), system=system_prompt, images=0))
    without = encode_chats(processor, [bare], None, records=["page"], max_length=None, padding_side="right")
    known = torch.tensor(list(image_tokens(processor).values()))
    whole, text = batch["input_ids"].shape[1], without["input_ids"].shape[1]
    return TokenBudget(int(torch.isin(batch["input_ids"], known).sum()), whole - text, text)


def measure_text(
    processor: Any,
    questions: Sequence[Mapping[str, Any]],
    load_image: Callable[[Mapping[str, Any]], Any],
    page: int,
    system_prompt: str | None = None,
) -> TextBudget:
    """The longest chat and the most answer tokens among some questions.

    Args:
        processor: A processor of a vision-language model.
        questions: Questions of a data set.
        load_image: As in `measure_budget`.
        page: `TokenBudget.page` of the same pages.
        system_prompt: System message of the chats.
    """
    collator = EVLECGCollator(processor, load_image=load_image, system_prompt=system_prompt)
    batches = [collator.check([question]) for question in questions]
    text = max(batch["input_ids"].shape[1] for batch in batches) - page
    return TextBudget(text, max(int((batch["labels"] != IGNORE).sum()) for batch in batches))


def example_batch(
    processor: Any,
    load_image: Callable[[Mapping[str, Any]], Any],
    budget: TokenBudget,
    text: TextBudget,
    batch_size: int,
    *,
    system_prompt: str | None = None,
    max_length: int | None = None,
    side: str = "",
) -> dict[str, Tensor]:
    """Inputs, labels and places of a batch in which every example has the same page and as many tokens as a budget says.

    Args:
        processor: A processor of a vision-language model.
        load_image: As in `measure_budget`.
        budget: What it counted.
        text: Tokens beside the page.
        batch_size: Examples.
        system_prompt: System message of the chats.
        max_length: Longest input in tokens; text is cut, as the collator does.
        side: Beginning of the names of options in errors: ``""`` or ``"teacher_"``.

    Raises:
        ValueError: The budget is too small for the chat template, or ``max_length`` for the page.
    """
    length = budget.page + text.text
    if max_length is not None and length > max_length:
        length = max_length
    if length < budget.page + budget.least_text:
        if length == budget.page + text.text:
            raise ValueError(
                f"text_tokens={text.text}: must be at least {budget.least_text}, which the shortest chat of {type(processor).__name__} "
                "takes (raise it)"
            )
        raise ValueError(
            f"{side}max_length={max_length}: must be at least {budget.page + budget.least_text}, as an image is never cut (raise it)"
        )
    answer = min(text.answer, length - budget.page - 1)
    collated = EVLECGCollator(processor, load_image=load_image, system_prompt=system_prompt).check([PAGE])
    one = {name: value for name, value in collated.items() if isinstance(value, Tensor)}
    shape = one["input_ids"].shape
    for name, value in one.items():
        if value.shape[:2] == shape:  # one entry per token: more text, of the kind that the chat ends with
            more = value[:, -1:].expand(1, length - shape[1], *value.shape[2:])
            one[name] = torch.cat([value, more], 1)
    one["labels"] = torch.where(torch.arange(length) < length - answer, IGNORE, one["input_ids"])
    return {name: torch.cat([value] * batch_size) for name, value in one.items()}
