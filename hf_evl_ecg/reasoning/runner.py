"""Models and chains → answers and scores on disk, which an interrupted run goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_text
from hf_evl_ecg.results import write_results

from .asking import answer_chains
from .chains import Chain
from .scoring import reasoning_table, score_chains

__all__ = ["TASKS", "run_reasoning", "write_reasoning"]

TASKS = {"reasoning": None, "reasoning-ptbxl": "ptbxl", "reasoning-mimic-iv-ecg": "mimic_iv_ecg"}
"""Name → source of the released files; None: chains about one's own records (`hf_evl_ecg.reasoning.building.build_chains`)."""


def run_reasoning(
    model: Any,
    processor: Any,
    tasks: Mapping[str, Sequence[Chain]],
    output: str | Path,
    *,
    method: str,
    load_image: Any,
    history: str = "truth",
    seed: int | None = None,
    n_bootstrap: int = 1000,
    **options: Any,
) -> list[dict[str, Any]]:
    """Let one model answer chains, and score its answers.

    Args:
        model: A vision-language model, in eval mode, on the device it is to run on.
        processor: Its processor.
        tasks: Name → chains.
        output: Folder of ``answers_METHOD_TASK_HISTORY.jsonl``; what stands there is not asked again.
        method: Name of the method in the rows.
        load_image: ``place`` of a chain → PIL image.
        history: See `hf_evl_ecg.reasoning.asking.answer_chains`.
        seed: Training seed in the rows.
        n_bootstrap: Resamples for the intervals.
        options: Further options of `hf_evl_ecg.inference.evaluation.answer_items`.

    Returns:
        Rows of a results json; those of the model's own history have ``TASK-own`` as their task.
    """
    rows: list[dict[str, Any]] = []
    for task, chains in tasks.items():
        name = task if history == "truth" else f"{task}-{history}"
        path = Path(output) / f"answers_{method}_{name}.jsonl"
        given = {"load_image": load_image, "history": history, "path": path, **options}
        answers = answer_chains(model, processor, chains, **given)
        rows += score_chains(answers, task=name, method=method, seed=seed, n_bootstrap=n_bootstrap)
    return rows


def write_reasoning(output: str | Path, study: str, config: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Write ``STUDY.json`` and ``STUDY.md``.

    Returns:
        The markdown.
    """
    write_results(Path(output) / f"{study}.json", study, config, rows)
    text = reasoning_table(rows)
    write_text(Path(output) / f"{study}.md", text)
    return text
