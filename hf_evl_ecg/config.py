"""Arguments of a distillation run: those of `transformers.TrainingArguments`, and what EVL-ECG adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from hf_evl_ecg.arguments import check_between, check_choice, plain_fields

from .method import MethodOptions

__all__ = ["EVLECGConfig"]

_CHOICES = {
    "mhca_mode": ("paper", "anchored"),
    "attention": ("all", "turn", "aligned"),
    "match": ("raw", "normalised"),
    "ot_backend": ("torch", "pot"),
    "uld_merge": ("first", "mean"),
    "kl_divergence": ("forward", "reverse", "jsd"),
    "visual_weights": ("uniform", "ink", "teacher_contrast", "teacher_attention"),
    "hidden_tokens": ("all", "visual", "answer"),
    "on_bad_example": ("skip", "stop"),
    "unanswered": ("refuse", "use", "drop"),
    "eval_predictions": ("loss", "generate", "likelihood"),
}
_RANGES: dict[str, tuple[float, float]] = {  # both ends allowed
    "alpha": (0, 1),
    "lambda_mhca": (0, 1e6),
    "lambda_ot": (0, 1e6),
    "lambda_relation": (0, 1e6),
    "lambda_uld": (0, 1e6),
    "lambda_anchor": (0, 1e6),
    "lambda_kl": (0, 1e6),
    "lambda_dskd": (0, 1e6),
    "lambda_rkd_distance": (0, 1e6),
    "lambda_rkd_angle": (0, 1e6),
    "lambda_cka": (0, 1e6),
    "lambda_em_kd": (0, 1e6),
    "lambda_feature_mse": (0, 1e6),
    "kl_beta": (1e-6, 1 - 1e-6),
    "kl_temperature": (1e-3, 1e3),
    "dskd_temperature": (1e-3, 1e3),
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
    "visual_weight_floor": (0, 1),
    "aligner_learning_rate": (0, 1),
    "aligner_weight_decay": (0, 1),
    "max_length": (8, 10_000_000),
    "teacher_max_length": (8, 10_000_000),
    "preflight_examples": (0, 1_000_000),
    "remember_pages": (0, 1_000_000_000),
    "max_new_tokens": (1, 100_000),
}


@dataclass
class EVLECGConfig(MethodOptions, TrainingArguments):
    r"""Arguments of `EVLECGTrainer`.

    The loss is ``(1 - alpha) CE + alpha (lambda_mhca MHCA + lambda_ot OT + lambda_relation REL + lambda_uld ULD)``
    (EVL-ECG, arXiv 2605.29977), and alpha times those of rivals (`hf_evl_ecg.rivals`). A term of weight zero is not computed;
    if all are zero the teacher is not run.

    Raises:
        ValueError: At construction, for a value out of range.

    Example:
        >>> EVLECGConfig(output_dir="student", alpha=0.5, lambda_uld=1.0).lambda_uld
        1.0
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

    def __post_init__(self) -> None:
        plain_fields(self)
        super().__post_init__()
        loading: Any = self.accelerator_config
        if loading.dispatch_batches is None:
            loading.dispatch_batches = False  # a stream's batches differ in size and hold texts
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_between(name, value, low, high)
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
        if self.lambda_em_kd and self.hidden_tokens != "visual":
            raise ValueError(
                f"lambda_em_kd={self.lambda_em_kd} matches visual states, not hidden_tokens={self.hidden_tokens!r}; set "
                "hidden_tokens='visual' (--method em_kd does)."
            )
        related = self.lambda_relation > 0 and self.hidden_tokens != "answer"
        if self.visual_weights != "uniform" and not (self.lambda_ot > 0 or related):
            raise ValueError(
                f"visual_weights={self.visual_weights!r} has no effect without lambda_ot or, with hidden_tokens='all' or "
                "'visual', lambda_relation; make one positive, or leave visual_weights='uniform'."
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
