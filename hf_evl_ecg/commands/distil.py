r"""Distil a vision-language teacher into a student of another architecture, tokenizer and size (EVL-ECG, arXiv 2605.29977).

One GPU, 7B -> 2B, online teacher:

    hf-evl-ecg distil --teacher outputs/pulse_native --student Qwen/Qwen2-VL-2B-Instruct --data outputs/questions \
        --output_dir outputs/student --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --num_train_epochs 1 \
        --learning_rate 1e-4 --lora_rank 64 --bf16 --gradient_checkpointing --dataloader_num_workers 8

Several GPUs; the same from a cache that hf-evl-ecg cache wrote with the same options:

    accelerate launch --num_processes 8 -m hf_evl_ecg distil examples/configs/ecg_distill.yaml
    accelerate launch --num_processes 8 -m hf_evl_ecg distil examples/configs/ecg_distill.yaml --teacher_cache outputs/cache

The baseline that the distilled student is compared with, the same student on the same questions without a teacher:

    hf-evl-ecg distil examples/configs/ecg_distill.yaml --method sft --output_dir outputs/student_sft

The loss is (1 - alpha) CE + alpha (lambda_mhca MHCA + lambda_ot OT + lambda_relation REL + lambda_uld ULD + ...); a term of weight
zero costs nothing. --method sets these options, in place of the defaults; options that are given, here or in the YAML file, replace
them:

{presets}

seqkd learns from the answers alone as well, but from those that a teacher wrote: hf-evl-ecg answer. Beside the options below all of transformers' training arguments are accepted; all can stand in a YAML file, given
first or as --config. --resume_from_checkpoint last goes on after an interruption (without a checkpoint it starts anew and says so; True refuses). OUTPUT_DIR holds the student (or its LoRA
adapter) and its processor, nothing of the teacher.

--push_to_hub --hub_model_id NAMESPACE/NAME --card README.md publishes the student at the end, and only then, as hf-evl-ecg publish
does: adapters merged, safetensors, processor and card; no checkpoints, training arguments, optimizer, teacher or aligner. The
repository is private unless --hub_private_repo False is given; --hub_revision names a branch, --hub_strategy has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.command_line.options import ImageOptions, LoraOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.rivals.presets import PRESETS, describe_presets

from .cache import fingerprint
from .publish import check_card_file, publish_trained

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.config import EVLECGConfig
    from hf_evl_ecg.data.rendered import RenderedECG
    from hf_evl_ecg.distillation.trainer import EVLECGTrainer

__all__ = ["DistillArguments", "command", "main"]

_ALONE = ("sft", "seqkd")  # methods that need no teacher while the student trains


@dataclass
class DistillArguments:
    """Which student learns from which teacher, on which questions."""

    student: str = field(metadata={"help": "Starting student: a folder or a name on the Hub."})
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare."})
    teacher: str | None = field(default=None, metadata={"help": "The teacher; not needed with --method sft."})
    method: str | None = field(
        default=None, metadata={"help": f"{', '.join(PRESETS)}: options of a method, as listed above."}
    )
    teacher_cache: str | None = field(
        default=None, metadata={"help": "Folder that hf-evl-ecg cache wrote; the teacher itself is then not run."}
    )
    trust_cache: bool = field(
        default=False,
        metadata={"help": "Do not load the teacher's weights to compare them with those the cache was made from."},
    )
    sft_only: bool = field(default=False, metadata={"help": "The same as --method sft: learn from the answers alone."})
    dtype: str = field(
        default="float32", metadata={"help": "Precision of the student's weights: float32, bfloat16, auto."}
    )
    teacher_dtype: str = field(default="auto", metadata={"help": "Precision of the teacher's weights."})
    train_records: int | None = field(default=None, metadata={"help": "Use only this many training records."})
    eval_records: int | None = field(default=None, metadata={"help": "Use only this many validation records."})
    card: str | None = field(
        default=None, metadata={"help": "README.md for --push_to_hub; its metadata must name a license."}
    )

    def __post_init__(self) -> None:
        if self.method is not None:
            check_choice("method", self.method, tuple(PRESETS))
        if self.sft_only and self.method not in (None, *_ALONE):
            raise ValueError(f"sft_only=True, method={self.method!r}: one of the two is allowed (leave --sft_only out)")
        self.sft_only = self.sft_only or self.method in _ALONE
        if not self.sft_only and self.teacher is None:
            raise ValueError("teacher=None: is needed (name one with --teacher, or learn without with --method sft)")
        if self.sft_only and (self.teacher is not None or self.teacher_cache is not None):
            self.teacher = self.teacher_cache = None


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    kinds = (DistillArguments, ImageOptions, LoraOptions)
    about = (__doc__ or "").replace("{presets}", describe_presets())
    main(*parse_arguments(arguments, *kinds, description=about, prog=prog, training=_training, presets=PRESETS))


def main(script: DistillArguments, images: ImageOptions, lora: LoraOptions, training: EVLECGConfig) -> EVLECGTrainer:
    """Train the student, save it, and publish it if that is asked for.

    Returns:
        The trainer, after training.
    """
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.distillation.runs import answer_metrics, save_student
    from hf_evl_ecg.distillation.trainer import EVLECGTrainer
    from hf_evl_ecg.hub.push import take_hub_arguments
    from hf_evl_ecg.inference.taught_answers import has_taught_answers
    from hf_evl_ecg.models.loading import load_model

    # The Trainer would push checkpoints with all that lies beside them; the finished student is published below instead.
    hub = take_hub_arguments(training)
    card = check_card_file(script.card) if hub else ""
    draw = images.training_renderer(script.teacher)
    evaluated = training.eval_strategy != "no"
    train_questions = load_questions(script.data, "train", script.train_records)
    eval_questions = load_questions(script.data, "validation", script.eval_records) if evaluated else None
    if script.method == "seqkd" and not has_taught_answers(train_questions):
        raise ValueError(
            f"data={script.data}: holds no answers of a teacher (let it write them with hf-evl-ecg answer)"
        )
    student, processor = load_model(script.student, script.dtype)
    if script.sft_only:
        training.alpha = 0.0
    teacher, teacher_processor = _load_teacher(script, training, draw)
    trainer = EVLECGTrainer(
        lora.wrap(student),
        training,
        teacher=teacher,
        processing_class=processor,
        teacher_processing_class=teacher_processor,
        load_image=draw,
        train_dataset=train_questions,
        eval_dataset=eval_questions,
        compute_metrics=answer_metrics(processor, training),
    )
    trainer.train(training.resume_from_checkpoint)
    save_student(trainer, processor, draw.config)
    if hub and trainer.is_world_process_zero():
        publish_trained(trainer, processor, hub, card, _provenance(script, draw, training, trainer))
    trainer.accelerator.end_training()
    return trainer


def _provenance(
    script: DistillArguments, draw: RenderedECG, training: EVLECGConfig, trainer: EVLECGTrainer
) -> dict[str, Any]:
    """Where the student comes from, for its config.json; of folders only the names."""
    from hf_evl_ecg.distillation.runs import trained_kinds
    from hf_evl_ecg.results import current_commit

    def name(model: str | None) -> str | None:
        return Path(model).name if model and Path(model).exists() else model

    assert trainer.train_dataset is not None
    return {
        "method": _described(script),
        "teacher": name(script.teacher),
        "student": name(script.student),
        "data": sorted(set(trainer.train_dataset["source"])),
        "images": draw.config.to_dict(),
        "question_kinds": trained_kinds(trainer),
        "steps": trainer.state.global_step,
        "alpha": training.alpha,
        "commit": current_commit(),
    }


def _described(script: DistillArguments) -> str:
    """How the student was trained, in words."""
    if script.sft_only:
        return "fine-tuning on answers of a teacher" if script.method == "seqkd" else "fine-tuning on answers"
    named = script.method or "evl_ecg"
    return "EVL-ECG, arXiv 2605.29977" if named.startswith("evl_ecg") else f"distillation ({named})"


def _load_teacher(script: DistillArguments, training: EVLECGConfig, draw: RenderedECG) -> tuple[Any, Any]:
    """The teacher, or its cache, and its processor; nothing for a student that learns alone.

    Raises:
        CacheMismatchError: The cache was made from other weights, with another processor, pages or prompt.
    """
    from hf_evl_ecg.distillation.cache import CachedTeacher
    from hf_evl_ecg.models.answer_attention import attend_eagerly
    from hf_evl_ecg.models.fingerprints import model_fingerprint
    from hf_evl_ecg.models.loading import load_model, load_processor

    if script.teacher is None:
        return None, None
    if script.teacher_cache is None:
        model, processor = load_model(script.teacher, script.teacher_dtype)
        if training.visual_weights == "teacher_attention":
            attend_eagerly(model)
        return model, processor
    processor = load_processor(script.teacher)
    expected = fingerprint(processor, draw, training.teacher_system_prompt, training.teacher_max_length)
    if not script.trust_cache:
        model, _ = load_model(script.teacher, script.teacher_dtype)
        expected["teacher"] = model_fingerprint(model)
    return CachedTeacher(script.teacher_cache, expected=expected), processor


def _training() -> type:
    from hf_evl_ecg.config import EVLECGConfig

    return EVLECGConfig
