"""Questions and a model's answers → rows of a results json, per task and per class, each with interval and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .calibration import fit_temperature
from .groups import Answer, group_by_task
from .task_scores import Scores, likelihood_scores, text_scores

__all__ = ["fit_temperatures", "score_answers"]


def score_answers(
    items: Sequence[Mapping[str, Any]],
    answers: Sequence[Answer],
    *,
    method: str,
    seed: int | None = None,
    temperatures: Mapping[str, float] | None = None,
    min_per_class: int = 10,
    n_bootstrap: int = 1000,
    bootstrap_seed: int = 0,
) -> list[dict[str, Any]]:
    """Score answers task by task.

    From generated text, read strictly: ``accuracy`` (yes/no, options, labels: the whole set; text: equal but for case),
    ``balanced_accuracy``, ``within_tolerance``, ``mean_absolute_error`` (of the answers that hold a number; its ``n`` says
    how many), ``macro_f1``, ``hamming_loss``, ``report_f1`` (mean F1 of the findings named), and ``unparsed``, the share
    of answers that could not be read, which count as wrong. From likelihoods: ``accuracy_likelihood``,
    ``balanced_accuracy_likelihood``, ``auc`` or ``macro_auc``, ``calibration_error`` of the normalised probabilities
    (10 bins), and ``pairs_told_apart`` (`hf_evl_ecg.qa.metrics.pairs_told_apart`) of yes/no questions. Classes get rows of their own as ``task/label``, with
    ``sensitivity`` and ``specificity``, whose ``n`` are the positive and the negative items.

    Intervals are 95 % percentile bootstrap intervals over records: questions of one record are drawn together. They do not
    cover the spread over training seeds. Chance is the best answer that ignores the ECG, chosen on the scored items.

    Args:
        items: Questions (`hf_evl_ecg.qa.items.QA_KEYS`).
        answers: One for each.
        method: Name of the method in the rows, in lower case.
        seed: Training seed in the rows.
        temperatures: Task → temperature for ``calibration_error``, from `fit_temperatures` on validation items; 1 if absent.
        min_per_class: A class gets rows of its own from this many positive items on.
        n_bootstrap: Resamples; 0 leaves the intervals out.
        bootstrap_seed: Their seed.

    Returns:
        Rows ``{"method", "seed", "task", "dim": None, "metric", "value", "n", "ci_low", "ci_high", "chance",
        "above_chance", "records"}``; values as fractions, errors in the unit asked for, the number of the task's records.

    Raises:
        ValueError: Nothing to score, or another number of answers than items.
    """
    if not items or len(items) != len(answers):
        raise ValueError(
            f"{len(items)} items, {len(answers)} answers: one answer is needed for each of at least one item"
        )
    rows = []
    for group in group_by_task(items, answers, n_bootstrap, bootstrap_seed):
        scores: Scores = {}
        records = len({answer.record for answer in group.answers})
        if all(answer.text is not None for answer in group.answers):
            scores |= text_scores(group, min_per_class)
        if all(answer.scores for answer in group.answers):
            scores |= likelihood_scores(group, (temperatures or {}).get(group.name, 1.0), min_per_class)
        rows += [
            {
                **{"method": method, "seed": seed, "task": task, "dim": None, "metric": metric},
                **{"value": found.value, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high},
                **{"chance": found.chance, "above_chance": found.above_chance, "records": records},
            }
            for (task, metric), found in scores.items()
            if found is not None
        ]
    return rows


def fit_temperatures(items: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> dict[str, float]:
    """Temperature of each task whose questions have one right option.

    Args:
        items: Questions about validation records, as in `score_answers`.
        answers: One for each, with the likelihoods of its candidates.

    Returns:
        Task → temperature, for ``temperatures`` of `score_answers`.

    Example:
        >>> item = {"format": "closed", "task": "rhythm", "answer": "yes"}
        >>> found = fit_temperatures([item] * 4, [Answer("r", None, s) for s in ((0, -2), (0, -2), (0, -2), (-2, 0))])
        >>> {task: round(value, 2) for task, value in found.items()}
        {'rhythm_closed': 1.82}
    """
    found = {}
    for group in group_by_task(items, answers):
        target = group.targets()
        if target is not None and all(answer.scores for answer in group.answers):
            found[group.name] = fit_temperature(group.likelihoods(), target)
    return found
