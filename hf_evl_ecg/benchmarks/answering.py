"""A model's answers to a benchmark, kept in a file that an interrupted run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hf_evl_ecg.inference.evaluation import answer_items

from .questions import Benchmark, BenchmarkQuestion

__all__ = ["BenchmarkAnswer", "answer_benchmark"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkAnswer:
    """What a model made of one record of a benchmark.

    Attributes:
        question: The record.
        texts: One answer for each turn.
        scores: Log-likelihood of each label of the task as the whole answer, in nats; empty where it has none.
    """

    question: BenchmarkQuestion
    texts: tuple[str, ...]
    scores: tuple[float, ...] = ()


def answer_benchmark(
    model: nn.Module,
    processor: Any,
    benchmark: Benchmark,
    *,
    path: str | Path | None = None,
    likelihoods: bool = True,
    **options: Any,
) -> list[BenchmarkAnswer]:
    """Ask a model every question of a task.

    Turns after the first are asked with the questions before them and the model's own answers, all in one message.

    Args:
        model: Any native vision-language model, on the device it runs on.
        processor: Its processor.
        benchmark: From `hf_evl_ecg.benchmarks.questions.load_benchmark`.
        path: A jsonl file that answers are added to as they come; see `hf_evl_ecg.inference.evaluation.answer_items`.
        likelihoods: Compute those of the task's labels, where it has any.
        options: Further options of `answer_items`, such as ``max_new_tokens``.

    Returns:
        Answers in the order of the questions; records whose image cannot be read are left out with a warning.

    Example:
        >>> from hf_evl_ecg.benchmarks.questions import Benchmark, BenchmarkQuestion
        >>> from hf_evl_ecg.benchmarks.tasks import benchmark_task
        >>> from hf_evl_ecg.chat.conversations import Turn
        >>> from hf_evl_ecg.drawing.image_file import ImageFile
        >>> from PIL import Image
        >>> page = {"image": Image.new("RGB", (56, 40), "white")}
        >>> asked = BenchmarkQuestion("r1", (Turn("Rhythm?", "NORM"),), page, "r1")
        >>> found = answer_benchmark(
        ...     student, processor, Benchmark(benchmark_task("ptb-test"), (asked,), ImageFile()), max_new_tokens=4
        ... )
        >>> len(found[0].texts), len(found[0].scores)  # log-likelihoods of NORM, MI, STTC, CD, HYP
        (1, 5)
    """
    texts: dict[str, list[str]] = {question.record: [] for question in benchmark.questions}
    scores: dict[str, tuple[float, ...]] = {}
    labels = list(benchmark.task.labels) if likelihoods else []
    turns = max(len(question.turns) for question in benchmark.questions) if benchmark.task.kind == "judged" else 1
    for turn in range(turns):
        asked = [q for q in benchmark.questions if len(q.turns) > turn and len(texts[q.record]) == turn]
        items = [_item(benchmark.task.name, question, texts[question.record], labels) for question in asked]
        done = answer_items(
            model,
            processor,
            items,
            load_image=benchmark.load_image,
            path=path,
            likelihoods=bool(labels),
            **options,
        )
        for item, answer in zip(done.items, done.answers, strict=True):
            texts[item["record"]].append(answer.text or "")
            scores[item["record"]] = answer.scores
    whole = {q.record: len(q.turns) if benchmark.task.kind == "judged" else 1 for q in benchmark.questions}
    answered = [q for q in benchmark.questions if len(texts[q.record]) == whole[q.record]]
    if missing := [q.record for q in benchmark.questions if len(texts[q.record]) < whole[q.record]]:
        logger.warning("%s: %d records without an answer: %s", benchmark.task.name, len(missing), missing[:20])
    return [BenchmarkAnswer(q, tuple(texts[q.record]), scores[q.record]) for q in answered]


def _item(task: str, question: BenchmarkQuestion, before: Sequence[str], labels: list[str]) -> Mapping[str, Any]:
    """What `answer_items` asks: one turn, with those before it in its text."""
    turn = question.turns[len(before)]
    earlier = [
        f"Question: {past.question}\nAnswer: {answer}"
        for past, answer in zip(question.turns[: len(before)], before, strict=True)
    ]
    asked = "\n\n".join([*earlier, f"Question: {turn.question}"]) if earlier else turn.question
    item = {"id": question.record, "record": question.record, "source": f"ecgbench/{task}", **question.place}
    return item | {"question": asked, "answer": turn.answer, "options": labels or None}
