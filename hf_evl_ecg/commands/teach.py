r"""Fine-tune a vision-language model on questions about ECGs: a teacher, or a baseline.

One GPU:

    hf-evl-ecg teach --model llava-hf/llava-v1.6-vicuna-7b-hf --data outputs/questions --lora_rank 64 \
        --output_dir outputs/teacher --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --num_train_epochs 1 \
        --learning_rate 1e-4 --bf16 --gradient_checkpointing --dataloader_num_workers 8

Several GPUs:

    accelerate launch --num_processes 8 -m hf_evl_ecg teach examples/configs/ecg_teacher.yaml

The loss is the cross-entropy of the answers. Beside the options below all of transformers' training arguments are accepted; all can
stand in a YAML file, given first or as --config. --resume_from_checkpoint last goes on after an interruption. OUTPUT_DIR holds
model (or LoRA adapter) and processor, and loads with from_pretrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_evl_ecg.command_line.options import ImageOptions, LoraOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.method import AnswerOptions

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.distillation.runs import TeacherConfig
    from hf_evl_ecg.distillation.trainer import EVLECGTrainer

__all__ = ["TeacherArguments", "command", "main"]


@dataclass
class TeacherArguments:
    """Which model learns, on which questions."""

    model: str = field(metadata={"help": "Starting model: a folder or a name on the Hub."})
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare."})
    dtype: str = field(default="float32", metadata={"help": "Precision of the weights: float32, bfloat16 or auto."})
    train_records: int | None = field(default=None, metadata={"help": "Use only this many training records."})
    eval_records: int | None = field(default=None, metadata={"help": "Use only this many validation records."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    kinds = (TeacherArguments, ImageOptions, LoraOptions)
    main(*parse_arguments(arguments, *kinds, description=__doc__, prog=prog, training=_training, method=AnswerOptions))


def main(script: TeacherArguments, images: ImageOptions, lora: LoraOptions, training: TeacherConfig) -> EVLECGTrainer:
    """Train and save.

    Returns:
        The trainer, after training.
    """
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.distillation.runs import answer_metrics, save_student
    from hf_evl_ecg.distillation.trainer import EVLECGTrainer
    from hf_evl_ecg.models.loading import load_model

    draw = images.training_renderer()
    evaluated = training.eval_strategy != "no"
    train_questions = load_questions(script.data, "train", script.train_records)
    eval_questions = load_questions(script.data, "validation", script.eval_records) if evaluated else None
    model, processor = load_model(script.model, script.dtype)
    trainer = EVLECGTrainer(
        lora.wrap(model),
        training,
        processing_class=processor,
        load_image=draw,
        train_dataset=train_questions,
        eval_dataset=eval_questions,
        compute_metrics=answer_metrics(processor, training),
    )
    trainer.train(training.resume_from_checkpoint)
    save_student(trainer, processor, draw.config)
    trainer.accelerator.end_training()
    return trainer


def _training() -> type:
    from hf_evl_ecg.distillation.runs import TeacherConfig

    return TeacherConfig
