"""Several questions about one image, which is read once: each question goes on from the same reading of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from hf_evl_ecg.chat.batches import prompt_inputs
from hf_evl_ecg.chat.conversations import ChatText, Turn, chat_messages, render_chat, special_tokens
from hf_evl_ecg.chat.encoding import encode_chats, image_tokens
from hf_evl_ecg.models.native import eval_mode, image_token_id
from hf_evl_ecg.tokens import IGNORE

from .reading import option_scores, read_on, read_prompt

__all__ = [
    "BLANK",
    "ImageQuestion",
    "WordsAfterImage",
    "question_follows_image",
    "scores_after_images",
    "tokens_after_image",
]

BLANK = Image.new("RGB", (224, 224), "white")  # the words after an image are the same for every image


@dataclass(frozen=True)
class ImageQuestion:
    """A question about an image of a batch, and answers to it.

    Attributes:
        image: Which sample of the batch shows the image.
        words: Tokens from behind the image to where the answer begins, at least two; from `WordsAfterImage`.
        answers: Tokens of each answer, from `hf_evl_ecg.inference.likelihood.answer_token_ids`.
    """

    image: int
    words: Sequence[int]
    answers: Sequence[Sequence[int]]


def question_follows_image(processor: Any, system: str | None = None) -> bool:
    """Whether a chat template shows nothing of a question before its image, so that questions can share one reading of it.

    Args:
        processor: A model's processor.
        system: System message of the chat.
    """
    heads = set()
    for question in ("Is the rhythm regular?", "What is the axis?"):
        chat = render_chat(processor, chat_messages([Turn(question, "yes")], system=system))
        heads.add(chat.text[: _image_end(chat, processor)])
    return len(heads) == 1


class WordsAfterImage:
    """Tokens from the image to the first answer of any chat, without an image.

    What a processor itself puts behind an image is learnt once from a blank one. Where that ends in text, which a tokenizer
    may join with the words that follow, every chat is encoded with the blank image.

    Args:
        processor: A model's processor.
        system: System message of the chats.

    Raises:
        ChatTemplateError: At a call, if the template alters the answer.
        ExampleError: At a call, if the processor has no image tokens for an image.

    Example:
        >>> words = WordsAfterImage(processor)([Turn("Is the rhythm regular?", "yes")])
        >>> processor.tokenizer.decode(words[-8:])
        'Assistant:'
    """

    def __init__(self, processor: Any, system: str | None = None) -> None:
        self.processor = processor
        self.system = system

    def __call__(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of one chat."""
        lead = self._lead
        return self._behind_blank(turns) if lead is None else [*lead, *self._bare(turns)]

    @cached_property
    def _lead(self) -> list[int] | None:
        """What the processor puts behind an image; None if the words may merge with it."""
        turns = [Turn("Is the rhythm regular?", "yes")]
        whole, bare = self._behind_blank(turns), self._bare(turns)
        lead = whole[: len(whole) - len(bare)]
        tokenizer = self.processor.tokenizer
        apart = not lead or tokenizer.convert_ids_to_tokens(lead[-1]) in special_tokens(tokenizer)
        return lead if apart and [*lead, *bare] == whole else None

    def _behind_blank(self, turns: Sequence[Turn]) -> list[int]:
        chat = render_chat(self.processor, chat_messages(turns, system=self.system))
        encoded = encode_chats(self.processor, [chat], [BLANK], records=[turns[0].question])
        return tokens_after_image(encoded["input_ids"][0], encoded["labels"][0], self.processor)

    def _bare(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of the chat's text behind its image, as they stand behind any special token."""
        chat = render_chat(self.processor, chat_messages(turns, system=self.system))
        before = self.processor.image_token
        shift = len(before) - _image_end(chat, self.processor)
        encoded = self.processor.tokenizer(
            before + chat.text[len(before) - shift :], add_special_tokens=False, return_offsets_mapping=True
        )
        offsets = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [number for number, (_, end) in offsets if len(before) < end <= chat.spans[0][0] + shift]


def tokens_after_image(input_ids: Tensor, labels: Tensor, processor: Any) -> list[int]:
    """Tokens of one sample from behind its image to its first answer.

    Args:
        input_ids: From `hf_evl_ecg.chat.encoding.encode_chats`. Shape: (T,).
        labels: From there too. Shape: (T,).
        processor: The processor that encoded them.
    """
    image = torch.isin(input_ids, torch.tensor(list(image_tokens(processor).values()))).nonzero()[:, 0]
    answer = (labels != IGNORE).nonzero()[:, 0]
    return input_ids[int(image[-1]) + 1 : int(answer[0])].tolist()


@torch.no_grad()
def scores_after_images(
    model: nn.Module,
    batch: Mapping[str, Any],
    questions: Sequence[ImageQuestion],
    pad_token_id: int,
    rows: int,
) -> list[list[float]]:
    """Log-likelihood of answers to questions about the images of a batch, each of which is read once.

    An image is read up to the first token behind it, so that positions go on from a token of text (they do not from an
    image's in M-RoPE); questions that begin otherwise, which no usual chat template makes, read it again. Questions go on
    from there together where they are equally long, without padding, which layers with a window or a state would count.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        batch: From `hf_evl_ecg.chat.collator.EVLECGCollator`; what stands behind its images does not matter.
        questions: What is asked.
        pad_token_id: The padding token.
        rows: Most questions, and then most answers, in one forward pass; the caches of images, questions and answers are
            held at once.

    Returns:
        For each question the sum over each answer's tokens, in nats.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    behind = (ids == image_token_id(model)).flip(1).cumsum(1).flip(1) == 0
    first = behind & (behind.cumsum(1) == 1)
    labels = torch.where(behind & ~first & mask, ids, IGNORE)
    scores: list[list[float]] = [[] for _ in questions]
    with eval_mode(model):
        for token in dict.fromkeys(question.words[0] for question in questions):
            prompt = {**batch, "input_ids": torch.where(first, token, ids), "labels": labels}
            images = read_prompt(model, prompt_inputs(prompt, pad_token_id))
            for chunk in _chunks(questions, token, rows):
                own = [questions[number] for number in chunk]
                words = torch.tensor([question.words[1:] for question in own], device=ids.device)
                index = torch.tensor([question.image for question in own], device=ids.device)
                asked = read_on(model, images.rows(index), words)
                found = option_scores(model, asked, [question.answers for question in own], rows)
                for number, values in zip(chunk, found, strict=True):
                    scores[number] = values
    return scores


def _chunks(questions: Sequence[ImageQuestion], token: int, rows: int) -> list[list[int]]:
    """Numbers of the questions that begin with a token, in groups of equal length and at most ``rows`` members."""
    of_length: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        if question.words[0] == token and question.answers:
            of_length.setdefault(len(question.words), []).append(number)
    return [group[i : i + rows] for group in of_length.values() for i in range(0, len(group), rows)]


def _image_end(chat: ChatText, processor: Any) -> int:
    """Where the image's token ends in a rendered chat, 0 if there is none before the first answer."""
    text = chat.text[: chat.prompt_end]
    return max((text.rfind(token) + len(token) for token in image_tokens(processor) if token in text), default=0)
