"""A training run from its arguments to its folder: without a teacher, saved, with scores in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import EvalPrediction

from hf_evl_ecg.chat.question_kinds import count_kinds, write_kinds
from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.trained_pages import write_pages

from .trainer import EVLECGTrainer

__all__ = ["TeacherConfig", "answer_metrics", "save_student", "trained_kinds"]


@dataclass
class TeacherConfig(EVLECGConfig):
    """Training arguments without a teacher: ``alpha`` is 0."""

    alpha: float = field(default=0.0, metadata={"help": "Must be 0: nothing is distilled here."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha != 0:
            raise ValueError(f"alpha={self.alpha}: must be 0 to learn from answers alone (use hf-evl-ecg distil)")
        if self.push_to_hub:
            raise ValueError(
                "push_to_hub=True: would send checkpoints and pickled arguments (use hf-evl-ecg publish afterwards)"
            )


def save_student(trainer: EVLECGTrainer, processor: Any, pages: RenderConfig | None = None) -> None:
    """Write model, processor, how its ECGs were drawn and the training log, without anything pickled."""
    trainer.save_state()
    if trainer.is_world_process_zero():
        output = trainer.args.output_dir
        student: Any = trainer.student
        student.save_pretrained(output)
        processor.save_pretrained(output)
        if pages is not None:
            write_pages(str(output), pages)
        if trainer.train_dataset is not None:
            write_kinds(str(output), trained_kinds(trainer))
        print(f"Written: {output}")
    # The last collective must carry no tensor: a gloo thread that frees one while Python finishes aborts the process (torch 2.13).
    trainer.accelerator.wait_for_everyone()


def trained_kinds(trainer: EVLECGTrainer) -> dict[str, int]:
    """Kinds of the training's questions, as `hf_evl_ecg.chat.question_kinds.count_kinds` counts them."""
    data: Any = trainer.train_dataset
    names = [name for name in ("question", "conversations") if name in data.column_names]
    return count_kinds(data.select_columns(names)) if names else {}


def answer_metrics(processor: Any, training: EVLECGConfig) -> Callable[[EvalPrediction], Mapping[str, float]] | None:
    """Share of right answers while training: of generated texts, or of the likeliest candidate answer; None for losses only.

    ``hf-evl-ecg evaluate`` scores a trained model properly, task by task, with intervals and chance levels.
    """
    if training.eval_predictions == "loss":
        return None
    tokenizer = processor.tokenizer

    def texts(ids: np.ndarray) -> list[str]:
        ids = np.where(ids < 0, tokenizer.pad_token_id, ids)  # -100 marks what is no answer; it has no token
        return [text.strip().lower() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def metrics(prediction: EvalPrediction) -> Mapping[str, float]:
        answers = texts(np.asarray(prediction.label_ids))
        found = np.asarray(prediction.predictions)
        if training.eval_predictions == "generate":
            given = texts(found)
        else:
            assert training.candidate_answers
            given = [training.candidate_answers[i].strip().lower() for i in found.argmax(1)]
        return {"exact_match": float(np.mean([a == b for a, b in zip(answers, given, strict=True)]))}

    return metrics
