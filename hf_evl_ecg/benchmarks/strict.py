"""Strict scores of benchmark answers: whole words, every record counted, intervals, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hf_evl_ecg.qa import metrics
from hf_evl_ecg.qa.bootstrap import Array, Estimate, bootstrap_weights, estimate
from hf_evl_ecg.qa.grading import label_matrix

from .answering import BenchmarkAnswer
from .reading import read_choice, read_labels, read_options
from .tasks import BenchmarkTask

__all__ = ["check_size", "resample_ecgs", "share", "strict_scores"]

Scores = dict[str, Estimate | None]
STATES = ("NORM", "ABNORMAL")  # answers to CODE-15% beside its six labels


def check_size(task: BenchmarkTask, answers: Sequence[BenchmarkAnswer], allow_partial: bool) -> None:
    """Refuse another number of answers than the test set has: scores of a part are not those of the whole.

    Raises:
        ValueError: No answers, or another number.
    """
    if not answers or (len(answers) != task.size and not allow_partial):
        raise ValueError(
            f"{len(answers)} answers: {task.name} has {task.size} records (set allow_partial to score a part of them)"
        )


def resample_ecgs(answers: Sequence[BenchmarkAnswer], n_bootstrap: int, seed: int = 0) -> Array | None:
    """How often each answer counts in each resample of the ECGs. Shape: (R, n); None without resamples."""
    return bootstrap_weights([answer.question.ecg for answer in answers], n_bootstrap, seed) if n_bootstrap else None


def share(values: Sequence[float | bool], weights: Array | None, chance: float | None = None) -> Estimate | None:
    """Mean of values with its interval, such as the share of right answers."""
    array = np.asarray(values, np.float64)
    return estimate(lambda w: metrics.accuracy(array, w), len(array), weights, chance)


def strict_scores(
    task: BenchmarkTask,
    answers: Sequence[BenchmarkAnswer],
    *,
    allow_partial: bool = False,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score the answers to a task that needs no judge.

    - "labels": ``accuracy`` (the whole set), ``macro_f1``, ``hamming_loss``, ``balanced_accuracy`` (mean over classes; what the
      released scorers call AUC), and ``macro_auc`` of the likelihoods, where there are any; over the classes of the references.
    - "choice", "options": ``accuracy``.
    - always ``unparsed``: the share of answers that could not be read. They count as wrong, and as naming no label.

    Args:
        task: The task.
        answers: One for each record.
        allow_partial: Accept another number of answers than the test set has.
        n_bootstrap: Resamples of the ECGs for the intervals; 0 for none.
        seed: Their seed.

    Returns:
        Metric → estimate; None where it is undefined.

    Raises:
        ValueError: Another number of answers, or a reference that cannot be read.

    Example:
        >>> from hf_evl_ecg.benchmarks.questions import BenchmarkQuestion
        >>> from hf_evl_ecg.benchmarks.tasks import benchmark_task
        >>> from hf_evl_ecg.chat.conversations import Turn
        >>> asked = BenchmarkQuestion("r", (Turn("Which leads? Options: lead I, lead II", "lead I"),), {}, "r")
        >>> found = strict_scores(benchmark_task("ecgqa-test"), [BenchmarkAnswer(asked, ("lead II",))], allow_partial=True, n_bootstrap=0)
        >>> found["accuracy"].value  # as sets of characters the two are equal
        0.0
    """
    check_size(task, answers, allow_partial)
    weights = resample_ecgs(answers, n_bootstrap, seed)
    if task.kind == "labels":
        return _label_scores(task, answers, weights)
    read: Callable[[str, str], object] = {"choice": read_choice, "options": read_options}[task.kind]
    turns = [answer.question.turns[0] for answer in answers]
    truth = [read(turn.answer, turn.question) for turn in turns]
    if unread := [a.question.record for a, right in zip(answers, truth, strict=True) if right is None]:
        raise ValueError(f"{task.name}: references of {unread[:5]} cannot be read (correct the file)")
    said = [read(answer.texts[0], turn.question) for answer, turn in zip(answers, turns, strict=True)]
    # The best answer that ignores the ECG and the options: the commonest one.
    chance = float(metrics.best_constant([str(sorted(t) if isinstance(t, frozenset) else t) for t in truth]).mean())
    return {
        "accuracy": share([one == other for one, other in zip(said, truth, strict=True)], weights, chance),
        "unparsed": share([one is None for one in said], weights),
    }


def _label_scores(task: BenchmarkTask, answers: Sequence[BenchmarkAnswer], weights: Array | None) -> Scores:
    known = (*STATES, *task.labels) if task.name == "code15-test" else task.labels
    truth_sets = [read_labels(a.question.turns[0].answer, known) or frozenset() for a in answers]
    said_sets = [read_labels(a.texts[0], known) for a in answers]
    classes = [label for label in known if any(label in labels for labels in truth_sets)]
    if not classes:
        raise ValueError(f"{task.name}: no reference holds one of its labels (correct the file)")
    truth, said = label_matrix(truth_sets, classes), label_matrix(said_sets, classes)
    n, majority = len(answers), np.broadcast_to(truth.mean(0) > 0.5, truth.shape)
    right = [one == other for one, other in zip(said_sets, truth_sets, strict=True)]
    constant = float(metrics.best_constant([str(sorted(labels)) for labels in truth_sets]).mean())
    everything = np.ones_like(truth)  # to name every class is the constant answer with the best F1
    scores: Scores = {
        "accuracy": share(right, weights, constant),
        "macro_f1": estimate(
            lambda w: metrics.macro_f1(truth, said, w), n, weights, lambda w: metrics.macro_f1(truth, everything, w)
        ),
        "hamming_loss": estimate(
            lambda w: metrics.hamming_loss(truth, said, w),
            n,
            weights,
            lambda w: metrics.hamming_loss(truth, majority, w),
            lower_is_better=True,
        ),
        # of hard answers the area under the ROC curve is the mean of both recalls
        "balanced_accuracy": estimate(lambda w: metrics.macro_auc(truth, said.astype(float), w), n, weights, 0.5),
    }
    if all(answer.scores for answer in answers):
        scored = [label for label in classes if label in task.labels]  # NORM and ABNORMAL of CODE-15% are not asked for
        columns = [task.labels.index(label) for label in scored]
        table = np.array([answer.scores for answer in answers])[:, columns]
        own = label_matrix(truth_sets, scored)
        scores["macro_auc"] = estimate(lambda w: metrics.macro_auc(own, table, w), n, weights, 0.5)
    scores["unparsed"] = share([one is None for one in said_sets], weights)
    return scores
