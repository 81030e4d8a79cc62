"""Answers to chains → per-stage accuracies, whole chains, how far a chain goes before its first error; with intervals and chance.

Metrics of ECG-Reasoning-Benchmark (arXiv 2603.14326) under its names where it has them: accuracy of the initial diagnosis, accuracy of
each stage with the right answers before it, Completion, Depth, and the accuracy of the diagnosis after right reasoning (GT-RDA). The
answers are read strictly instead of by the released string rules or a language model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_evl_ecg.qa import metrics
from hf_evl_ecg.qa.bootstrap import bootstrap_weights, estimate

from .asking import ChainAnswers
from .chains import GROUNDING, STAGES, Chain, Step
from .reading import read_step

__all__ = ["DEPTH_STAGES", "GradedChain", "grade_chain", "reasoning_table", "score_chains"]

DEPTH_STAGES = 4
"""Criterion, finding, grounding (all of its questions), decision: what a loop can get through."""
_PER_DIAGNOSIS = ("initial_accuracy", "final_accuracy", "completion", "progress")


class GradedChain:
    """Which answers of a chain are right.

    Attributes:
        chain: The questions.
        initial: Whether the diagnosis, asked outright, is right.
        right: Whether each step is.
        unparsed: Whether each answer could not be read, that to the diagnosis first.
    """

    def __init__(self, answers: ChainAnswers) -> None:
        self.chain: Chain = answers.chain
        steps: list[Step] = [self.chain.initial, *self.chain.steps]
        read = [read_step(text, step) for text, step in zip((answers.initial, *answers.texts), steps, strict=True)]
        right = [found == step.answer for found, step in zip(read, steps, strict=True)]
        self.initial, self.right = right[0], right[1:]
        self.unparsed = [found is None for found in read]

    @property
    def before_error(self) -> int:
        """Steps before the first error; all of them if there is none."""
        return self.right.index(False) if False in self.right else len(self.right)

    @property
    def complete(self) -> bool:
        """Whether every step is right."""
        return all(self.right)

    @property
    def depths(self) -> list[int]:
        """Stages passed in each loop that asks where a finding is seen, 0 to `DEPTH_STAGES`; none behind the first error.

        Loops without such questions do not count, as in the released scorer.
        """
        found = []
        for loop in self.chain.loops:
            if _has_grounding(self.chain, loop):
                ends = _stage_ends(self.chain, loop)
                found.append(sum(end < self.before_error for end in ends))
        return found


def grade_chain(answers: ChainAnswers) -> GradedChain:
    """Read and compare every answer.

    Example:
        >>> from hf_evl_ecg.reasoning.chains import yes_no
        >>> steps = (yes_no("finding", "Is PR above 200 ms?", True, 0), yes_no("decision", "Is it a block?", True, 0))
        >>> chain = Chain("r", "first_degree_av_block", True, yes_no("initial", "Is it a block?", True), steps, {})
        >>> graded = grade_chain(ChainAnswers(chain, "Yes", ("Yes", "B")))
        >>> graded.initial, graded.right, graded.before_error, graded.complete
        (True, [True, False], 1, False)
    """
    return GradedChain(answers)


def score_chains(
    answers: Sequence[ChainAnswers],
    *,
    task: str,
    method: str,
    seed: int | None = None,
    n_bootstrap: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of a results json.

    - ``initial_accuracy``: the diagnosis, asked outright.
    - ``criterion_accuracy``, ``finding_accuracy``, ``lead_accuracy``, ``wave_accuracy``, ``measurement_accuracy``,
      ``grounding_accuracy`` (the last three together), ``decision_accuracy``: each stage, whatever came before.
    - ``final_accuracy``: the last decision of a chain (GT-RDA, where the right answers stood before it).
    - ``completion``: chains without an error; ``alignment``: those whose diagnosis, asked outright, is right too.
    - ``progress``: share of a chain's steps before its first error.
    - ``depth``: stages passed in a loop that asks where a finding is seen, of `DEPTH_STAGES`; none behind the first error.
    - ``unparsed``: answers that cannot be read, which count as wrong.

    Chance is that of options drawn evenly, as in the benchmark's baseline.

    Args:
        answers: From `hf_evl_ecg.reasoning.asking.answer_chains`.
        task: Name of the task in the rows; rows of single diagnoses have it with their name, ``TASK/DIAGNOSIS``.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        n_bootstrap: Resamples of the records for the intervals; 0 for none.

    Raises:
        ValueError: There are no answers.
    """
    if not answers:
        raise ValueError(f"{task}, {method}: there are no answers to score")
    graded = [grade_chain(answer) for answer in answers]
    rows = _rows(graded, task, n_bootstrap)
    names = dict.fromkeys(one.chain.diagnosis for one in graded)
    for name in names if len(names) > 1 else ():
        own = [one for one in graded if one.chain.diagnosis == name]
        rows += [row for row in _rows(own, f"{task}/{name}", n_bootstrap) if row["metric"] in _PER_DIAGNOSIS]
    return [{"method": method, "seed": seed, **row} for row in rows]


def reasoning_table(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Markdown: one line per task, metric and method, with interval and chance.

    Args:
        rows: From `score_chains`.
        notes: Lines below the table.
    """
    lines = ["| task | metric | method | n | value | chance |", "|---|---|---|---:|---:|---:|"]
    places = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    for row in sorted(rows, key=lambda row: places.index((row["task"], row["metric"]))):
        name = row["method"] if row["seed"] is None else f"{row['method']}, seed {row['seed']}"
        value, low, high, chance = (_text(row[key], row["metric"]) for key in ("value", "ci_low", "ci_high", "chance"))
        shown = value if row["ci_low"] is None else f"{value} [{low}, {high}]"
        shown = f"**{shown}**" if row["above_chance"] else shown
        lines.append(f"| {row['task']} | {row['metric']} | {name} | {row['n']} | {shown} | {chance} |")
    lines += [
        "",
        f"Values × 100 (depth: stages of {DEPTH_STAGES}) with 95 % bootstrap intervals over records; bold: beats options drawn evenly in at "
        "least 97.5 % of the resamples. Answers are read strictly; unparsed ones count as wrong.",
    ]
    return "\n".join([*lines, *notes]) + "\n"


def _text(value: float | None, metric: str) -> str:
    return "–" if value is None else f"{value:.2f}" if metric == "depth" else f"{100 * value:.1f}"


def _has_grounding(chain: Chain, loop: Sequence[int]) -> bool:
    return any(chain.steps[i].stage in GROUNDING for i in loop)


def _stage_ends(chain: Chain, loop: Sequence[int]) -> list[int]:
    """Index of the last step of each stage of a loop; grounding is one stage."""
    ends: dict[str, int] = {}
    for i in loop:
        stage = chain.steps[i].stage
        ends["grounding" if stage in GROUNDING else stage] = i
    return list(ends.values())


def _rows(graded: Sequence[GradedChain], task: str, n_bootstrap: int) -> list[dict[str, Any]]:
    """Rows without method and seed."""
    # metric → values, chance of each, and the record that each belongs to
    table: dict[str, list[tuple[float, float, str]]] = {}

    def add(metric: str, value: float, chance: float, one: GradedChain) -> None:
        table.setdefault(metric, []).append((value, chance, one.chain.record))

    for one in graded:
        steps = one.chain.steps
        passed = np.cumprod([step.chance for step in steps])  # probability of no error up to a step
        add("initial_accuracy", one.initial, one.chain.initial.chance, one)
        for step, right in zip(steps, one.right, strict=True):
            add(f"{step.stage}_accuracy", right, step.chance, one)
            if step.stage in GROUNDING:
                add("grounding_accuracy", right, step.chance, one)
        add("final_accuracy", one.right[-1], steps[-1].chance, one)
        add("completion", one.complete, passed[-1], one)
        add("alignment", one.complete and one.initial, passed[-1] * one.chain.initial.chance, one)
        add("progress", one.before_error / len(steps), passed.sum() / len(steps), one)
        loops = [loop for loop in one.chain.loops if _has_grounding(one.chain, loop)]
        for loop, depth in zip(loops, one.depths, strict=True):
            add("depth", depth, sum(passed[end] for end in _stage_ends(one.chain, loop)), one)
        for unread in one.unparsed:
            add("unparsed", unread, math.nan, one)
    stages = [f"{stage}_accuracy" for stage in (*STAGES[:-1], "grounding", STAGES[-1], "final")]
    order = [*stages, "completion", "alignment", "progress", "depth", "unparsed"]
    rows = []
    for metric in sorted(table, key=order.index):
        values, chances, records = (list(column) for column in zip(*table[metric], strict=True))
        array, expected = np.asarray(values, np.float64), float(np.mean(chances))
        weights = bootstrap_weights(records, n_bootstrap) if n_bootstrap else None
        found = estimate(
            lambda w, array=array: metrics.accuracy(array, w),  # type: ignore[misc]
            len(array),
            weights,
            None if metric == "unparsed" else expected,
        )
        assert found is not None  # values are finite
        about = {"value": found.value, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high}
        rows.append(
            {
                "task": task,
                "dim": None,
                "metric": metric,
                **about,
                "chance": found.chance,
                "above_chance": found.above_chance,
            }
        )
    return rows
