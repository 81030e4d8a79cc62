"""Questions gathered by the picture they are about, so that each picture is drawn, prepared and read once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ChatTemplateError, ExampleError, Turn
from hf_evl_ecg.chat.examples import example_key, prepare_example
from hf_evl_ecg.qa.items import QA_KEYS
from hf_evl_ecg.tokens import IGNORE

from .after_image import BLANK, WordsAfterImage, question_follows_image, tokens_after_image
from .digests import picture_digest

__all__ = ["OncePerPicture", "PictureBatch", "PictureCollator", "gather_by_picture", "picture_key"]

Item = Mapping[str, Any]
_ASKED = {*QA_KEYS, "conversations", "messages"} - {"record"}  # what belongs to a question, not to its picture


def picture_key(item: Item) -> str:
    """What two questions have in common if and only if they show one picture: all but question, answer and grading.

    Example:
        >>> picture_key({"record": "r1", "source": "ludb", "question": "Rhythm?", "answer": "AF"})
        '{"record": "r1", "source": "ludb"}'
    """
    place = {name: value for name, value in item.items() if name not in _ASKED}
    return json.dumps(place, sort_keys=True, default=lambda value: f"{type(value).__name__} {id(value)}")


def gather_by_picture(items: Iterable[Item]) -> list[list[Item]]:
    """Items in groups that share a picture, in the order of each group's first."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(picture_key(item), []).append(item)
    return list(groups.values())


class OncePerPicture:
    """Loads an image once for the questions that share it, if fewer than ``keep`` others come between them.

    Args:
        load_image: Item → PIL image.
        keep: Images to keep.

    Example:
        >>> load = OncePerPicture(lambda item: Image.new("RGB", (8, 8)), keep=1)
        >>> load({"record": "r1", "question": "Rhythm?"}) is load({"record": "r1", "question": "Axis?"})
        True
    """

    def __init__(self, load_image: Callable[[Item], Image.Image], keep: int) -> None:
        self.load_image = load_image
        self.keep = keep
        self._held: dict[str, tuple[Image.Image, str]] = {}

    def __call__(self, item: Item) -> Image.Image:
        """The image of an item."""
        key = picture_key(item)
        if key not in self._held:
            image = self.load_image(item)
            while len(self._held) >= self.keep:
                del self._held[next(iter(self._held))]
            self._held[key] = image, picture_digest(image)
        return self._held[key][0]

    def digest(self, item: Item) -> str:
        """`hf_evl_ecg.inference.digests.picture_digest` of an image that is kept."""
        return self._held[picture_key(item)][1]


@dataclass
class PictureBatch:
    """What one step of an evaluation asks.

    Attributes:
        asked: Number of questions it is made from, those that are skipped included.
        skipped: What was left out, and why.
        pictures: One question of each picture, collated; None if no picture is shared.
        words: Key of a question → row of its picture, and the tokens that follow it up to the answer.
        questions: Collated questions that are asked with an image of their own.
        digests: Key of a question → digest of its picture.
    """

    asked: int
    skipped: list[str] = field(default_factory=list)
    pictures: dict[str, Any] | None = None
    words: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


class PictureCollator:
    """Turns groups of questions, each about one picture, into a `PictureBatch`.

    A question whose words cannot follow a picture that was read for another one is asked with an image of its own: one that
    is too long for ``max_length``, is a bad example, or whose processor puts other tokens behind the image.

    Args:
        collator: Of single questions, with ``images`` as its ``load_image``.
        images: Keeps the images of a batch.
        share: Let questions share a reading of their picture.
        alone: Collate every question by itself as well, as generating texts needs.
        batch_size: Most questions in each of those batches.
    """

    def __init__(
        self, collator: EVLECGCollator, images: OncePerPicture, *, share: bool, alone: bool, batch_size: int
    ) -> None:
        self.collator = collator
        self.images = images
        self.share = share and question_follows_image(collator.student_processor, collator.system_prompt)
        self.alone = alone
        self.batch_size = batch_size
        self._whole = EVLECGCollator(
            collator.student_processor,
            load_image=images,
            system_prompt=collator.system_prompt,
            on_bad_example=collator.on_bad_example,
        )
        self._after_image = WordsAfterImage(collator.student_processor, collator.system_prompt)
        self._words: dict[tuple[Turn, ...], list[int] | None] = {}

    def __call__(self, groups: Sequence[Sequence[Item]]) -> PictureBatch:
        """Collate the questions of some pictures.

        Raises:
            ExampleError: A bad example, if the collator stops at those.
        """
        batch = PictureBatch(sum(map(len, groups)))
        refused = self._share(groups, batch) if self.share else set()
        without = refused if self.alone else refused | set(batch.words)
        rest = [item for group in groups for item in group if example_key(item) not in without]
        for start in range(0, len(rest), self.batch_size):
            collated = _collate(self.collator, rest[start : start + self.batch_size])
            batch.skipped += collated["skipped"]
            if collated["keys"]:
                batch.questions.append(collated)
        asked = batch.words.keys() | {key for part in batch.questions for key in part["keys"]}
        items = {example_key(item): item for group in groups for item in group}
        batch.digests = {key: self.images.digest(items[key]) for key in asked}
        return batch

    def _share(self, groups: Sequence[Sequence[Item]], batch: PictureBatch) -> set[str]:
        """Put what can share a picture into a batch; returns the keys of questions that are bad examples."""
        leaders = {example_key(group[0]): group for group in groups if len(group) > 1}
        if not leaders:
            return set()
        pictures = _collate(self._whole, [group[0] for group in leaders.values()])
        batch.skipped += pictures["skipped"]
        for row, key in enumerate(pictures["keys"]):
            ids, labels = pictures["input_ids"][row], pictures["labels"][row]
            own = tokens_after_image(ids, labels, self.collator.student_processor)
            if own != self._words_of(leaders[key][0]):
                continue
            before = int((pictures["attention_mask"][row].bool() & ((labels != IGNORE).cumsum(0) == 0)).sum()) - len(
                own
            )
            for item in leaders[key]:
                words = self._words_of(item)
                longest = self.collator.max_length
                if words is not None and (longest is None or before + len(words) < longest):
                    batch.words[example_key(item)] = row, words
        if batch.words:
            batch.pictures = pictures
        return set(leaders) - set(pictures["keys"])

    def _words_of(self, item: Item) -> list[int] | None:
        """Tokens of a question behind its image; None if it has to be asked alone."""
        try:
            turns = prepare_example(item, lambda _: BLANK, [self.collator.student_processor], None).turns
        except ExampleError:
            return None
        if turns not in self._words:
            self._words[turns] = self._encode(turns)
        return self._words[turns]

    def _encode(self, turns: tuple[Turn, ...]) -> list[int] | None:
        try:
            words = self._after_image(turns)
        except (ChatTemplateError, ValueError, TypeError, LookupError, ArithmeticError):  # the collator says it better
            return None
        return words if len(words) > 1 else None


def _collate(collator: EVLECGCollator, items: Sequence[Item]) -> dict[str, Any]:
    """Collate questions; without one good example the batch is empty instead of an earlier one."""
    try:
        batch = collator(items)
    except ExampleError as error:
        if collator.on_bad_example == "stop":
            raise
        return {"keys": [], "skipped": [str(error)]}
    # The collator repeats an earlier example to keep training processes in step; here it would be answered twice.
    if not {example_key(item) for item in items} & set(batch["keys"]):
        return {"keys": [], "skipped": batch["skipped"]}
    return batch
