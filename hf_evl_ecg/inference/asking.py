"""Asking one model a batch of questions: its texts, and how likely it finds the answers each question can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError
from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.models.native import move_batch

from .digests import DigestedImages
from .generation import generate_answers
from .likelihood import answer_token_ids, option_log_likelihoods

__all__ = ["Asker", "EvaluationCollator"]


@dataclass
class EvaluationCollator:
    """The collator, except that a batch without one good example is empty instead of an earlier one.

    Attributes:
        collator: It loads its images with ``images``.
        images: What notes the digests of the pictures.
    """

    collator: EVLECGCollator
    images: DigestedImages

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate questions; under ``"asked"`` how many there were, under ``"pictures"`` the digests by key."""
        self.images.digests.clear()
        try:
            batch = self.collator(examples)
        except ExampleError as error:
            if self.collator.on_bad_example == "stop":
                raise
            return {"keys": [], "skipped": [str(error)], "asked": len(examples), "pictures": {}}
        # The collator repeats an earlier example to keep training processes in step; here it would be answered twice.
        if not {example_key(example) for example in examples} & set(batch["keys"]):
            batch = {"keys": [], "skipped": batch["skipped"]}
        return {**batch, "asked": len(examples), "pictures": dict(self.images.digests)}


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

    def _ids(self, text: str) -> list[int]:
        if text not in self._token_ids:
            self._token_ids[text] = answer_token_ids(self.processor, [text], system=self.system)[0]
        return self._token_ids[text]
