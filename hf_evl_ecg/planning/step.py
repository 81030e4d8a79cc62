"""One micro-batch of a distillation step on models without values: what it computes, by part, and what it holds at its peak."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.cache_files import DTYPES, CacheLayout
from hf_evl_ecg.distillation.criterion import Criterion, student_request, teacher_request
from hf_evl_ecg.distillation.cross_entropy import answer_cross_entropy
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.models.features import extract_features
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.models.visual_weights import share_weights
from hf_evl_ecg.tokens import TokenFeatures

from .dry_run import DryRun
from .networks import module_parts

__all__ = ["StepCount", "ValueDependentError", "autocast_of", "count_step", "training_step"]


class ValueDependentError(ValueError):
    """A term whose work depends on values, which a plan does not have."""


@dataclass(frozen=True)
class StepCount:
    """What one micro-batch on one GPU takes.

    Attributes:
        flop: FLOP by part: those of the student, forward and backward, with what gradient checkpointing computes again;
            ``"teacher"``; ``"losses"``.
        peak: Bytes by kind when their sum is largest, without weights and optimizer: see `DryRun.live`, and ``"batch"``.
        teacher_flop: FLOP of one forward pass of the teacher over the batch, whether this step runs it or not.
    """

    flop: dict[str, int]
    peak: dict[str, int]
    teacher_flop: int


def autocast_of(args: EVLECGConfig) -> AbstractContextManager[Any]:
    """Mixed precision as a run has it, on the CPU."""
    kind = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    return nullcontext() if kind is None else torch.autocast("cpu", kind)


def training_step(
    student: nn.Module,
    teacher: OnlineTeacher | TokenFeatures | None,
    criterion: Criterion,
    args: EVLECGConfig,
    batch: Mapping[str, Any],
    run: DryRun | None = None,
) -> None:
    """Forward and backward of one micro-batch, as `EVLECGTrainer.compute_loss` has them; gradients are added up.

    Args:
        student: With or without values.
        teacher: The teacher, or its features where they come from a cache.
        criterion: The loss.
        args: Arguments of the run.
        batch: The student's inputs, labels and places, the teacher's under ``"teacher"``.
        run: Told which phase is computed.
    """
    request = student_request(criterion, args, several_processes=False)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "places", "teacher", "ink")}
    with autocast_of(args):
        forward = convert_outputs_to_fp32(student) if args.bf16 or args.fp16 else student
        features = extract_features(
            student, inputs, batch["labels"], request, places=batch.get("places"), forward=forward
        )
        taught = teacher
        if isinstance(teacher, OnlineTeacher):
            with nullcontext() if run is None else run.phase("teacher"):
                taught = teacher.features(batch, teacher_request(criterion, args))
        assert not isinstance(taught, OnlineTeacher)
        if request.boxes and taught is not None:
            features, taught = share_weights(features, taught, args.visual_weight_floor)
        ce = features.hidden.new_zeros((), dtype=torch.float32)
        if features.answer_logits is not None:
            ce = answer_cross_entropy(features, label_smoothing=args.label_smoothing_factor)
        head = base_model(student).get_output_embeddings() if criterion.needs_lm_head else None
        taught_head = teacher.lm_head if isinstance(teacher, OnlineTeacher) and criterion.needs_embeddings else None
        with nullcontext() if run is None else run.phase("losses"):
            terms = criterion(features, taught, ce, lm_head=head, teacher_lm_head=taught_head)
            loss = torch.stack(list(terms.values())).sum()
    del features, taught, terms, ce
    with nullcontext() if run is None else run.phase("losses"):
        loss.backward()


def count_step(
    student: nn.Module,
    teacher: nn.Module | None,
    criterion: Criterion,
    args: EVLECGConfig,
    batch: Mapping[str, Any],
    *,
    cache: CacheLayout | None = None,
) -> StepCount:
    """Count a micro-batch; of two, the second, where gradients are accumulated.

    Args:
        student: A model, with or without weights, which loses its values.
        teacher: The same; None where no term reads it.
        criterion: The loss, which loses its values too.
        args: Arguments of the run.
        batch: As in `training_step`.
        cache: The teacher's features come from a cache of this layout; None: from the teacher.

    Raises:
        ValueDependentError: A term cannot be counted without values.
    """
    if criterion.weights.get("em_kd", 0) > 0:
        raise ValueDependentError(
            "lambda_em_kd: assigns tokens by what they hold, which a plan does not know (plan without it; it needs the student's and "
            "the teacher's visual states, as lambda_ot does)"
        )
    vocabularies = frozenset(
        base_model(model).config.get_text_config().vocab_size for model in (student, teacher) if model is not None
    )
    run = DryRun(module_parts(student), vocabularies)
    for module in (student, teacher, criterion):
        if module is not None:
            run.forget_values(module)
    tensors = [
        value for part in (batch, batch.get("teacher", {})) for value in part.values() if isinstance(value, Tensor)
    ]
    run.know(tensors)
    student.train()
    # Sinkhorn may stop early by what it finds: all of its iterations are counted, and POT's are the same.
    criterion.evl_ecg._match_visual.keywords.update(tol=0.0, backend="torch")
    signal: OnlineTeacher | TokenFeatures | None = None if teacher is None else OnlineTeacher(teacher)
    teacher_flop = 0
    try:
        with run:
            if cache is not None and isinstance(signal, OnlineTeacher):
                with run.phase("teacher"), autocast_of(args):
                    signal = _as_cached(signal.features(batch, teacher_request(criterion, args)), cache)
                teacher_flop = run.flop["teacher"]
                run.start_over()
            training_step(student, signal, criterion, args, batch, run)
            if args.gradient_accumulation_steps > 1:
                run.start_over()
                training_step(student, signal, criterion, args, batch, run)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValueDependentError(
            f"this run cannot be counted without values, as its work depends on them: {error} (leave out the terms that are not the "
            "paper's, one by one)"
        ) from error
    return StepCount(
        flop={name: count for name, count in run.flop.items() if count},
        peak={**run.peak, "batch": sum(value.numel() * value.element_size() for value in tensors)},
        teacher_flop=teacher_flop or run.flop["teacher"],
    )


def _as_cached(features: TokenFeatures, layout: CacheLayout) -> TokenFeatures:
    """Features as a cache gives them: in its type, with the largest of the logits."""
    fields = {"hidden": features.hidden, "visual": features.visual}
    held = {name: value.to(DTYPES[layout.dtype]) for name, value in fields.items() if value is not None}
    if features.answer_logits is not None:
        held["answer_logits"] = features.answer_logits[..., : layout.top_k].clone()  # a view would hold them all
        held["answer_logsumexp"] = features.answer_logits.logsumexp(-1)
    return replace(features, **held)
