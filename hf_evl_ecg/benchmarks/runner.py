"""Models and tasks → answers, verdicts and scores on disk, each of them resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_text
from hf_evl_ecg.results import write_results

from .answering import answer_benchmark
from .judge import Judge
from .questions import Benchmark
from .rows import COMPAT_SEED, benchmark_table, score_benchmark, score_verdicts
from .verdicts import ask_judge

__all__ = ["run_benchmarks", "write_benchmarks"]

logger = logging.getLogger(__name__)


def run_benchmarks(
    model: Any,
    processor: Any,
    benchmarks: Sequence[Benchmark],
    output: str | Path,
    *,
    method: str,
    seed: int | None = None,
    judge: Judge | None = None,
    judge_workers: int = 4,
    allow_partial: bool = False,
    n_bootstrap: int = 1000,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Let one model answer some tasks, and score its answers strictly and as released.

    Args:
        model: A vision-language model, in eval mode, on the device it is to run on.
        processor: Its processor.
        benchmarks: From `hf_evl_ecg.benchmarks.questions.load_benchmark`.
        output: Folder of ``answers_METHOD_TASK.jsonl`` and ``verdicts_METHOD_TASK.jsonl``; what stands there is not asked again.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        judge: Who judges reports and the arena; None: they are answered but not scored.
        judge_workers: Requests to the judge at once.
        allow_partial: Score tasks of another number of records than released.
        n_bootstrap: Resamples for the intervals.
        options: Further options of `answer_benchmark`.

    Returns:
        Rows of a results json, and notes on what was not scored.

    Raises:
        JudgeError: The judge refused or failed for good.
        ValueError: Another number of answers than a task has.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    scoring: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "allow_partial": allow_partial,
        "n_bootstrap": n_bootstrap,
    }
    for benchmark in benchmarks:
        task, place = benchmark.task, Path(output)
        found = answer_benchmark(
            model, processor, benchmark, path=place / f"answers_{method}_{task.name}.jsonl", **options
        )
        if len(found) != task.size and allow_partial:
            notes.append(
                f"{task.name}, {method}: {len(found)} of {task.size} records; not to be compared with the whole set."
            )
        if task.kind != "judged":
            rows += score_benchmark(task, found, **scoring)
        elif judge is None:
            notes.append(
                f"{task.name}, {method}: answered, not scored (name a judge with --judge_url and --judge_model)."
            )
            logger.warning(notes[-1])
        else:
            path = place / f"verdicts_{method}_{task.name}.jsonl"
            rows += score_verdicts(task, ask_judge(judge, task, found, path=path, workers=judge_workers), **scoring)
    return rows, notes


def write_benchmarks(
    output: str | Path,
    config: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    study: str = "ecgbench",
) -> str:
    """Write ``STUDY.json`` and ``STUDY.md``; only the latter where there is nothing but notes.

    Returns:
        The markdown.
    """
    if rows:
        write_results(Path(output) / f"{study}.json", study, config | {"compat_seed": COMPAT_SEED}, rows)
    text = benchmark_table(rows, [f"- {note}" for note in notes])
    write_text(Path(output) / f"{study}.md", text)
    return text
