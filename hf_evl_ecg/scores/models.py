"""A model and questions → rows of a results json, source by source."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.qa.grading import item_kind
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.scoring import score_answers

__all__ = ["by_source", "score_by_source", "score_model"]


def score_model(
    model: Any,
    processor: Any,
    questions: Dataset,
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    *,
    method: str,
    seed: int | None = None,
    answers: str | Path | None = None,
    n_bootstrap: int = 1000,
    min_per_class: int = 10,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[tuple[Mapping[str, Any], Answer]]]:
    """Ask one model every question and score its answers source by source.

    Args:
        model: A vision-language model, in eval mode, on the device it is to run on.
        processor: Its processor.
        questions: Questions with their records, such as a split of what ``hf-evl-ecg prepare`` writes.
        load_image: Draws the ECG of a question, such as `hf_evl_ecg.data.rendered.RenderedECG`.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        answers: A jsonl file of its answers, which makes the work resumable.
        n_bootstrap: Resamples for the intervals.
        min_per_class: A class gets a row of its own from this many positive items on.
        options: Further options of `hf_evl_ecg.inference.evaluation.answer_items`.

    Returns:
        Rows of a results json, whose tasks begin with the source of the records (``ludb:rhythm_closed``) or, for all
        sources but the simulated one together, with ``real``; and the questions with their answers.

    Example:
        >>> from hf_evl_ecg.data import RenderedECG, question_dataset
        >>> from hf_evl_ecg.sources import load_simulated
        >>> questions = question_dataset(load_simulated(1, classes=["AF"])[0], tasks=["rhythm"], formats=["fill"])
        >>> options = {"method": "evl_ecg", "max_new_tokens": 4, "n_bootstrap": 0}
        >>> rows, pairs = score_model(student, processor, questions, RenderedECG(), **options)
        >>> len(pairs), sorted({row["task"] for row in rows})
        (1, ['simulated:rhythm_fill'])
    """
    done = answer_items(model, processor, questions, load_image=load_image, path=answers, **options)
    pairs = list(zip(done.items, done.answers, strict=True))
    rows = score_by_source(pairs, method=method, seed=seed, n_bootstrap=n_bootstrap, min_per_class=min_per_class)
    return rows, pairs


def score_by_source(
    pairs: Sequence[tuple[Mapping[str, Any], Answer]],
    *,
    method: str,
    seed: int | None = None,
    n_bootstrap: int = 1000,
    min_per_class: int = 10,
) -> list[dict[str, Any]]:
    """Rows of a results json for questions and their answers; see `score_model`."""
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "min_per_class": min_per_class}
    rows = []
    for source, own in by_source(pairs).items():
        items, answers = zip(*own, strict=True)
        scored = score_answers(items, answers, method=method, seed=seed, **options)
        rows += [{**row, "task": f"{source}:{row['task']}"} for row in scored]
    return rows


def by_source(pairs: Sequence[tuple[Mapping[str, Any], Answer]]) -> dict[str, list[tuple[Mapping[str, Any], Answer]]]:
    """Questions and answers of each source, and of all real ones together where there are several.

    Lists of classes differ between sources, so questions about them are not put together.
    """
    groups: dict[str, list[tuple[Mapping[str, Any], Answer]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0]["source"], []).append(pair)
    real = [source for source in groups if source != "simulated"]
    if len(real) > 1:
        together = [pair for source in real for pair in groups[source] if item_kind(pair[0]) != "classes"]
        groups = {"real": together, **groups} if together else groups
    return groups
