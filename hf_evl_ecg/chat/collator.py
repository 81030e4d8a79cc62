"""One ECG image with questions and answers → student inputs, labels and teacher inputs, through two processors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_evl_ecg.arguments import check_at_least, check_choice
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.tokens import IGNORE

from .conversations import (
    ChatTemplateError,
    ChatText,
    ExampleError,
    chat_messages,
    render_chat,
    special_tokens,
)
from .encoding import check_processor, encode_chats
from .examples import InkLoader, PreparedExample, prepare_example, record_name
from .spelling import token_bytes
from .token_groups import align_turns, collate_groups

__all__ = ["EVLECGCollator"]

logger = logging.getLogger(__name__)

_PROCESSOR_FAILURES = (ValueError, TypeError, LookupError, ArithmeticError)  # raised by processors on unusual input


class EVLECGCollator:
    """Turns examples into one batch for a student and, where wanted, its teacher.

    An example is a mapping with an ``id``, whatever ``load_image`` reads, and its turns in one of the forms of
    `hf_evl_ecg.chat.conversations.read_turns`. The batch holds the student's inputs, ``labels`` and ``places`` (turn and
    byte at which each token's text starts) at the top level, the teacher's under ``"teacher"``, and beside them ``"keys"`` (one per example:
    what a teacher cache is looked up by), ``"records"`` (its name in messages), ``"groups"`` (answer tokens of both tokenizers that
    cover the same bytes) and ``"skipped"`` (what was left out, and why); with ``ink``, the maps of the pages' traces under ``"ink"``,
    (B, G, G).

    Args:
        student_processor: Processor of the student, with a chat template and a fast tokenizer.
        teacher_processor: Processor of the teacher; None: no teacher.
        load_image: Example → PIL image, in the data loader's workers: `ImageFile` (default), `RenderedECG` or your own.
        teacher_images: Prepare the teacher's images; False when its features come from a cache.
        cached_keys: Keys of the examples that a teacher cache holds; others are bad examples. None: no cache.
        system_prompt: System message of the student's chats.
        teacher_system_prompt: System message of the teacher's chats.
        max_length: Longest student input in tokens, image tokens included; longer answers are cut at their end.
        teacher_max_length: The same for the teacher.
        padding_side: ``"right"`` or ``"left"``.
        ink: Say where on each page the traces are; ``load_image`` must know it, as `RenderedECG` does.
        on_bad_example: ``"skip"``: leave the example out, and say so in the batch and in the log; ``"stop"``: raise.
        unanswered: ``"refuse"``: an example whose last question has no answer is a bad example; ``"use"``: both models read it
            up to where the answer would begin, behind the generation prompt, and it has no labels.

    Raises:
        ChatTemplateError: At construction, if a processor cannot encode a test question so that its answer is found.
        ValueError: At construction, if ink is wanted of pictures that were not drawn here.

    Example:
        >>> from PIL import Image
        >>> example = {"id": "r1", "image": Image.new("RGB", (56, 40)), "question": "Rhythm?", "answer": "yes"}
        >>> batch = EVLECGCollator(processor, teacher_processor)([example])
        >>> labels = batch["labels"]
        >>> processor.tokenizer.decode(labels[labels >= 0])  # the answer, and the end of the turn
        ' yes<end_of_utterance>'
    """

    def __init__(
        self,
        student_processor: Any,
        teacher_processor: Any = None,
        *,
        load_image: Callable[[Mapping[str, Any]], Image.Image] = ImageFile(),  # noqa: B008 - frozen
        teacher_images: bool = True,
        cached_keys: Container[str] | None = None,
        system_prompt: str | None = None,
        teacher_system_prompt: str | None = None,
        max_length: int | None = None,
        teacher_max_length: int | None = None,
        padding_side: Literal["right", "left"] = "right",
        on_bad_example: Literal["skip", "stop"] = "skip",
        ink: bool = False,
        unanswered: Literal["refuse", "use"] = "refuse",
    ) -> None:
        check_choice("padding_side", padding_side, ("right", "left"))
        check_choice("on_bad_example", on_bad_example, ("skip", "stop"))
        check_choice("unanswered", unanswered, ("refuse", "use"))
        for name, length in (("max_length", max_length), ("teacher_max_length", teacher_max_length)):
            if length is not None:
                check_at_least(name, length, 8)
        self.student_processor = student_processor
        self.teacher_processor = teacher_processor
        self.load_image = load_image
        self.teacher_images = teacher_images
        self.cached_keys = cached_keys
        self.system_prompt = system_prompt
        self.teacher_system_prompt = teacher_system_prompt
        self.max_length = max_length
        self.teacher_max_length = teacher_max_length
        self.padding_side = padding_side
        self.on_bad_example = on_bad_example
        self.unanswered = unanswered
        self._ink_loader = load_image if ink and isinstance(load_image, InkLoader) else None
        if ink and self._ink_loader is None:
            raise ValueError(
                f"ink=True (visual_weights='ink') with load_image={type(load_image).__name__}: where the traces are is known of "
                "pages drawn from records only (RenderedECG); for pictures use visual_weights='teacher_contrast'."
            )
        self._last_good: PreparedExample | None = None
        check_processor(student_processor, system_prompt)
        if teacher_processor is not None:
            check_processor(teacher_processor, teacher_system_prompt)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples; a batch that would be empty repeats the last good example, so that ranks stay in step.

        Raises:
            ExampleError: For a bad example if ``on_bad_example="stop"``, or if no example so far was good.
        """
        prepared: list[PreparedExample] = []
        skipped: list[str] = []
        for example in examples:
            try:
                prepared.append(self._prepare(example))
            except ExampleError as error:
                self._leave_out(error, skipped)
        while True:
            if not prepared and self._last_good is not None:
                prepared = [self._last_good]
            if not prepared:
                raise ExampleError(", ".join(record_name(e) for e in examples), f"no usable example: {skipped}")
            try:
                batch = self._encode(prepared)
            except _PROCESSOR_FAILURES as error:  # of the whole batch, without saying which example is to blame
                culprit = self._culprit(prepared, error)
                assert culprit.row is not None
                del prepared[culprit.row]
                self._leave_out(culprit, skipped)
                continue
            self._last_good = prepared[-1]
            names = {"keys": [p.key for p in prepared], "records": [p.record for p in prepared]}
            return {**batch, **names, "skipped": skipped}

    def check(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples and raise on the first bad one, whatever ``on_bad_example`` says: a test before training.

        Raises:
            ExampleError: Naming the record and what is wrong with it.
        """
        prepared = [self._prepare(example) for example in examples]
        try:
            batch = self._encode(prepared)
        except ExampleError:
            raise
        except _PROCESSOR_FAILURES as error:
            raise self._culprit(prepared, error) from error
        self._last_good = prepared[-1]
        return batch

    def _culprit(self, prepared: Sequence[PreparedExample], error: Exception) -> ExampleError:
        """Which example a processor cannot encode; ``error`` itself is raised if each can be encoded alone."""
        if isinstance(error, ExampleError):
            return error
        for row, example in enumerate(prepared):
            try:
                self._encode([example])
            except _PROCESSOR_FAILURES as own:
                return ExampleError(example.record, f"a processor fails: {type(own).__name__}: {own}", row)
        raise error

    def _leave_out(self, error: ExampleError, skipped: list[str]) -> None:
        if self.on_bad_example == "stop":
            raise error
        logger.warning("skipped %s", error)
        skipped.append(str(error))

    def _prepare(self, example: Mapping[str, Any]) -> PreparedExample:
        processors = list(filter(None, (self.student_processor, self.teacher_processor)))
        return prepare_example(
            example, self.load_image, processors, self.cached_keys, self._ink_loader, unanswered=self.unanswered
        )

    def _encode(self, prepared: list[PreparedExample]) -> dict[str, Any]:
        """Student inputs and labels, teacher inputs and labels, groups of answer tokens."""
        records = [p.record for p in prepared]
        images = [p.image for p in prepared]
        chats = _chats(self.student_processor, prepared, self.system_prompt)
        batch = encode_chats(
            self.student_processor,
            chats,
            images,
            records=records,
            max_length=self.max_length,
            padding_side=self.padding_side,
        )
        if self._ink_loader is not None:
            batch["ink"] = torch.from_numpy(np.stack([p.ink for p in prepared if p.ink is not None]))
        if self.teacher_processor is None:
            return batch
        with_images = images if self.teacher_images else None
        chats = _chats(self.teacher_processor, prepared, self.teacher_system_prompt, images=int(self.teacher_images))
        teacher = encode_chats(
            self.teacher_processor,
            chats,
            with_images,
            records=records,
            max_length=self.teacher_max_length,
            padding_side=self.padding_side,
        )
        groups = collate_groups(
            [
                align_turns(
                    _answer_bytes(self.teacher_processor, teacher["labels"][i]),
                    _answer_bytes(self.student_processor, batch["labels"][i]),
                )
                for i in range(len(prepared))
            ]
        )
        return {**batch, "teacher": teacher, "groups": {"teacher": groups.teacher, "student": groups.student}}


def _chats(processor: Any, prepared: Sequence[PreparedExample], system: str | None, images: int = 1) -> list[ChatText]:
    chats = []
    for row, example in enumerate(prepared):
        try:
            chats.append(render_chat(processor, chat_messages(example.turns, system=system, images=images)))
        except ChatTemplateError as error:
            raise ExampleError(example.record, str(error), row) from error
    return chats


def _answer_bytes(processor: Any, labels: Tensor) -> list[list[bytes]]:
    """Bytes of the labelled tokens, answer by answer: between two answers stands a question."""
    tokenizer = processor.tokenizer
    at = (labels != IGNORE).nonzero().flatten().tolist()
    pieces = token_bytes(tokenizer.convert_ids_to_tokens(labels[at].tolist()), special_tokens(tokenizer))
    answers: list[list[bytes]] = []
    for position, before, piece in zip(at, [None, *at], pieces, strict=False):
        if before is None or position != before + 1:
            answers.append([])
        answers[-1].append(piece)
    return answers
