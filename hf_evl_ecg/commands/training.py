"""What verbs share and must not import for their --help: loading questions and models, resuming, saving, scores in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import AutoModelForImageTextToText, AutoProcessor, EvalPrediction, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.method import AnswerOptions

__all__ = [
    "TeacherConfig",
    "answer_metrics",
    "last_checkpoint",
    "limit_records",
    "load_model",
    "load_questions",
    "save_student",
]


@dataclass
class TeacherConfig(AnswerOptions, EVLECGConfig):
    """Training arguments without a teacher: ``alpha`` is 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha != 0:
            raise ValueError(f"alpha={self.alpha}: must be 0 to learn from answers alone (use hf-evl-ecg distil)")
        if self.push_to_hub:
            raise ValueError(
                "push_to_hub=True: would send checkpoints and pickled arguments (use hf-evl-ecg publish afterwards)"
            )


def load_questions(folder: str | Path, split: str, limit: int | None = None) -> Dataset:
    """Read one split of a question dataset.

    Args:
        folder: The folder.
        split: train, validation or test.
        limit: Keep this many records (all questions of each), drawn evenly over the dataset.

    Raises:
        ValueError: There is no such dataset or split.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"data={folder}: is no folder (write a question dataset there with hf-evl-ecg prepare)")
    data = load_from_disk(str(folder))
    if not isinstance(data, DatasetDict) or split not in data:
        raise ValueError(f"split={split!r}: {folder} has {sorted(data) if isinstance(data, dict) else 'none'}")
    return limit_records(data[split], limit)


def limit_records(questions: Dataset, limit: int | None) -> Dataset:
    """Keep the questions about this many records, drawn evenly over the dataset; all of them if ``limit`` is None."""
    names = list(zip(questions["source"], questions["record"], strict=True))
    records = list(dict.fromkeys(names))
    if limit is None or limit >= len(records):
        return questions
    kept = {records[i * len(records) // limit] for i in range(limit)}
    return questions.select([i for i, name in enumerate(names) if name in kept])


def load_model(path: str, dtype: str = "auto") -> tuple[Any, Any]:
    """Load a native vision-language model, or adapters with the model below them, and its processor."""
    return AutoModelForImageTextToText.from_pretrained(path, dtype=dtype), AutoProcessor.from_pretrained(path)


def last_checkpoint(training: TrainingArguments) -> str | None:
    """The checkpoint that ``resume_from_checkpoint`` names; ``last`` is the newest one, None if there is none yet."""
    wanted = training.resume_from_checkpoint
    if not wanted or str(wanted).lower() not in ("last", "true"):
        return wanted or None
    output = str(training.output_dir)
    return get_last_checkpoint(output) if Path(output).is_dir() else None


def save_student(trainer: EVLECGTrainer, processor: Any) -> None:
    """Write model, processor and the training log, without anything pickled."""
    trainer.save_state()
    if trainer.is_world_process_zero():
        output = trainer.args.output_dir
        student: Any = trainer.student
        student.save_pretrained(output)
        processor.save_pretrained(output)
        print(f"Written: {output}")
    # The last collective must carry no tensor: a gloo thread that frees one while Python finishes aborts the process (torch 2.13).
    trainer.accelerator.wait_for_everyone()


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
