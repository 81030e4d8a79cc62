"""Two methods on the same questions about the same records: the difference of their scores, with an interval for the difference itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.qa.bootstrap import Array, bootstrap_weights
from hf_evl_ecg.qa.groups import Answer, Metric, TaskGroup, group_by_task
from hf_evl_ecg.qa.task_scores import ranking_metric, text_metric

from .models import by_source
from .tables import GAIN

__all__ = ["PairedGain", "comparison_rows", "gain_rows", "paired_gains"]

Measure = Callable[[TaskGroup], tuple[str, Metric] | None]
"""Task → name of a metric and the metric, or None where the task has none: `ranking_metric`, `hf_evl_ecg.qa.task_scores.text_metric`."""


@dataclass(frozen=True)
class PairedGain:
    """A difference of two methods, in the metric's own unit.

    Attributes:
        value: Mean over the runs of the first, less that of the second, on all records.
        ci_low: 2.5th percentile over resamples of the records, the same for both methods and all runs.
        ci_high: 97.5th percentile.
        n: Questions.
        metric: What was compared: ``auc``, ``macro_auc``, or ``mean_macro_auc`` of several tasks.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    metric: str


def paired_gains(
    items: Sequence[Mapping[str, Any]],
    ours: Sequence[Sequence[Answer]],
    theirs: Sequence[Sequence[Answer]],
    *,
    means: Mapping[str, Sequence[str]] | None = None,
    measure: Measure = ranking_metric,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, PairedGain]:
    """What one method gains over another on every task that has the measure; by default those that rank records by likelihoods.

    A record that is hard for one model is hard for the other, so the interval of a difference is narrower than the two intervals
    suggest: each resample takes the same records for both.

    Args:
        items: Questions, with ``source`` and ``record``.
        ours: Answers of each run (training seed) of the one method, in the order of the questions.
        theirs: The same of the other; it may have another number of runs.
        means: Name → tasks whose mean is compared too, each task weighing the same.
        measure: What is compared of a task.
        n_bootstrap: Resamples of the records.
        seed: Their seed.

    Returns:
        Task, as in a results json (``ludb:rhythm_fill``), or name of a mean → gain. Intervals cover the choice of the records, not the
        spread over training seeds.

    Raises:
        ValueError: A method without runs, a run that did not answer all questions, or a mean over an unknown task.
    """
    scores = _score_all(items, {"ours": ours, "theirs": theirs}, measure, n_bootstrap, seed)
    return _gains(scores["ours"], scores["theirs"], means or {})


def comparison_rows(
    items: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Sequence[Sequence[Answer]]],
    *,
    over: Sequence[str] = (),
    means: Mapping[str, Sequence[str]] | None = None,
    measure: Measure = ranking_metric,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of a results json for whole methods: means over tasks, and gains over other methods.

    Args:
        items: As in `paired_gains`.
        runs: Method → answers of each of its runs.
        over: Methods that all others are compared with, of ``runs``.
        means: As in `paired_gains`.
        measure: As in `paired_gains`.
        n_bootstrap: Resamples of the records, the same for all.
        seed: Their seed.

    Returns:
        Rows without a seed: ``mean_macro_auc`` of each mean, and ``METRIC_gain_over_OTHER`` of each task and mean, whose chance is 0.
    """
    if unknown := sorted(set(over) - set(runs)):
        raise ValueError(f"over={unknown}: no such method; allowed are {sorted(runs)}")
    scores = _score_all(items, runs, measure, n_bootstrap, seed)
    rows = []
    for method, own in scores.items():
        nothing = [{task: (metric, n, 0.0, 0 * drawn) for task, (metric, n, _, drawn) in own[0].items()}]
        absolute = _gains(own, nothing, means or {})
        found = [(name, absolute[name].metric, absolute[name]) for name in means or {}]
        for other in over:
            if other != method:
                found += [
                    (t, f"{g.metric}{GAIN}{other}", g) for t, g in _gains(own, scores[other], means or {}).items()
                ]
        for task, metric, gain in found:
            compared = GAIN in metric
            rows.append(
                {
                    "method": method,
                    "seed": None,
                    "task": task,
                    "dim": None,
                    "metric": metric,
                    "value": gain.value,
                    "n": gain.n,
                }
                | {"ci_low": gain.ci_low, "ci_high": gain.ci_high, "chance": 0.0 if compared else 0.5}
                | {"above_chance": gain.ci_low > (0.0 if compared else 0.5)}
            )
    return rows


def gain_rows(
    answered: Mapping[str, Sequence[Sequence[tuple[Mapping[str, Any], Answer]]]],
    over: Sequence[str],
    n_bootstrap: int = 2000,
) -> list[dict[str, Any]]:
    """Rows of what methods gain over others, in ranking and in generated answers, on the questions that all runs have answered.

    Args:
        answered: Method → questions and answers of each of its runs, as `hf_evl_ecg.scores.models.score_model` gives them.
        over: As in `comparison_rows`.
        n_bootstrap: Resamples of the records.
    """
    runs = {
        method: [{example_key(item): (item, answer) for item, answer in pairs} for pairs in own]
        for method, own in answered.items()
    }
    first, *others = (run for own in runs.values() for run in own)
    keys = [key for key in first if all(key in run for run in others)]
    items = [first[key][0] for key in keys]
    answers = {method: [[run[key][1] for key in keys] for run in own] for method, own in runs.items()}
    measures = (ranking_metric, text_metric)
    return [
        row
        for measure in measures
        for row in comparison_rows(items, answers, over=over, measure=measure, n_bootstrap=n_bootstrap)
    ]


def _score_all(
    items: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Sequence[Sequence[Answer]]],
    measure: Measure,
    n_bootstrap: int,
    seed: int,
) -> dict[str, list[_Scored]]:
    """Scores of each run of each method, on all records and in each resample."""
    for name, runs in methods.items():
        if not runs or any(len(run) != len(items) for run in runs):
            raise ValueError(
                f"{name}: {[len(run) for run in runs]} answers of each run for {len(items)} questions (give one run or more, "
                "each with an answer for every question)"
            )
    weights = bootstrap_weights([f"{item['source']}:{item['record']}" for item in items], n_bootstrap, seed)
    return {name: [_task_scores(items, run, measure, weights) for run in runs] for name, runs in methods.items()}


def _gains(
    ours: Sequence[_Scored], theirs: Sequence[_Scored], means: Mapping[str, Sequence[str]]
) -> dict[str, PairedGain]:
    scores = (ours, theirs)
    tasks = {task: (metric, n) for task, (metric, n, _, _) in ours[0].items()}
    if unknown := sorted({task for own in means.values() for task in own} - set(tasks)):
        raise ValueError(f"means={unknown}: no such task; allowed are {sorted(tasks)}")
    found = {task: _gain(scores, [task], metric, n) for task, (metric, n) in tasks.items()}
    for name, own in means.items():
        found[name] = _gain(scores, own, "mean_macro_auc", sum(tasks[task][1] for task in own))
    return found


_Scored = dict[str, tuple[str, int, float, Array]]
"""Task → metric, number of questions, value, value in each resample."""


def _task_scores(
    items: Sequence[Mapping[str, Any]], answers: Sequence[Answer], measure: Measure, weights: Array
) -> _Scored:
    numbered = [
        ({**item, "number": number}, answer) for number, (item, answer) in enumerate(zip(items, answers, strict=True))
    ]
    found: _Scored = {}
    for source, pairs in by_source(numbered).items():
        own_items, own_answers = zip(*pairs, strict=True)
        for group in group_by_task(own_items, own_answers):
            if (measured := measure(group)) is None:
                continue
            name, metric = measured
            own = weights[:, [item["number"] for item in group.items]]
            found[f"{source}:{group.name}"] = (name, len(group.items), float(metric(None)), np.asarray(metric(own)))
    return found


def _gain(scores: Sequence[Sequence[_Scored]], tasks: Sequence[str], metric: str, n: int) -> PairedGain:
    value = [np.mean([[run[task][2] for task in tasks] for run in runs]) for runs in scores]
    drawn = [np.mean([[run[task][3] for task in tasks] for run in runs], axis=(0, 1)) for runs in scores]
    low, high = np.nanquantile(drawn[0] - drawn[1], [0.025, 0.975])
    return PairedGain(float(value[0] - value[1]), float(low), float(high), n, metric)
