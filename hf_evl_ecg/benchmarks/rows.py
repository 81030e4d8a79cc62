"""Answers to a benchmark → rows of a results json, strict and as released, and a table that shows the two side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_evl_ecg.qa.bootstrap import Estimate
from hf_evl_ecg.qa.ecgbench import compat_scores

from .answering import BenchmarkAnswer
from .strict import strict_scores
from .tasks import BenchmarkTask
from .verdicts import Verdict, verdict_scores

__all__ = ["COMPAT", "COMPAT_SEED", "benchmark_table", "score_benchmark", "score_verdicts"]

COMPAT = "_compat"
"""What the metrics of the released scorers end with in rows."""
COMPAT_SEED = 42
"""Seed that the released scorers draw letters with for answers that name none."""


def score_benchmark(
    task: BenchmarkTask,
    answers: Sequence[BenchmarkAnswer],
    *,
    method: str,
    seed: int | None = None,
    compat_seed: int = COMPAT_SEED,
    allow_partial: bool = False,
    n_bootstrap: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of a task that needs no judge: strict ones, and those of the released scorer, whose metrics end with ``_compat``.

    ``macro_auc_compat`` is taken over hard answers; its honest name is ``balanced_accuracy``. ``random_letters_compat`` is the share
    of answers that got a random letter. What is undefined (a class in every reference) has no row.

    Args:
        task: The task.
        answers: In the order of its file.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        compat_seed: Seed of the random letters.
        allow_partial: Accept another number of answers than the test set has.
        n_bootstrap: Resamples for the intervals of strict scores; the released scorers have none.

    Raises:
        ValueError: As `hf_evl_ecg.benchmarks.strict.strict_scores`.

    Example:
        >>> from hf_evl_ecg.benchmarks import BenchmarkQuestion, benchmark_task
        >>> from hf_evl_ecg.chat.conversations import Turn
        >>> asked = BenchmarkQuestion("r", (Turn("Which? A. AF B. LBBB", "A"),), {}, "r")
        >>> answers = [BenchmarkAnswer(asked, ("I cannot tell",))]
        >>> rows = score_benchmark(benchmark_task("mmmu-ecg"), answers, method="evl_ecg", allow_partial=True, n_bootstrap=0)
        >>> [(row["metric"], row["value"]) for row in rows]
        [('accuracy', 0.0), ('unparsed', 1.0), ('accuracy_compat', 1.0), ('random_letters_compat', 1.0)]
    """
    strict = strict_scores(task, answers, allow_partial=allow_partial, n_bootstrap=n_bootstrap)
    first = [answer.question.turns[0] for answer in answers]
    released = compat_scores(
        task.name,
        [turn.question for turn in first],
        [answer.texts[0] for answer in answers],
        [turn.answer for turn in first],
        seed=compat_seed,
        allow_partial=allow_partial,
    )
    if "random_letters" in released:
        released["random_letters"] /= len(answers)
    return _rows(task, strict, released, method, seed, len(answers))


def score_verdicts(
    task: BenchmarkTask,
    verdicts: Sequence[Verdict],
    *,
    method: str,
    seed: int | None = None,
    allow_partial: bool = False,
    n_bootstrap: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of a judged task, as `score_benchmark`; see `hf_evl_ecg.benchmarks.verdicts.verdict_scores`."""
    strict, released = verdict_scores(task, verdicts, allow_partial=allow_partial, n_bootstrap=n_bootstrap)
    return _rows(task, strict, released, method, seed, len(verdicts))


def benchmark_table(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Markdown: one line per task, metric and method, strict with interval beside as released.

    Args:
        rows: From `score_benchmark` and `score_verdicts`.
        notes: Lines below the table, such as what was skipped.
    """
    released = {
        (row["method"], row["seed"], row["task"], row["metric"].removesuffix(COMPAT)): row
        for row in rows
        if row["metric"].endswith(COMPAT)
    }
    lines = ["| task | metric | method | n | strict | as released |", "|---|---|---|---:|---:|---:|"]
    names = {
        (row["method"], row["seed"], row["task"], row["metric"].removesuffix(COMPAT)): row for row in reversed(rows)
    }
    strict = {(r["method"], r["seed"], r["task"], r["metric"]): r for r in rows if not r["metric"].endswith(COMPAT)}
    order = list(dict.fromkeys((r["method"], r["seed"], r["task"], r["metric"].removesuffix(COMPAT)) for r in rows))
    for key in sorted(order, key=lambda key: [row["task"] for row in rows].index(key[2])):
        method, seed, task, metric = key
        name = method if seed is None else f"{method}, seed {seed}"
        cells = [task, metric, name, str(names[key]["n"]), _text(strict.get(key)), _text(released.get(key))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Values × 100, strict ones with 95 % bootstrap intervals over ECGs; bold: beats the best answer that ignores the ECG in at "
        "least 97.5 % of the resamples. As released: with the faults of the released scorers, to compare with published rows only; "
        "their macro AUC is taken over hard answers (strict: balanced accuracy), and an answer without a letter gets a random one "
        "(seeded; the share is random_letters).",
    ]
    return "\n".join([*lines, *notes]) + "\n"


def _rows(
    task: BenchmarkTask,
    strict: Mapping[str, Estimate | None],
    released: Mapping[str, float],
    method: str,
    seed: int | None,
    n: int,
) -> list[dict[str, Any]]:
    about = {"method": method, "seed": seed, "task": task.name, "dim": None}
    unknown = {"ci_low": None, "ci_high": None, "chance": None, "above_chance": None}
    rows = [
        {
            **about,
            **{"metric": metric, "value": found.value, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high},
            **{"chance": found.chance, "above_chance": found.above_chance},
        }
        for metric, found in strict.items()
        if found is not None
    ]
    return rows + [
        {**about, "metric": f"{metric}{COMPAT}", "value": value, "n": n, **unknown}
        for metric, value in released.items()
        if math.isfinite(value)
    ]


def _text(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    value = f"{100 * row['value']:.1f}"
    if row["ci_low"] is not None:
        value += f" [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    return f"**{value}**" if row["above_chance"] else value
