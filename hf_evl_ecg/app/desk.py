"""What the buttons of the page do, as functions of what they are given."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hf_evl_ecg.interpret.interpreter import ECGInterpreter
from hf_evl_ecg.qa.prompts import REPORT_QUESTION

from .held import HeldECGs, Loaded
from .parts import EMPTY_FIGURE, answer_card, ecg_figure, message, scores_table
from .uploads import GivenECG, read_uploads, simulated_ecg

__all__ = ["MAX_QUESTION", "Desk", "Limits"]

MAX_QUESTION = 500
"""Longest question (characters)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for, and what is held for all.

    Attributes:
        max_upload_mb: Largest upload, of all files together (MB).
        max_new_tokens: Longest answer (tokens).
        max_held_mb: Memory of all loaded ECGs together (MB); beyond it, those go that were not asked about for longest.

    Raises:
        ValueError: A limit that lets nothing through.
    """

    max_upload_mb: float = 20.0
    max_new_tokens: int = 256
    max_held_mb: float = 512.0

    def __post_init__(self) -> None:
        if self.max_upload_mb <= 0 or self.max_new_tokens < 1 or self.max_held_mb <= 0:
            raise ValueError(
                f"max_upload_mb={self.max_upload_mb}, max_new_tokens={self.max_new_tokens}, max_held_mb={self.max_held_mb}: "
                "all must be above 0"
            )


class Desk:
    """What the page's buttons do; outputs are the page's components in the order of `build_page`.

    Args:
        interpreters: Role → model.
        models: Role → what the model is called on the page.
        uploads: Folder in which uploads arrive.
        limits: Limits of uploads and answers.
    """

    def __init__(
        self, interpreters: Mapping[str, ECGInterpreter], models: Mapping[str, str], uploads: str, limits: Limits
    ) -> None:
        self.interpreters = dict(interpreters)
        self.models = dict(models)
        self.uploads = uploads
        self.limits = limits
        self.held = HeldECGs(int(limits.max_held_mb * 1e6))

    def upload(
        self, paths: Sequence[str] | None, gain_per_mv: float | None = None, before: str | None = None
    ) -> list[str | None]:
        """Show uploaded files as an ECG, or say what is wrong with them; either way they are gone afterwards.

        Args:
            paths: The files.
            gain_per_mv: Stored units per mV of a record whose header is known to be wrong.
            before: Key of the ECG that this one takes the place of.
        """
        try:
            given = read_uploads(paths or [], self.uploads, self.limits.max_upload_mb, gain_per_mv=gain_per_mv)
            return self._show(given, before)
        except (ValueError, OSError) as error:
            return self._refuse(error, before)

    def simulate(self, label: str, seed: float | None, before: str | None = None) -> list[str | None]:
        """Show a simulated ECG in the place of the one with the key ``before``."""
        try:
            return self._show(simulated_ecg(label, int(seed or 0)), before)
        except ValueError as error:
            return self._refuse(error, before)

    def ask(self, key: str | None, question: str) -> Iterator[list[str]]:
        """Answers as they are written, one model after the other, then their label scores.

        Args:
            key: Of the ECG.
            question: What is asked; of an empty one, a report.
        """
        loaded = self.held.get(key)
        if loaded is None:
            line = message("There is no ECG yet, or its hour is over: upload one or simulate one.", error=True)
            yield [line, *self._waiting(), ""]
            return
        asked = question.strip()[:MAX_QUESTION] or REPORT_QUESTION
        loaded.cards, loaded.scores = self._waiting(), ""
        yield [message("Reading the ECG …", busy=True), *loaded.cards, ""]
        scores: dict[str, dict[str, float]] = {}
        try:
            for index, role in enumerate(self.interpreters):
                for card in self._answer(role, loaded.given, asked, scores):
                    loaded.cards[index] = card
                    yield [message(f"{role} is writing …", busy=True), *loaded.cards, loaded.scores]
                loaded.scores = scores_table(scores)
            line = message(f"Answered about {loaded.given.name}.")
        except (ValueError, OSError) as error:
            line = message(_said(error), error=True)
        except RuntimeError as error:  # of torch, such as too little memory
            logger.exception("a model failed")
            line = message(f"The model failed: {str(error).partition(chr(10))[0]}", error=True)
        yield [line, *loaded.cards, loaded.scores]

    def _answer(self, role: str, given: GivenECG, question: str, scores: dict[str, dict[str, float]]) -> Iterator[str]:
        """One model's card as it grows; its scores are added to ``scores`` at the end."""
        model, started, answer = self.interpreters[role], time.perf_counter(), ""
        card = partial(answer_card, role, self.models[role], record=given.name, question=question)
        yield card(answer="")
        for piece in model.stream(given.source, question, max_new_tokens=self.limits.max_new_tokens):
            answer += piece
            yield card(answer=answer)
        seconds = time.perf_counter() - started
        scored = model(given.source, question, max_new_tokens=1)  # for the scores alone: the answer is written already
        scores[role] = scored.label_scores
        doubts = model.doubts(question, answer, scored.label_scores)
        yield card(
            answer=answer,
            seconds=seconds,
            seen=scored.image,
            unseen_leads=scored.unseen_leads,
            doubts=doubts,
            measured=scored.measured,
        )

    def _waiting(self) -> list[str]:
        return [answer_card(role, model) for role, model in self.models.items()]

    def _show(self, given: GivenECG, before: str | None) -> list[str | None]:
        loaded = Loaded(given, ecg_figure(given), self._waiting())
        self.held.drop(before)
        line = message(f"{given.name} is ready: ask about it.")
        return [None, self.held.keep(loaded), loaded.figure, line, *loaded.cards, ""]

    def _refuse(self, error: Exception, before: str | None) -> list[str | None]:
        """The ECG before, with its answers, stays. It is said again: for what is skipped, gradio makes components that it keeps."""
        loaded = self.held.get(before)
        line = message(_said(error), error=True)
        if loaded is None:
            return [None, None, EMPTY_FIGURE, line, *self._waiting(), ""]
        return [None, before, loaded.figure, line, *loaded.cards, loaded.scores]


def _said(error: Exception) -> str:
    """What a visitor reads of an error; the system's own name files by their place on the server, which is nobody's business."""
    if not isinstance(error, OSError):
        return str(error)
    logger.error("a file could not be read: %s", error.strerror)  # without its name, which may be a patient's
    named = f": {Path(str(error.filename)).name}" if error.filename else ""
    return f"The file could not be read ({error.strerror or type(error).__name__}{named})"
