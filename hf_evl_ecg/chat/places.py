"""Where the text of each token stands in its conversation: in which turn, and at which byte of what both models read there.

Two models see the same questions and answers between marks of their own and cut them into other tokens. The bytes of the
shared texts are what their tokens can be compared by: a student's ``rhythm`` and a teacher's ``▁rhy`` start at the same byte
of the same turn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from hf_evl_ecg.tokens import IMAGE_TURN, NO_TURN, PADDING_PLACE

from .conversations import ChatText

__all__ = ["token_places"]


def token_places(
    chats: Sequence[ChatText], offsets: Tensor, mask: Tensor, is_image: Tensor, image_marks: Collection[str] = ()
) -> Tensor:
    """Turn and byte at which the text of each token starts.

    The bytes of a turn are those of its question, one place for the marks between question and answer (such as
    ``ASSISTANT:``), those of its answer, and one for the marks after it (the end of the turn, the next ``USER:``), each text
    counted from its first visible character. A token starts at its first visible character of a question or answer, so that
    ``▁rhythm``, ``Ġrhythm`` and ``rhythm`` agree; one of white space alone stays where it is, as it has read no further.
    Tokens that share a character (``<0xC3><0xA9>``) follow each other. A question that a template alters counts as marks
    before the answer.

    Args:
        chats: Rendered chats.
        offsets: Character range of each token in the text that the processor read. Shape: (B, T, 2).
        mask: Non-zero at tokens, zero at padding on either side. Shape: (B, T).
        is_image: True at image tokens. Shape: (B, T), bool.
        image_marks: Texts that stand for the image in a chat; the processor may have lengthened the text there.

    Returns:
        Turn, counted from 0, and byte. An image token has the turn ``IMAGE_TURN``, what comes before the first question
        (beginning of the text, system prompt) ``NO_TURN``; padding is ``PADDING_PLACE``. Shape: (B, T, 2), int64.

    Example:
        >>> from hf_evl_ecg.chat.conversations import TurnRanges
        >>> chat = ChatText("U:Why? A: no</s>", ((9, 16),), (TurnRanges((2, 6), (10, 12), 4),))
        >>> offsets = torch.tensor([[[0, 2], [2, 5], [5, 6], [6, 9], [9, 12], [12, 16]]])
        >>> token_places([chat], offsets, torch.ones(1, 6), torch.zeros(1, 6, dtype=torch.bool))[0].tolist()
        [[-2, 0], [0, 0], [0, 3], [0, 4], [0, 5], [0, 7]]
    """
    rows = [
        _row_places(chat, row.numpy(), own.numpy().astype(bool), image_marks)
        for chat, row, own in zip(chats, offsets, mask, strict=True)
    ]
    places = torch.from_numpy(np.stack(rows))
    places[is_image] = torch.tensor([IMAGE_TURN, 0])
    return places.masked_fill(~mask.bool().unsqueeze(2), PADDING_PLACE)


def _row_places(chat: ChatText, offsets: np.ndarray, mask: np.ndarray, image_marks: Collection[str]) -> np.ndarray:
    """Places of one chat's tokens. Shapes: (T, 2), (T,) → (T, 2)."""
    turn, byte, size, visible = _character_places(chat)
    starts, ends = _without_image(chat.text, offsets, image_marks)
    following = np.append(visible, len(visible))  # index of the next visible character
    starts = np.where(following[starts] < ends, following[starts], starts)
    # Tokens without text (a beginning of text that a tokenizer adds) go with the one before them.
    has_text = mask & (offsets[:, 0] < offsets[:, 1])
    carrier = np.maximum.accumulate(np.where(has_text, np.arange(len(starts)), -1))
    places = np.stack([turn[starts], byte[starts]], axis=1)
    pieces = has_text & (following[starts] == starts) & (size[starts] > 1)
    for at in 1 + (pieces[1:] & pieces[:-1] & (starts[1:] == starts[:-1])).nonzero()[0]:  # of the character before
        places[at, 1] = min(places[at - 1, 1] + 1, byte[starts[at]] + size[starts[at]] - 1)
    return np.where(carrier[:, None] < 0, (NO_TURN, 0), places[carrier])


def _character_places(chat: ChatText) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each character and the end: its turn, byte, bytes, and the index of the next visible one of a question or answer."""
    length = len(chat.text)
    size = np.array([len(character.encode()) for character in chat.text] + [1])
    offset = np.concatenate([[0], np.cumsum(size[:-1])])
    turn, byte = np.full(length + 1, NO_TURN), np.zeros(length + 1, dtype=np.int64)
    visible = np.zeros(length + 1, dtype=bool)
    last = 0
    for number, ranges in enumerate(chat.turns):
        start, end = ranges.answer
        if ranges.question is None:
            turn[last:], byte[last:start] = number, ranges.question_bytes
        else:
            first, behind = ranges.question
            turn[first:] = number
            byte[first:behind] = offset[first:behind] - offset[first]
            byte[behind:start] = ranges.question_bytes
            visible[first:behind] = True
        byte[start:] = ranges.question_bytes + 1 + offset[start:] - offset[start]
        byte[end:] = byte[end]
        visible[start:end] = True
        last = chat.spans[number][1] if number < len(chat.spans) else length  # behind the end of the turn
    visible &= [not character.isspace() for character in chat.text] + [False]
    index = np.where(visible, np.arange(length + 1), length + 1)
    return turn, byte, size, np.minimum.accumulate(index[::-1])[::-1]


def _without_image(text: str, offsets: np.ndarray, image_marks: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ranges in the chat as it was rendered, before a processor wrote many image tokens in place of one."""
    image = min((at for at in map(text.find, image_marks) if at >= 0), default=0)
    longer = offsets[:, 1].max() - len(text)
    ranges = np.where(offsets < image, offsets, np.maximum(offsets - longer, image)).clip(0, len(text))
    return ranges[:, 0], ranges[:, 1]
