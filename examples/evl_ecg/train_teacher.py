r"""Fine-tune any native vision-language model on questions about ECGs: a teacher, or a baseline.

One GPU:

    python examples/evl_ecg/train_teacher.py --model llava-hf/llava-v1.6-vicuna-7b-hf --data outputs/questions --lora_rank 64 \
        --output_dir outputs/teacher --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --num_train_epochs 1 \
        --learning_rate 1e-4 --bf16 --gradient_checkpointing --dataloader_num_workers 8

Several GPUs:

    accelerate launch --num_processes 8 examples/evl_ecg/train_teacher.py examples/configs/ecg_teacher.yaml

CPU smoke run (small_models.py builds a small model; its vision tower is first taught on simulated ECGs):

    python examples/evl_ecg/prepare_data.py --simulated_train 5 --simulated_test 2 --output_dir outputs/smoke_questions
    python examples/evl_ecg/small_models.py --kind teacher --data outputs/smoke_questions --output_dir outputs/smoke_init
    python examples/evl_ecg/train_teacher.py --model outputs/smoke_init --data outputs/smoke_questions --image_width 448 \
        --image_height 224 --grid thick --pretrain_vision_steps 2 --max_steps 3 --per_device_train_batch_size 4 --use_cpu \
        --report_to none --output_dir outputs/smoke_teacher

The loss is the cross-entropy of the answers. Beside the options below all of transformers' training arguments are accepted; all can
stand in a YAML file, given first or as --config. --resume_from_checkpoint last goes on after an interruption. OUTPUT_DIR holds
model (or LoRA adapter) and processor, and loads with from_pretrained.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecg_options import ImageOptions, LoraOptions, last_checkpoint, load_model, load_questions, parse_arguments
from torch import nn
from vision_pretraining import VisionPretraining, pretrain_vision

from hf_evl_ecg import EVLECGConfig, EVLECGTrainer


@dataclass
class TeacherArguments:
    """Which model, on which questions."""

    model: str = field(metadata={"help": "Starting model: a folder or a name on the Hub."})
    data: str = field(metadata={"help": "Question dataset from prepare_data.py."})
    dtype: str = field(default="float32", metadata={"help": "Precision of the weights: float32, bfloat16 or auto."})
    train_records: int | None = field(default=None, metadata={"help": "Use only this many training records."})
    eval_records: int | None = field(default=None, metadata={"help": "Use only this many validation records."})
    pretrain_vision_steps: int = field(
        default=0, metadata={"help": "First teach the vision tower for this many steps on simulated ECGs; 0: do not."}
    )
    pretrain_vision_batch_size: int = field(default=32, metadata={"help": "Simulated ECGs per such step."})
    pretrain_vision_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    pretrain_vision_classes: list[str] | None = field(
        default=None, metadata={"help": "Classes to simulate; default: the nine of CPSC-2018."}
    )


@dataclass
class TeacherConfig(EVLECGConfig):
    """Training arguments without a teacher of one's own: ``alpha`` is 0."""

    alpha: float = field(default=0.0, metadata={"help": "Must be 0: nothing is distilled here."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha != 0:
            raise ValueError(f"alpha={self.alpha}: train_teacher.py learns from answers only; use distill.py.")
        if self.push_to_hub:
            raise ValueError(
                "push_to_hub would send checkpoints and pickled arguments; publish the finished model with publish.py."
            )


def main(script: TeacherArguments, images: ImageOptions, lora: LoraOptions, training: TeacherConfig) -> EVLECGTrainer:
    """Train and save.

    Returns:
        The trainer, after training.
    """
    model, processor = load_model(script.model, script.dtype)
    if script.pretrain_vision_steps:
        with training.main_process_first(desc="teach the vision tower"):
            model = teach_vision(model, processor, script, images, training)
    trainer = EVLECGTrainer(
        lora.wrap(model),
        training,
        processing_class=processor,
        load_image=images.renderer(train=True),
        train_dataset=load_questions(script.data, "train", script.train_records),
        eval_dataset=None
        if training.eval_strategy == "no"
        else load_questions(script.data, "validation", script.eval_records),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(training))
    save(trainer, processor, training)
    return trainer


def teach_vision(
    model: nn.Module, processor: Any, script: TeacherArguments, images: ImageOptions, training: TeacherConfig
) -> nn.Module:
    """The first stage: its result is kept in OUTPUT_DIR/vision, and read from there when training is resumed."""
    folder = Path(training.output_dir) / "vision"
    if (folder / "config.json").is_file() and (training.resume_from_checkpoint or not training.should_save):
        return load_model(str(folder), script.dtype)[0]
    classes = {} if script.pretrain_vision_classes is None else {"classes": tuple(script.pretrain_vision_classes)}
    plan = VisionPretraining(
        steps=script.pretrain_vision_steps,
        batch_size=script.pretrain_vision_batch_size,
        learning_rate=script.pretrain_vision_learning_rate,
        seed=training.seed,
        num_workers=training.dataloader_num_workers,
        bf16=training.bf16,
        **classes,
    )
    scores = pretrain_vision(model.to(training.device), processor, images.renderer(), plan)
    print("vision tower on simulated ECGs:", {name: round(value, 3) for name, value in scores.items()})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def save(trainer: EVLECGTrainer, processor: Any, training: EVLECGConfig) -> None:
    """Write model, processor and the training log, without anything pickled."""
    trainer.save_state()
    if trainer.is_world_process_zero():
        trainer.student.save_pretrained(training.output_dir)
        processor.save_pretrained(training.output_dir)
        print(f"Written: {Path(training.output_dir)}")


if __name__ == "__main__":
    main(
        *parse_arguments(sys.argv[1:], TeacherArguments, ImageOptions, LoraOptions, TeacherConfig, description=__doc__)
    )
