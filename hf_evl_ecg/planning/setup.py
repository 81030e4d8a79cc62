"""A run that is planned: which models, in which form, on which batch; counted without their weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.criterion import build_criterion
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.models.answer_attention import attend_eagerly
from hf_evl_ecg.models.native import base_model

from .batches import TextBudget, TokenBudget, example_batch, measure_budget
from .memory import Held
from .networks import ParameterCount, count_parameters, load_shape, vocabulary_size, weight_bytes
from .optimizers import state_bytes, step_bytes
from .step import StepCount, count_step

__all__ = ["Counted", "PlannedConfig", "Setup", "count_setup"]

_TOP_K = 64  # of hf-evl-ecg cache


@dataclass
class PlannedConfig(EVLECGConfig):
    """Arguments of a run that is not started here: what only a GPU can do is not refused."""

    def __post_init__(self) -> None:
        self.use_cpu, self.tf32, self.torch_compile = True, None, False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # older names are right for older hosts
            super().__post_init__()


@dataclass(frozen=True)
class Setup:
    """What a run consists of.

    Attributes:
        student: Folder or Hub name.
        teacher: The same; None: no teacher.
        args: Arguments of the run.
        load_image: Example → page.
        student_text: Tokens beside the page in the student.
        teacher_text: The same in the teacher.
        dtype: Type of the student's weights.
        teacher_dtype: Type of the teacher's.
        cached: The teacher's features come from a cache.
        wrap: Puts adapters into the student, or returns it as it is.
        adapters: Puts adapters into it where ``wrap`` does not: a switch to offer; None: there is none.
    """

    student: str
    teacher: str | None
    args: EVLECGConfig
    load_image: Callable[[Mapping[str, Any]], Any]
    student_text: TextBudget
    teacher_text: TextBudget
    dtype: str = "float32"
    teacher_dtype: str = "auto"
    cached: bool = False
    wrap: Callable[[Any], nn.Module] = lambda model: model
    adapters: Callable[[Any], nn.Module] | None = None

    @property
    def cache_layout(self) -> CacheLayout:
        """What a cache for this run holds, with the defaults of ``hf-evl-ecg cache`` where the run leaves a choice.

        Raises:
            ModelLoadError: The teacher's configuration, which says how many answer probabilities there are, cannot be found.
        """
        args = self.args
        whole = args.lambda_kl > 0 or (args.lambda_uld > 0 and args.uld_top_k is None)
        return CacheLayout(
            layers=(args.teacher_layer,),
            tokens=args.hidden_tokens,
            visual_pool=args.teacher_visual_pool,
            positions=args.ot_position_weight > 0,
            visual_weights=args.visual_weights,
            top_k=vocabulary_size(str(self.teacher)) if whole else max(_TOP_K, args.uld_top_k or 0),
        )

    def changed(self, args: Mapping[str, Any] | None = None, **fields: Any) -> Setup:
        """The same run with other fields, or other training arguments.

        Example:
            >>> from hf_evl_ecg.drawing.image_file import ImageFile
            >>> text = TextBudget(100, 20)
            >>> setup = Setup("s", None, PlannedConfig("out", alpha=0), ImageFile(), text, text)
            >>> setup.changed({"per_device_train_batch_size": 1}).args.per_device_train_batch_size
            1
        """
        other = copy.copy(self.args)
        for name, value in (args or {}).items():
            setattr(other, name, value)
        return replace(self, args=other, **fields)


@dataclass(frozen=True)
class Counted:
    """What was counted of a setup; bytes and FLOP of one GPU and one micro-batch.

    Attributes:
        student: Parameters of the student.
        teacher: Parameters of the teacher, if there is one.
        student_tokens: Tokens of a page in the student.
        teacher_tokens: Tokens of a page in the teacher.
        criterion_parameters: Parameters of aligner and projectors.
        held: Bytes that stay from step to step.
        step: FLOP and bytes of a micro-batch.
        teacher_width: Width of the teacher's hidden states.
    """

    student: ParameterCount
    teacher: ParameterCount | None
    student_tokens: TokenBudget
    teacher_tokens: TokenBudget | None
    criterion_parameters: int
    held: Held
    step: StepCount
    teacher_width: int


def count_setup(setup: Setup) -> Counted:
    """Count parameters, a micro-batch, and what stays in memory.

    Raises:
        ModelLoadError: A model cannot be found.
        ValueDependentError: A term cannot be counted without values.
        ValueError: The budgets of tokens, the optimizer or the terms do not fit.
    """
    args = setup.args
    # Where weights of visual tokens come from depends on values; they are a few numbers a token, beside thousands.
    uniform = setup.changed({"visual_weights": "uniform"}).args
    student, processor = load_shape(setup.student, setup.dtype)
    student_tokens = measure_budget(processor, setup.load_image, args.system_prompt)
    student_batch = (student_tokens, setup.student_text, args.per_device_train_batch_size)
    batch: dict[str, Any] = dict(
        example_batch(
            processor, setup.load_image, *student_batch, system_prompt=args.system_prompt, max_length=args.max_length
        )
    )
    teacher, teacher_tokens, teacher_processor = None, None, None
    if setup.teacher is not None:
        teacher, teacher_processor = load_shape(setup.teacher, setup.teacher_dtype)
        if args.visual_weights == "teacher_attention":
            attend_eagerly(teacher)
        teacher_tokens = measure_budget(teacher_processor, setup.load_image, args.teacher_system_prompt)
        batch["teacher"] = example_batch(
            teacher_processor,
            setup.load_image,
            teacher_tokens,
            setup.teacher_text,
            args.per_device_train_batch_size,
            system_prompt=args.teacher_system_prompt,
            max_length=args.teacher_max_length,
            side="teacher_",
        )
    model = setup.wrap(student)
    if args.freeze_vision_tower:
        base_model(model).get_encoder(modality="image").requires_grad_(False)
    if args.gradient_checkpointing:
        _checkpoint(model, args)
    signal = None if teacher is None else OnlineTeacher(teacher)
    criterion = build_criterion(model, signal, uniform, (processor, teacher_processor))
    read = teacher if criterion.needs_teacher else None
    if setup.cached and criterion.needs_embeddings:
        raise ValueError(f"lambda_dskd={args.lambda_dskd}: a cache holds no embeddings (plan with the teacher itself)")
    cache = setup.cache_layout if setup.cached and read is not None else None
    layers = _layers(model)
    held = Held(
        weights=weight_bytes(model),
        gradients=weight_bytes(model, trained=True),
        optimizer=state_bytes(args, model),
        optimizer_step=step_bytes(args, model) + step_bytes(args, criterion),
        aligner=weight_bytes(criterion) + state_bytes(args, criterion),
        aligner_gradients=weight_bytes(criterion),
        teacher_weights=0 if read is None or setup.cached else weight_bytes(read),
        block=max(map(weight_bytes, layers)),
        outside=weight_bytes(model) - sum(map(weight_bytes, layers)),
    )
    return Counted(
        student=count_parameters(model),
        teacher=None if teacher is None else count_parameters(teacher),
        student_tokens=student_tokens,
        teacher_tokens=teacher_tokens,
        criterion_parameters=sum(p.numel() for p in criterion.parameters()),
        held=held,
        teacher_width=0 if signal is None else signal.hidden_dim,
        step=count_step(model, read, criterion, uniform, batch, cache=cache),  # last: it takes the values away
    )


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers that models are sharded and recomputed by: members of the outermost lists of modules."""
    found: list[nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _layers(child)
    return found


def _checkpoint(model: Any, args: EVLECGConfig) -> None:
    """Gradient checkpointing as the Trainer turns it on."""
    kwargs: dict[str, Any] = dict(args.gradient_checkpointing_kwargs or {})  # type: ignore[arg-type]  # no text after its checks
    own = {name: kwargs.pop(name) for name in ("every_n_layers", "offload") if name in kwargs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the new name is not there in the oldest host that is allowed
        model.gradient_checkpointing_enable(kwargs or None, **own)
