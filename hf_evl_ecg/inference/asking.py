"""Asking one model a batch of questions: its texts, and how likely it finds the answers each question can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hf_evl_ecg.models.native import move_batch

from .after_image import ImageQuestion, scores_after_images
from .generation import generate_answers
from .likelihood import answer_token_ids, option_log_likelihoods

__all__ = ["Asker"]


class Asker:
    """One model with its processor: batch → texts and scores.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        processor: Its processor.
        system: System message of the chat.
        max_new_tokens: Longest text; None generates none.
    """

    def __init__(self, model: nn.Module, processor: Any, system: str | None, max_new_tokens: int | None) -> None:
        self.model = model
        self.processor = processor
        self.system = system
        self.max_new_tokens = max_new_tokens
        self._token_ids: dict[str, list[int]] = {}

    def __call__(
        self, batch: Mapping[str, Any], candidates: Sequence[tuple[str, ...]]
    ) -> list[tuple[str | None, tuple[float, ...]]]:
        """Answer a batch.

        Args:
            batch: From `EVLECGCollator`.
            candidates: For each question the answers whose likelihood is wanted; may be none.

        Returns:
            Text (None if none was wanted) and log-likelihoods of each question.
        """
        moved = move_batch(batch, self.model)
        texts: list[str | None] = [None] * len(candidates)
        if self.max_new_tokens is not None:
            tokenizer = self.processor.tokenizer
            texts = list(generate_answers(self.model, moved, tokenizer, max_new_tokens=self.max_new_tokens))
        scores: list[tuple[float, ...]] = [()] * len(candidates)
        if any(candidates):
            options = [[self._ids(text) for text in own] for own in candidates]
            sums = option_log_likelihoods(self.model, moved, options, self.processor.tokenizer.pad_token_id).tolist()
            scores = [tuple(row[: len(own)]) for row, own in zip(sums, candidates, strict=True)]
        return list(zip(texts, scores, strict=True))

    def after_images(
        self,
        batch: Mapping[str, Any],
        words: Sequence[tuple[int, Sequence[int]]],
        candidates: Sequence[tuple[str, ...]],
        rows: int,
    ) -> list[tuple[float, ...]]:
        """How likely the answers to questions are that share the images of a batch.

        Args:
            batch: From `EVLECGCollator`, one question about each image.
            words: Row of each question's image, and the tokens that follow it up to the answer.
            candidates: For each question the answers whose likelihood is wanted; may be none.
            rows: Most questions or answers in one forward pass.

        Returns:
            Log-likelihoods of each question.
        """
        asked = [
            ImageQuestion(image, tokens, [self._ids(text) for text in own])
            for (image, tokens), own in zip(words, candidates, strict=True)
        ]
        moved, pad_id = move_batch(batch, self.model), self.processor.tokenizer.pad_token_id
        return [tuple(scores) for scores in scores_after_images(self.model, moved, asked, pad_id, rows)]

    def _ids(self, text: str) -> list[int]:
        if text not in self._token_ids:
            self._token_ids[text] = answer_token_ids(self.processor, [text], system=self.system)[0]
        return self._token_ids[text]
