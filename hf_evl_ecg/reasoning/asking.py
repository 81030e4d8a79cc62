"""Chains → a model's answers, one turn after the other, with the right answers to earlier turns before it, or with its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.inference.evaluation import answer_items

from .chains import Chain, question_text

__all__ = ["HISTORIES", "ChainAnswers", "answer_chains"]

logger = logging.getLogger(__name__)

HISTORIES = ("truth", "own")


@dataclass(frozen=True)
class ChainAnswers:
    """What a model answered to one chain.

    Attributes:
        chain: The questions.
        initial: Answer to the diagnosis, asked outright.
        texts: One answer for each step.
    """

    chain: Chain
    initial: str
    texts: tuple[str, ...]


def answer_chains(
    model: nn.Module,
    processor: Any,
    chains: Sequence[Chain],
    *,
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    history: str = "truth",
    path: str | Path | None = None,
    **options: Any,
) -> list[ChainAnswers]:
    """Ask a model every step of every chain.

    A step is asked with the questions and answers of the steps before it in the same message, without their options (the benchmark's
    condensed chat). The diagnosis asked outright is no part of that, as in the benchmark.

    Args:
        model: Any native vision-language model, on the device it runs on.
        processor: Its processor.
        chains: What to ask.
        load_image: ``place`` of a chain → PIL image.
        history: "truth": the right answers stand before a step (teacher-forced), so all steps can be asked at once; "own": what the
            model answered, right or wrong.
        path: A jsonl file that answers are added to as they come; see `hf_evl_ecg.inference.evaluation.answer_items`.
        options: Further options of `answer_items`, such as ``max_new_tokens``.

    Returns:
        Answers in the order of the chains; records that cannot be drawn are left out with a warning.

    Raises:
        ValueError: Another ``history``.

    Example:
        >>> from hf_evl_ecg.reasoning.building import build_chain
        >>> from hf_evl_ecg.reasoning.truth import simulated_truth
        >>> chain = build_chain("atrial_fibrillation", simulated_truth("AF/1"), "AF/1", {"record": "AF/1"})
        >>> def blank(item):
        ...     return Image.new("RGB", (56, 40), "white")
        >>> found = answer_chains(student, processor, [chain], load_image=blank, max_new_tokens=2, progress_bar=False)
        >>> len(found[0].texts) == len(chain.steps)
        True
    """
    check_choice("history", history, HISTORIES)
    texts: dict[int, list[str]] = {i: [] for i in range(len(chains))}  # the diagnosis, then the steps

    def ask(wanted: Sequence[tuple[int, int]]) -> None:
        """Ask step ``turn`` (0: the diagnosis) of chain ``i`` for each (i, turn)."""
        items = [_item(chains[i], turn, texts[i][1:] if history == "own" else None) for i, turn in wanted]
        done = answer_items(model, processor, items, load_image=load_image, path=path, likelihoods=False, **options)
        found = {id(item): answer.text or "" for item, answer in zip(done.items, done.answers, strict=True)}
        for item, (i, _) in zip(items, wanted, strict=True):
            if id(item) in found:
                texts[i].append(found[id(item)].strip())

    if history == "truth":
        ask([(i, turn) for i, chain in enumerate(chains) for turn in range(1 + len(chain.steps))])
    else:
        for turn in range(1 + max(len(chain.steps) for chain in chains)):
            ask([(i, turn) for i, chain in enumerate(chains) if len(chain.steps) >= turn and len(texts[i]) == turn])
    whole = [i for i, chain in enumerate(chains) if len(texts[i]) == 1 + len(chain.steps)]
    if missing := [chains[i].record for i in texts if i not in set(whole)]:
        logger.warning("%d chains without answers: %s", len(missing), missing[:20])
    return [ChainAnswers(chains[i], texts[i][0], tuple(texts[i][1:])) for i in whole]


def _item(chain: Chain, turn: int, own: Sequence[str] | None) -> dict[str, Any]:
    """What `answer_items` asks; ``own``: the model's answers to the steps before, None for the right ones."""
    step = chain.initial if turn == 0 else chain.steps[turn - 1]
    before = chain.steps[: max(0, turn - 1)]
    answers = own if own is not None else [past.answer_text for past in before]
    earlier = [f"Question: {past.question}\nAnswer: {answer}" for past, answer in zip(before, answers, strict=False)]
    asked = "\n\n".join([*earlier, f"Question: {question_text(step)}"]) if earlier else question_text(step)
    return {"record": chain.record, **chain.place, "question": asked, "answer": step.answer_text}
