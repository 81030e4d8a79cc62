"""Rendered chats and images → tensors of any processor, with labels on the answers only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from hf_evl_ecg.tokens import IGNORE, PADDING_PLACE

from .conversations import ChatTemplateError, ChatText, ExampleError, Turn, chat_messages, render_chat
from .places import token_places

__all__ = [
    "MissingImageTokensError",
    "TruncatedImageError",
    "check_processor",
    "encode_chats",
    "image_tokens",
    "select_tokens",
]


class TruncatedImageError(ExampleError):
    """Image tokens, or the whole answer, that would fall behind the maximal length."""


class MissingImageTokensError(ExampleError):
    """A processor whose chat template leaves the image out of the prompt."""


def encode_chats(
    processor: Any,
    chats: Sequence[ChatText],
    images: Sequence[Image.Image] | None,
    *,
    records: Sequence[str],
    max_length: int | None = None,
    padding_side: str = "right",
) -> dict[str, Tensor]:
    """Tokenise chats with one image each and label the answers.

    Args:
        processor: Any processor with a fast tokenizer.
        chats: Rendered chats with the characters to learn.
        images: One per chat, or None for text only.
        records: Names for error messages.
        max_length: Cut longer inputs at their end.
        padding_side: ``"right"`` or ``"left"``.

    Returns:
        The processor's tensors, ``labels``, -100 outside the answers, and ``places``, which say where each token's text
        stands (`hf_evl_ecg.chat.places`). Shapes of these two: (B, T), (B, T, 2).

    Raises:
        MissingImageTokensError: If there are no image tokens for an image.
        TruncatedImageError: If ``max_length`` cuts image tokens, leaves nothing of the answer, or cuts a question that has
            none.
    """
    if images is not None:
        _check_placeholders(processor, chats, records)
    bos = processor.tokenizer.bos_token
    written = bos is not None and all(chat.text.startswith(bos) for chat in chats)  # by the template: not once more
    encoded = processor(
        text=[chat.text for chat in chats],
        **({"add_special_tokens": False} if written else {}),
        **({} if images is None else {"images": [[image] for image in images]}),
        padding=True,
        padding_side=padding_side,
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    offsets = encoded.pop("offset_mapping")
    batch: dict[str, Tensor] = dict(encoded)
    batch["labels"] = _labels(batch["input_ids"], offsets, chats)
    marks = image_tokens(processor)
    is_image = torch.isin(batch["input_ids"], torch.tensor(list(marks.values())))
    read = batch["input_ids"] == marks.get(_read_image_token(processor), -1)  # not the one that only marks it in a chat
    batch["places"] = token_places(chats, offsets, batch["attention_mask"], read, marks)
    if images is not None:
        _check_image_tokens(is_image, batch["labels"], records, type(processor).__name__)
    keep = batch["attention_mask"].bool()
    if max_length is not None and int(keep.sum(1).max()) > max_length:
        keep &= keep.cumsum(1) <= max_length
        _check_cut(keep, batch["attention_mask"].bool(), is_image, batch["labels"], records, max_length)
        batch = select_tokens(batch, keep, processor.tokenizer.pad_token_id, padding_side)
    return batch


def select_tokens(
    batch: Mapping[str, Any], keep: Tensor, pad_token_id: int, padding_side: str = "right"
) -> dict[str, Any]:
    """Keep some tokens of each sample and pad again; image tensors stay as they are.

    Args:
        batch: Model inputs with ``input_ids``; ``places`` and every tensor of its shape are cut alike.
        keep: Shape: (B, T), bool.
        pad_token_id: What to fill ``input_ids`` with; ``labels`` are filled with -100, ``places`` with -3, all else with 0.
        padding_side: ``"right"`` or ``"left"``.
    """
    length = int(keep.sum(1).max())
    order = keep.int().argsort(dim=1, descending=padding_side == "right", stable=True)  # kept tokens stay in order
    index = order[:, :length] if padding_side == "right" else order[:, order.shape[1] - length :]
    valid = keep.gather(1, index)
    fill = {"input_ids": pad_token_id, "labels": IGNORE}
    selected = {
        name: value.gather(1, index).masked_fill(~valid, fill.get(name, 0))
        if isinstance(value, Tensor) and value.shape == keep.shape
        else value
        for name, value in batch.items()
    }
    if "places" in batch:
        places = batch["places"].gather(1, index.unsqueeze(2).expand(-1, -1, 2))
        selected["places"] = places.masked_fill(~valid.unsqueeze(2), PADDING_PLACE)
    return selected


def _labels(input_ids: Tensor, offsets: Tensor, chats: Sequence[ChatText]) -> Tensor:
    """Token ids where a token overlaps an answer, -100 elsewhere.

    Processors lengthen the text where they expand the image token. All images come before the first answer, so the
    answers keep their distance from the end of the text.
    """
    labels = torch.full_like(input_ids, IGNORE)
    starts, ends = offsets.unbind(-1)
    for row, chat in enumerate(chats):
        shift = int(ends[row].max()) - len(chat.text)
        for start, end in chat.spans:
            inside = (ends[row] > start + shift) & (starts[row] < end + shift) & (ends[row] > starts[row])
            labels[row, inside] = input_ids[row, inside]
    return labels


def image_tokens(processor: Any) -> dict[str, int]:
    """Tokens that stand for an image, and their ids: one, or with Gemma 3 that of a chat and that of the model's input."""
    own = processor.image_token
    written = getattr(processor, "boi_token", None) or own
    tokens = (own, written, _read_image_token(processor))
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in tokens}
    return {token: number for token, number in ids.items() if number is not None}


def _read_image_token(processor: Any) -> str:
    """The token in whose place a model reads a feature of the image."""
    return getattr(processor.tokenizer, "image_token", None) or processor.image_token


def _check_placeholders(processor: Any, chats: Sequence[ChatText], records: Sequence[str]) -> None:
    """Raise unless each chat shows its image once, before the first answer."""
    for row, (chat, record) in enumerate(zip(chats, records, strict=True)):
        count = sum(chat.text.count(token, 0, chat.prompt_end) for token in image_tokens(processor))
        if count != 1 or processor.image_token_id is None:
            raise MissingImageTokensError(
                record,
                f"{type(processor).__name__} put {count} {processor.image_token!r} before the answer where one is "
                "needed; its chat template must render {'type': 'image'} as that token, and the model must be a "
                "vision-language model.",
                row,
            )


def _check_image_tokens(is_image: Tensor, labels: Tensor, records: Sequence[str], name: str) -> None:
    """Raise unless each sample has image tokens, all before its first answer: a processor may swallow its placeholder."""
    answered = (labels != IGNORE).cumsum(1) > 0
    for row in ((is_image.sum(1) == 0) | (is_image & answered).any(1)).nonzero().flatten().tolist():
        raise MissingImageTokensError(
            records[row],
            f"{name} gives {int(is_image[row].sum())} image tokens, {int((is_image & answered)[row].sum())} of them behind "
            "the first answer; at least one is needed, and all before it.",
            row,
        )


def _check_cut(
    keep: Tensor, mask: Tensor, is_image: Tensor, labels: Tensor, records: Sequence[str], max_length: int
) -> None:
    """Raise if a cut takes image tokens, the whole answer, or anything where there is no answer."""
    for row, record in enumerate(records):
        lost, total = int((is_image[row] & ~keep[row]).sum()), int(is_image[row].sum())
        if lost:
            raise TruncatedImageError(
                record,
                f"max_length={max_length} would cut {lost} of {total} image tokens; raise it or shrink the image.",
                row,
            )
        if not (labels[row] != IGNORE).any():
            if lost_text := int((mask[row] & ~keep[row]).sum()):
                raise TruncatedImageError(
                    record,
                    f"max_length={max_length} would cut {lost_text} tokens of a question without answer; raise it or "
                    "shorten the question.",
                    row,
                )
        elif not (labels[row, keep[row]] != IGNORE).any():
            raise TruncatedImageError(
                record, f"max_length={max_length} leaves nothing of the answer; raise it or shorten the question.", row
            )


def _check_whole_page(processor: Any) -> None:
    """Refuse a processor that shortens a page to a square: of 11 × 8.5 inches it would leave 77 %, in silence."""
    images = processor.image_processor
    options = images.to_dict()  # which options there are differs between image processors
    cuts = options.get("do_center_crop") and (options.get("size") or {}).get("shortest_edge")
    if cuts and not options.get("image_grid_pinpoints"):
        edge = (options.get("crop_size") or {}).get("height", cuts)
        raise ChatTemplateError(
            f"{type(images).__name__} cuts the middle out of a page (do_center_crop), and leads at its edges are lost; set "
            f"processor.image_processor.do_center_crop = False and .size = {{'height': {edge}, 'width': {edge}}}, which shows the "
            "whole page, or take another model"
        )


def check_processor(processor: Any, system: str | None = None) -> None:
    """Encode a test question and read its answer back from the labels.

    Raises:
        ChatTemplateError: If that fails, if the object is no processor for images and text, if it cuts pages, or if its
            tokenizer is slow or has no padding token.
    """
    name = type(processor).__name__
    if not isinstance(processor, ProcessorMixin) or not isinstance(getattr(processor, "image_token", None), str):
        raise ChatTemplateError(f"{name} is no processor for images and text; load it with AutoProcessor.")
    _check_whole_page(processor)
    if not processor.tokenizer.is_fast:
        raise ChatTemplateError(f"the tokenizer of {name} is slow; only fast tokenizers tell where a token comes from.")
    if processor.tokenizer.pad_token_id is None:
        raise ChatTemplateError(f"the tokenizer of {name} has no padding token; set tokenizer.pad_token.")
    turns = (Turn("Is the rhythm regular?", "yes"), Turn("And the rate?", "72 per minute"))
    for number in (1, 2):  # some templates treat the last answer otherwise than those before it
        chat = render_chat(processor, chat_messages(turns[:number], system=system, images=0))
        try:
            labels = encode_chats(processor, [chat], None, records=["test"])["labels"][0]
        except ValueError as error:  # PaliGemma's takes one image, one prefix and one suffix, and no chat
            raise ChatTemplateError(
                f"{name} does not encode a chat of several turns as text ({error}); use another model"
            ) from error
        found = processor.tokenizer.decode(labels[labels != IGNORE], skip_special_tokens=True)
        expected = "".join(turn.answer for turn in turns[:number])
        if re.sub(r"\s", "", found) != re.sub(r"\s", "", expected):  # tokenizers add a space before a word, or drop one
            raise ChatTemplateError(
                f"{name} encodes a chat so that its answer {expected!r} reads {found!r} from the labels; its chat "
                "template and tokenizer do not fit together."
            )
