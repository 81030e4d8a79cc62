"""What goes wrong with a run's numbers is named: a student whose tokens shrink to one point, and values that are no numbers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import TrainerCallback

from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures

from .meter import count_answer_tokens

__all__ = [
    "COLLAPSED_SHARE",
    "BatchPlace",
    "CollapseWarning",
    "NonFiniteLossError",
    "SampleFeatures",
    "check_loss",
    "collapsed_now",
    "finite_samples",
    "leave_out_non_finite",
    "select_samples",
]

logger = logging.getLogger(__name__)

COLLAPSED_SHARE = 0.05
"""Of its first value; a collapse ends near 0.003 (an untrained aligner as target), half way there on a logarithmic scale."""

_NAME = "student_variance"


def collapsed_now(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last entry of a training log is the first one with less than ``COLLAPSED_SHARE`` of the first variance.

    Args:
        history: ``trainer.state.log_history``, which a resumed run goes on with.

    Example:
        >>> log = [{"student_variance": v} for v in (1.0, 0.8, 0.003, 0.002)]
        >>> [collapsed_now(log[:end]) for end in (1, 2, 3, 4)]
        [False, False, True, False]
    """
    values = [entry[_NAME] for entry in history if _NAME in entry]
    if not values or _NAME not in history[-1]:
        return False
    below = [value < COLLAPSED_SHARE * values[0] for value in values]
    return below[-1] and sum(below) == 1


class CollapseWarning(TrainerCallback):
    """Warns once, with the step, when the student's token variance has collapsed."""

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at what was just logged; one process speaks for all, as the values are means over them."""
        if state.is_world_process_zero and collapsed_now(state.log_history):
            logger.warning(
                "step %d: the variance of the student's matched states has fallen to %.2g, less than %.0f %% of its first "
                "value: they shrink to one point, whatever the loss says (try mhca_mode='anchored', hidden_tokens='answer', "
                "or a lower alpha).",
                state.global_step,
                state.log_history[-1][_NAME],
                100 * COLLAPSED_SHARE,
            )


class NonFiniteLossError(RuntimeError):
    """A loss, or what it is made of, is NaN or infinite, which one step would spread to every weight."""


class BatchPlace(NamedTuple):
    """What messages and counts need to know of a batch: the number of its step, its samples' names, and their labels."""

    step: int
    records: Sequence[str]
    labels: Tensor


SampleFeatures = tuple[TokenFeatures, TokenFeatures | None, AnswerGroups | None]
"""Features of student and teacher, and groups of their answer tokens, of the same samples."""

_READ = {"hidden": "mask", "visual": "visual_mask", "answer_hidden": "answer_mask", "answer_logits": "answer_mask"}
_Samples = TypeVar("_Samples", TokenFeatures, AnswerGroups)


def finite_samples(features: TokenFeatures) -> Tensor:
    """In which samples every value that a loss reads is finite; what padding holds does not count.

    Returns:
        Shape: (B,), bool.

    Example:
        >>> hidden = torch.tensor([[[1.0], [float("inf")]], [[float("nan")], [0.0]]])
        >>> finite_samples(TokenFeatures(hidden, torch.tensor([[True, False], [True, True]]), None, None))
        tensor([ True, False])
    """
    finite = torch.ones(features.hidden.shape[0], dtype=torch.bool, device=features.hidden.device)
    for name, mask in _READ.items():
        values, of_tokens = getattr(features, name), getattr(features, mask)
        if values is not None and of_tokens is not None:
            finite &= (values.isfinite().all(2) | ~of_tokens).all(1)
    return finite


def select_samples(features: _Samples, kept: Tensor) -> _Samples:
    """Some samples of a batch's features or groups.

    Args:
        features: Of which every tensor has one row a sample.
        kept: True for those that stay. Shape: (B,), bool.

    Example:
        >>> groups = AnswerGroups(torch.tensor([[0, 1], [0, -1]]), torch.tensor([[0], [0]]))
        >>> select_samples(groups, torch.tensor([False, True])).teacher
        tensor([[ 0, -1]])
    """
    parts = {field.name: getattr(features, field.name) for field in dataclasses.fields(features)}
    return dataclasses.replace(features, **{name: part[kept] for name, part in parts.items() if part is not None})


def leave_out_non_finite(
    batch: SampleFeatures, where: BatchPlace, *, skip: bool
) -> tuple[SampleFeatures, Tensor, list[str]]:
    """The samples of which all that the teacher says is a number; some losses would turn others into a wrong target without a word.

    Args:
        batch: Features of all samples.
        where: The batch's place.
        skip: Whether samples may be left out.

    Returns:
        Features of those that stay, or of all without what is no number if none would stay; answer tokens, examples and answered
            examples to count, shape (3,); and what was left out, and why.

    Raises:
        NonFiniteLossError: The teacher's values are no numbers, and nothing may be left out.
    """
    student, teacher, groups = batch
    counted = count_answer_tokens(where.labels)
    if teacher is None or (finite := finite_samples(teacher)).all():
        return batch, counted, []
    names = _named(where, finite)
    if not skip:
        raise NonFiniteLossError(
            f"step {where.step}: values of the teacher hold NaN or infinity for {', '.join(names)}; float16 overflows in many models: load "
            "it in bfloat16 or float32 (on_bad_example='skip' leaves such samples out)."
        )
    left_out = [f"{name}: the teacher's values hold NaN or infinity" for name in names]
    if not finite.any():  # its terms count nothing, and have their names on every process
        read = {name: getattr(teacher, name) for name in _READ}
        zeroed = {name: torch.where(v.isfinite(), v, 0) for name, v in read.items() if v is not None}
        return (student, dataclasses.replace(teacher, **zeroed), groups), torch.zeros_like(counted), left_out
    kept = select_samples(student, finite), select_samples(teacher, finite)
    own = None if groups is None else select_samples(groups, finite)
    return (*kept, own), count_answer_tokens(where.labels[finite]), left_out


def check_loss(terms: Mapping[str, Tensor], student: TokenFeatures, where: BatchPlace) -> None:
    """Refuse a loss that is no number; it waits for the device, as transformers' Trainer does at each loss anyway.

    Args:
        terms: The loss's terms.
        student: The student's features of all samples.
        where: The batch's place.

    Raises:
        NonFiniteLossError: With the terms and records, and what to do.
    """
    if torch.stack(list(terms.values())).sum().isfinite():
        return
    wrong = ", ".join(name for name, term in terms.items() if not term.isfinite())
    text = f"step {where.step}: the loss is not finite ({wrong})"
    lower = "resume from a checkpoint with a lower learning_rate, or in bfloat16"
    finite = finite_samples(student)
    if finite.all():
        named = ", ".join(where.records)
        raise NonFiniteLossError(
            f"{text}, although all values are, for {named}: a term overflows (lower its weight, or {lower})."
        )
    named = ", ".join(_named(where, finite))
    raise NonFiniteLossError(
        f"{text}: values of the student hold NaN or infinity for {named}; it has diverged or overflows: {lower}."
    )


def _named(where: BatchPlace, finite: Tensor) -> list[str]:
    return [record for record, good in zip(where.records, finite.tolist(), strict=True) if not good]
