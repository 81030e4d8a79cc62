"""Arguments of a distillation run: those of `transformers.TrainingArguments`, and what EVL-ECG adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

__all__ = ["EVLECGConfig"]

_CHOICES = {
    "mhca_mode": ("paper", "anchored"),
    "ot_backend": ("torch", "pot"),
    "uld_merge": ("first", "mean"),
    "hidden_tokens": ("all", "visual", "answer"),
    "on_bad_example": ("skip", "stop"),
    "eval_predictions": ("loss", "generate", "likelihood"),
}
_RANGES: dict[str, tuple[float, float]] = {  # both ends allowed
    "alpha": (0, 1),
    "lambda_mhca": (0, 1e6),
    "lambda_ot": (0, 1e6),
    "lambda_relation": (0, 1e6),
    "lambda_uld": (0, 1e6),
    "lambda_anchor": (0, 1e6),
    "mhca_num_heads": (1, 1024),
    "ot_epsilon": (1e-6, 1e3),
    "ot_max_iter": (1, 10_000),
    "ot_tol": (0, 1),
    "ot_position_weight": (0, 1),
    "relation_max_tokens": (2, 1_000_000),
    "relation_subset": (2, 1_000_000),
    "uld_temperature": (1e-3, 1e3),
    "uld_top_k": (1, 10_000_000),
    "teacher_visual_pool": (1, 10_000),
    "aligner_learning_rate": (0, 1),
    "aligner_weight_decay": (0, 1),
    "max_length": (8, 10_000_000),
    "teacher_max_length": (8, 10_000_000),
    "preflight_examples": (0, 1_000_000),
    "max_new_tokens": (1, 100_000),
}


@dataclass
class EVLECGConfig(TrainingArguments):
    r"""Arguments of `EVLECGTrainer`.

    The loss is ``(1 - alpha) CE + alpha (lambda_mhca MHCA + lambda_ot OT + lambda_relation REL + lambda_uld ULD)``
    (EVL-ECG, arXiv 2605.29977). A term of weight zero is not computed; if all are zero the teacher is not run.

    Raises:
        ValueError: At construction, for a value out of range.

    Example:
        >>> EVLECGConfig(output_dir="student", alpha=0.5, lambda_uld=1.0)  # doctest: +SKIP
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must be False: the collator reads columns that no model knows."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=True,
        metadata={
            "help": "True: a student with weights that no output needs, such as the last layers of LLaVA-NeXT's vision "
            "tower, can be trained on several processes; False: for reentrant gradient checkpointing."
        },
    )
    alpha: float = field(default=0.5, metadata={"help": "Share of the distillation terms in the loss, 0 to 1."})
    lambda_mhca: float = field(default=1.0, metadata={"help": "Weight of the cross-attention alignment term."})
    lambda_ot: float = field(default=1.0, metadata={"help": "Weight of the optimal-transport term on visual tokens."})
    lambda_relation: float = field(default=1.0, metadata={"help": "Weight of the relation term."})
    lambda_uld: float = field(
        default=0.0, metadata={"help": "Weight of universal logit distillation on answer tokens (not in the paper)."}
    )
    lambda_anchor: float = field(
        default=1.0, metadata={"help": "Weight of the aligner's own cross-entropy, in mhca_mode 'anchored'."}
    )
    mhca_mode: str = field(
        default="paper",
        metadata={
            "help": "'paper': the alignment term trains aligner and student; 'anchored': the aligner is trained by the "
            "answers through the student's frozen LM head, and the student follows."
        },
    )
    mhca_num_heads: int = field(default=8, metadata={"help": "Heads of the aligner; divides the student's width."})
    mhca_channel_mean: bool = field(
        default=True, metadata={"help": "Mean over channels in the alignment term; False: the paper's literal sum."}
    )
    ot_epsilon: float = field(default=0.05, metadata={"help": "Entropic regularisation, on a mean-normalised cost."})
    ot_max_iter: int = field(default=50, metadata={"help": "Sinkhorn iterations."})
    ot_tol: float = field(
        default=0.0, metadata={"help": "Marginal error at which a sample's Sinkhorn stops; 0: never."}
    )
    ot_position_weight: float = field(
        default=0.0, metadata={"help": "Share of patch positions in the transport cost, 0 to 1."}
    )
    ot_backend: str = field(default="torch", metadata={"help": "'torch' (this package) or 'pot'."})
    relation_max_tokens: int = field(
        default=1024, metadata={"help": "Above this many tokens the relation term uses a random subset."}
    )
    relation_subset: int = field(default=512, metadata={"help": "Size of that subset."})
    uld_merge: str = field(default="first", metadata={"help": "'first' or 'mean' token of a group of answer tokens."})
    uld_temperature: float = field(default=1.0, metadata={"help": "Temperature of universal logit distillation."})
    uld_top_k: int | None = field(
        default=None, metadata={"help": "Ranks that ULD compares one by one; None compares the whole vocabulary."}
    )
    hidden_tokens: str = field(
        default="all", metadata={"help": "Tokens whose hidden states are matched: 'all', 'visual' or 'answer'."}
    )
    student_layer: int = field(
        default=-1, metadata={"help": "Student's hidden state to match; -1: after the last norm."}
    )
    teacher_layer: int = field(
        default=-1, metadata={"help": "Teacher's hidden state to match; -1: after the last norm."}
    )
    teacher_visual_pool: int = field(
        default=1, metadata={"help": "Average this many consecutive image tokens of the teacher into one."}
    )
    aligner_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of aligner and projector, which have their own parameter group."}
    )
    aligner_weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of aligner and projector."})
    freeze_vision_tower: bool = field(default=False, metadata={"help": "Do not train the student's vision tower."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest student input in tokens; an image is never cut, an answer may be."}
    )
    teacher_max_length: int | None = field(default=None, metadata={"help": "Longest teacher input in tokens."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message of the student's chats."})
    teacher_system_prompt: str | None = field(default=None, metadata={"help": "System message of the teacher's chats."})
    on_bad_example: str = field(
        default="skip",
        metadata={
            "help": "'skip': leave a bad example out of training, count and name it; 'stop': raise. In evaluation a bad "
            "example always raises: a metric over fewer examples is another metric."
        },
    )
    preflight_examples: int = field(
        default=8,
        metadata={
            "help": "Examples for training, and for evaluation, that must be usable before the start; 0: do not look."
        },
    )
    eval_predictions: str = field(
        default="loss",
        metadata={
            "help": "What compute_metrics gets: 'generate': generated token ids; 'likelihood': log-likelihoods of "
            "candidate_answers; 'loss': evaluation computes losses only."
        },
    )
    max_new_tokens: int = field(default=64, metadata={"help": "Longest generated answer, for eval_predictions."})
    candidate_answers: list[str] | None = field(
        default=None, metadata={"help": "Answers whose likelihood is computed, for eval_predictions='likelihood'."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        loading: Any = self.accelerator_config
        if loading.dispatch_batches is None:
            loading.dispatch_batches = False  # a stream's batches differ in size and hold texts
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(map(repr, allowed))}.")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}={value}: must lie between {low:g} and {high:g}.")
        if self.relation_subset > self.relation_max_tokens:
            raise ValueError(
                f"relation_subset={self.relation_subset} exceeds relation_max_tokens={self.relation_max_tokens}; "
                "lower the first or raise the second."
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would drop the images before the collator; leave it False.")
        if (self.eval_predictions == "likelihood") != bool(self.candidate_answers):
            raise ValueError(
                f"eval_predictions={self.eval_predictions!r} and candidate_answers={self.candidate_answers}: candidate "
                "answers are needed for 'likelihood', and for nothing else."
            )
        if self.mhca_mode == "anchored" and self.hidden_tokens == "visual" and self.lambda_mhca + self.lambda_relation:
            raise ValueError(
                "mhca_mode='anchored' trains the aligner on answer tokens, which hidden_tokens='visual' leaves out; "
                "choose hidden_tokens='all' or 'answer'."
            )
        if self.mhca_mode == "anchored" and self.student_layer != -1 and self.lambda_mhca + self.lambda_relation:
            raise ValueError(
                f"mhca_mode='anchored' reads the aligned states with the student's LM head, which fits its last hidden "
                f"state, not student_layer={self.student_layer}; set student_layer=-1 or mhca_mode='paper'."
            )
