"""The objective of a run, and its parameters, which are trained beside the student: start, gradients and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.files import new_file
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.models.features import FeatureRequest
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.rivals.divergence import common_vocabulary
from hf_evl_ecg.rivals.loss import RivalLoss
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures

from .schedules import read_schedules
from .teacher import TeacherSignal

__all__ = [
    "SIDE_FILE",
    "Criterion",
    "CriterionCallback",
    "add_parameter_group",
    "build_criterion",
    "load_criterion",
    "save_criterion",
    "student_request",
    "teacher_request",
]

logger = logging.getLogger(__name__)

SIDE_FILE = "distillation.safetensors"
LOSS_OPTIONS, RIVAL_OPTIONS = (  # fields of EVLECGConfig of the same names
    tuple(
        name
        for name, option in signature(loss).parameters.items()
        if option.kind is option.KEYWORD_ONLY and name != "vocab_size"
    )
    for loss in (EVLECGLoss, RivalLoss)
)


class Criterion(nn.Module):
    """Terms of EVL-ECG and of rivals as one objective, with one set of parameters beside the student.

    Args:
        evl_ecg: The cross-entropy and the terms of EVL-ECG.
        rivals: The terms of rivals.
        schedules: How weights change over the run; None: not at all. See `hf_evl_ecg.distillation.schedules.read_schedules`.

    Raises:
        ValueError: No term trains the student: ``alpha`` is 1 and every ``lambda_`` of EVL-ECG and of rivals is 0.

    Attributes:
        progress: Share of the run that is over, in [0, 1]; the trainer sets it before each step.
    """

    def __init__(self, evl_ecg: EVLECGLoss, rivals: RivalLoss, schedules: Sequence[str] | None = None) -> None:
        super().__init__()
        self.evl_ecg = evl_ecg
        self.rivals = rivals
        # Asked here, where both are known: with alpha=1 a rival may train the student alone.
        if not any(weight > 0 for name, weight in self.weights.items() if name != "anchor"):
            raise ValueError(
                "alpha=1 leaves out the cross-entropy of the answers, and every other term has weight 0: nothing would train the "
                "student (lower alpha, or raise a lambda of EVL-ECG or of a rival, such as --method kl does)."
            )
        self.schedules = read_schedules(schedules or (), self.weights)
        self.progress = 1.0

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, by its name."""
        return self.rivals.weights | self.evl_ecg.weights

    @property
    def monitors(self) -> dict[str, Tensor]:
        """Values of the last forward pass to watch, no part of the loss."""
        return self.evl_ecg.monitors

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher; if not, it need not run."""
        return self.evl_ecg.needs_teacher or self.rivals.needs_teacher

    @property
    def needs_visual(self) -> bool:
        """Whether any term reads ``visual`` of student and teacher."""
        return self.evl_ecg.needs_visual or self.rivals.needs_visual

    @property
    def needs_logits(self) -> bool:
        """Whether any term reads ``answer_logits`` of student and teacher."""
        return self.evl_ecg.needs_logits or self.rivals.needs_logits

    @property
    def needs_lm_head(self) -> bool:
        """Whether ``forward`` needs the student's ``lm_head``."""
        return self.evl_ecg.needs_lm_head or self.rivals.needs_embeddings

    @property
    def needs_embeddings(self) -> bool:
        """Whether any term reads the embeddings of answer tokens, and ``forward`` needs the ``teacher_lm_head``."""
        return self.rivals.needs_embeddings

    def forward(
        self,
        student: TokenFeatures,
        teacher: TokenFeatures | None,
        ce: Tensor,
        *,
        lm_head: nn.Module | Tensor | None = None,
        teacher_lm_head: nn.Module | Tensor | None = None,
        answer_groups: AnswerGroups | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """The weighted terms; their sum is the loss. Arguments are those of `EVLECGLoss.forward` and `RivalLoss.forward`."""
        terms = self.evl_ecg(student, teacher, ce, lm_head=lm_head, answer_groups=answer_groups, **options)
        terms |= self.rivals(
            student, teacher, answer_groups=answer_groups, lm_head=lm_head, teacher_lm_head=teacher_lm_head
        )
        return {name: term * self.schedules.factor(name, self.progress) for name, term in terms.items()}


def build_criterion(
    model: nn.Module,
    teacher: TeacherSignal | None,
    args: EVLECGConfig,
    processors: tuple[Any, Any] = (None, None),
) -> Criterion:
    """The loss for a student and its teacher, the same on every process; the random state stays as it is.

    Args:
        model: The student.
        teacher: Where the teacher's features come from; None if no term reads them.
        args: Arguments of the run.
        processors: Of student and teacher, whose tokenizers a divergence compares; None where they are not known.

    Raises:
        VocabularyMismatchError: If a term compares the probabilities of two vocabularies token by token.
        ValueError: If a term needs a teacher that is missing, or more of its answer probabilities than it knows.
    """
    width = base_model(model).config.get_text_config().hidden_size
    widths = (width, teacher.hidden_dim if teacher else width)
    vocab_size = None
    if args.alpha * args.lambda_kl and None not in processors:
        vocab_size = common_vocabulary(*(processor.tokenizer.get_vocab() for processor in processors))
    with torch.random.fork_rng(devices=[]):  # every process starts with the same aligner, whatever it drew before
        torch.manual_seed(args.seed)
        criterion = Criterion(
            EVLECGLoss(*widths, **{name: getattr(args, name) for name in LOSS_OPTIONS}),
            RivalLoss(*widths, vocab_size=vocab_size, **{name: getattr(args, name) for name in RIVAL_OPTIONS}),
            args.lambda_schedules,
        )
    if criterion.needs_teacher and teacher is None:
        raise ValueError("terms with positive weight need a teacher; give one, or set alpha=0 for answers alone.")
    if criterion.needs_embeddings and teacher is not None and teacher.lm_head is None:
        raise ValueError(f"lambda_dskd={args.lambda_dskd}: a cache holds no embeddings; train with the teacher itself.")
    if criterion.rivals.needs_logits and teacher is not None and teacher.exact_ranks is not None:
        raise ValueError(
            f"lambda_kl={args.lambda_kl}, but the teacher's cache holds the {teacher.exact_ranks} largest answer "
            "probabilities; cache every one (top_k of at least the vocabulary), or train without the cache."
        )
    if criterion.evl_ecg.needs_logits and teacher is not None and teacher.exact_ranks is not None:
        ranks = args.uld_top_k or float("inf")
        if ranks > teacher.exact_ranks:
            raise ValueError(
                f"uld_top_k={args.uld_top_k}, but the teacher's cache holds the {teacher.exact_ranks} largest answer "
                f"probabilities; set uld_top_k={teacher.exact_ranks} or less."
            )
        if args.uld_temperature != 1:
            raise ValueError(
                f"uld_temperature={args.uld_temperature}, but the teacher's cache holds probabilities at temperature 1 "
                "and not all of them; set uld_temperature=1, or cache every one (top_k of at least the vocabulary)."
            )
    if teacher is not None and not criterion.needs_teacher:
        logger.warning("every term that reads the teacher has weight zero: the teacher is not run.")
    return criterion


def _weight_source(criterion: Criterion, args: EVLECGConfig) -> str:
    """Where weights of visual tokens come from; ``"uniform"`` where no term reads any."""
    related = criterion.weights["relation"] > 0 and args.hidden_tokens != "answer"
    return args.visual_weights if criterion.needs_visual or related else "uniform"


def student_request(criterion: Criterion, args: EVLECGConfig, *, several_processes: bool) -> FeatureRequest:
    """What the terms of positive weight read of the student.

    DistributedDataParallel waits for the gradient of all that the forward pass returns, so on several processes the
    student's logits enter the loss even at weight zero.
    """
    weighted = _weight_source(criterion, args) != "uniform"
    return FeatureRequest(
        tokens=args.hidden_tokens,  # type: ignore[arg-type]
        layer=args.student_layer,
        visual=criterion.needs_visual or weighted,
        boxes=weighted,
        logits=criterion.needs_logits or criterion.weights["ce"] > 0 or several_processes,
        positions=criterion.needs_visual and args.ot_position_weight > 0,
        embeddings=criterion.needs_embeddings,
        places=criterion.evl_ecg.needs_places,
    )


def teacher_request(criterion: Criterion, args: EVLECGConfig) -> FeatureRequest:
    """What the terms of positive weight read of the teacher."""
    source = _weight_source(criterion, args)
    return FeatureRequest(
        tokens=args.hidden_tokens,  # type: ignore[arg-type]
        layer=args.teacher_layer,
        visual=criterion.needs_visual or source != "uniform",
        visual_weights=source,  # type: ignore[arg-type]
        logits=criterion.needs_logits,
        visual_pool=args.teacher_visual_pool,
        positions=criterion.needs_visual and args.ot_position_weight > 0,
        embeddings=criterion.needs_embeddings,
        places=criterion.evl_ecg.needs_places,
    )


def save_criterion(criterion: nn.Module, folder: str | Path) -> None:
    """Write aligner and projectors to ``distillation.safetensors`` in a folder."""
    path = Path(folder) / SIDE_FILE
    with new_file(path) as temporary:
        save_file({name: p.detach().cpu().contiguous() for name, p in criterion.state_dict().items()}, temporary)


def load_criterion(criterion: nn.Module, folder: str | Path) -> None:
    """Read what `save_criterion` wrote.

    Raises:
        ValueError: If it is not there, or belongs to other terms or models.
    """
    path = Path(folder) / SIDE_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {SIDE_FILE}, so aligner and projectors cannot be resumed; choose an earlier checkpoint."
        )
    try:
        criterion.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to a run with other terms or other models: {error}") from error


def add_parameter_group(optimizer: torch.optim.Optimizer, criterion: nn.Module, args: EVLECGConfig) -> None:
    """Give the student's optimizer aligner and projectors too, with the rate and decay of their own."""
    present = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = [p for p in criterion.parameters() if id(p) not in present]  # the host asks for its optimizer more than once
    if own:
        rate, decay = args.aligner_learning_rate, args.aligner_weight_decay
        optimizer.add_param_group({"params": own, "lr": rate, "weight_decay": decay})


class CriterionCallback(TrainerCallback):
    """Keeps aligner and projectors in step with the student: gradients and their clipping.

    They stand outside the distributed wrapper around the student, so their gradients are averaged here, once per
    optimizer step and in one message. That also holds where a process had no use for a term in this step.

    Args:
        criterion: The loss with its parameters.
        accelerator: The trainer's.
    """

    def __init__(self, criterion: nn.Module, accelerator: Accelerator) -> None:
        self.criterion = criterion
        self.accelerator = accelerator

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Average the gradients over the processes, then clip them by themselves."""
        parameters = [p for p in self.criterion.parameters() if p.requires_grad]
        if not parameters:
            return
        if self.accelerator.num_processes > 1:
            for p in parameters:  # a process whose batch had no such term counts with zero
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
            flat = self.accelerator.reduce(flat, "mean")  # one message for all, as small ones cost their latency each
            for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad = grad.view_as(p)
        if (
            args.max_grad_norm and args.max_grad_norm > 0
        ):  # apart from the student's: the host clips that by its own norm
            nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clear the gradients, which the student's ``zero_grad`` does not reach."""
        self.criterion.zero_grad(set_to_none=True)
