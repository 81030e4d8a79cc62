"""The results of a study with budgets: answers packed, scored from what is packed, and compared pair by pair.

Everything here reads answers that are there already; no model is run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.data.stored import load_questions
from hf_evl_ecg.inference.answer_file import read_answers
from hf_evl_ecg.qa.grading import candidate_answers
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.scores.archive import (
    ArchiveError,
    list_archive,
    pack_answers,
    pack_questions,
    unpack_answers,
    unpack_questions,
)
from hf_evl_ecg.scores.compare import comparison_rows
from hf_evl_ecg.scores.models import score_by_source

__all__ = ["Run", "asked_questions", "pack_runs", "read_run", "score_runs"]

Run = tuple[str, int | None, list[Answer]]
"""Method, training seed, and an answer for each question."""


def asked_questions(folder: str, split: str) -> Dataset:
    """What the models of a study are asked: questions whose answers have likelihoods; yes/no about real records only.

    Simulated records are many, so that their intervals are narrow, and in yes/no questions a model's listening would outweigh what it sees.
    """
    return load_questions(folder, split).filter(
        lambda item: (
            bool(candidate_answers(item)) and not (item["source"] == "simulated" and item["format"] == "closed")
        )
    )


def read_run(path: str | Path, items: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Answers of one model in the order of the questions.

    Raises:
        ValueError: A question has no answer.
    """
    found = read_answers(path).answers
    keys = [example_key(item) for item in items]
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path}: {len(missing)} of {len(keys)} questions have no answer (ask the model again)")
    return [found[key] for key in keys]


def packed_runs(archive: str | Path | None) -> set[tuple[str, int | None]]:
    """Method and seed of every run whose answers an archive holds; of none, where there is no archive."""
    if archive is None or not Path(archive).is_dir():
        return set()
    return {unpack_answers(archive, name)[:2] for name in list_archive(archive)}


def pack_runs(
    archive: Path,
    questions: str,
    split: str,
    models: Mapping[str, tuple[str, int | None, str]],
    answers: Path,
    ready: str | Path | None = None,
) -> tuple[list[Mapping[str, Any]], list[Run]]:
    """Pack the answers of every model that has any.

    Args:
        archive: Where they are packed.
        questions: Question dataset.
        split: Its split.
        models: Name → method, seed and folder of each model.
        answers: Folder of the files of answers.
        ready: An archive of runs that were made before, perhaps elsewhere.

    Returns:
        The questions, and the runs as they are kept.

    Raises:
        ArchiveError: The archive of before holds answers to other questions.
    """
    items = list(asked_questions(questions, split))
    pack_questions(archive, items)
    before = packed_runs(ready)
    if ready is not None and before and unpack_questions(ready) != unpack_questions(archive):
        raise ArchiveError(
            f"{ready}: holds answers to other questions than {questions} (prepare those it was made with)"
        )
    runs: list[Run] = []
    for name, (method, seed, _) in models.items():
        path = answers / f"answers_{name}_{split}.jsonl"
        if path.is_file():
            runs.append((method, seed, pack_answers(archive, method, seed, read_run(path, items))))
        elif ready is not None and (method, seed) in before:
            kept = unpack_answers(ready, method if seed is None else f"{method}_{seed}")[2]
            runs.append((method, seed, pack_answers(archive, method, seed, kept)))
    return items, runs


def score_runs(
    items: Sequence[Mapping[str, Any]], runs: Sequence[Run], compare: Mapping[str, Any] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Rows of a results json for every run, and for every method as `hf_evl_ecg.scores.compare.comparison_rows` compares them."""
    rows: list[dict[str, Any]] = []
    methods: dict[str, list[list[Answer]]] = {}
    for method, seed, answers in runs:
        methods.setdefault(method, []).append(answers)
        rows += score_by_source(list(zip(items, answers, strict=True)), method=method, seed=seed, **options)
    if compare is not None:
        rows += comparison_rows(items, methods, **compare, n_bootstrap=options.get("n_bootstrap", 1000))
    return rows
