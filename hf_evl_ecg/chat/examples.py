"""One example for training or evaluation: what it is called, what a cache knows it by, its turns and its image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from .conversations import ExampleError, MissingAnswerError, Turn, read_turns
from .encoding import image_tokens

__all__ = [
    "InkLoader",
    "PreparedExample",
    "UnreadableImageError",
    "example_key",
    "is_answered",
    "prepare_example",
    "record_name",
]

# what PIL, wfdb and a reader of your own raise for a damaged file; SyntaxError is PIL's for a broken PNG
_IMAGE_FAILURES = (OSError, ValueError, KeyError, TypeError, SyntaxError, Image.DecompressionBombError)


class UnreadableImageError(ExampleError):
    """An image or record that cannot be opened, decoded or drawn."""


@runtime_checkable
class InkLoader(Protocol):
    """A ``load_image`` that knows where on its pages the traces are, as `hf_evl_ecg.data.rendered.RenderedECG` does."""

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The picture of an example."""

    def with_ink(self, example: Mapping[str, Any]) -> tuple[Image.Image, np.ndarray]:
        """The picture, and the trace's share of each cell of an even grid over it. Shape: (G, G), float32."""


@dataclass(frozen=True)
class PreparedExample:
    """An example that is ready for the processors; ``ink`` where it was asked for."""

    record: str
    key: str
    turns: tuple[Turn, ...]
    image: Image.Image
    ink: np.ndarray | None = None


def record_name(example: Mapping[str, Any]) -> str:
    """What an example is called in messages and in a cache: its ``id``, else its record or file name, with its source."""
    for field in ("id", "record", "image"):
        if isinstance(example.get(field), str | int | Path):
            source = example.get("source")
            return f"{source}:{example[field]}" if source else str(example[field])
    return "<no id>"


def example_key(example: Mapping[str, Any], *, unanswered: str = "refuse") -> str:
    """What a teacher cache knows an example by: 32 hexadecimal digits of its name, questions and answers.

    The answer belongs to it because a cache holds the teacher's states at the answer's tokens.

    Args:
        example: See `hf_evl_ecg.chat.collator.EVLECGCollator`.
        unanswered: See `hf_evl_ecg.chat.conversations.read_turns`.

    Raises:
        MissingAnswerError: If the example has no turns to learn from.
    """
    record = record_name(example)
    return _key(record, read_turns(example, record, unanswered=unanswered))


def is_answered(example: Mapping[str, Any]) -> bool:
    """Whether the last question of an example has an answer; True for one that is bad in another way.

    Example:
        >>> is_answered({"question": "Rhythm?", "answer": "AF"}), is_answered({"question": "Rhythm?", "answer": None})
        (True, False)
    """
    try:
        return read_turns(example, "", unanswered="use")[-1].answer != ""
    except MissingAnswerError:
        return True


def _key(record: str, turns: tuple[Turn, ...]) -> str:
    text = "\x1f".join(part for turn in turns for part in (turn.question, turn.answer))
    return hashlib.sha256(f"{record}\x1e{text}".encode()).hexdigest()[:32]


def prepare_example(
    example: Mapping[str, Any],
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    processors: Sequence[Any],
    cached_keys: Container[str] | None,
    ink_loader: InkLoader | None = None,
    *,
    unanswered: str = "refuse",
) -> PreparedExample:
    """Read the turns and the image of one example.

    Args:
        example: See `hf_evl_ecg.chat.collator.EVLECGCollator`.
        load_image: Example → PIL image.
        processors: Those that will encode it; their image tokens must not occur in its text.
        cached_keys: Keys that a teacher cache holds; None: no cache.
        ink_loader: Instead of ``load_image``, where the page's ink is wanted too.
        unanswered: See `hf_evl_ecg.chat.conversations.read_turns`.

    Raises:
        ExampleError: Naming the record and what is wrong with it.
    """
    record = record_name(example)
    turns = read_turns(example, record, unanswered=unanswered)
    for processor in processors:
        for token in image_tokens(processor):
            if any(token in text for turn in turns for text in (turn.question, turn.answer)):
                raise ExampleError(record, f"its text contains the image token {token!r}; remove it.")
    key = _key(record, turns)
    if cached_keys is not None and key not in cached_keys:
        raise ExampleError(
            record,
            f"the teacher's cache does not hold it (key {key}); write it with the same questions and answers.",
        )
    try:
        image, ink = (load_image(example), None) if ink_loader is None else ink_loader.with_ink(example)
    except _IMAGE_FAILURES as error:
        raise UnreadableImageError(record, f"no image: {type(error).__name__}: {error}") from error
    return PreparedExample(record, key, turns, image, ink)
