r"""Let a teacher write the answers of the training questions, for hf-evl-ecg distil --method seqkd.

One GPU:

    hf-evl-ecg answer --teacher outputs/pulse_native --data outputs/questions --output_dir outputs/taught_questions \
        --batch_size 32 --num_workers 8 --teacher_dtype bfloat16 --device cuda
    hf-evl-ecg distil --method seqkd --student Qwen/Qwen2-VL-2B-Instruct --data outputs/taught_questions --output_dir outputs/student

Sequence-level distillation (Kim and Rush, arXiv 1606.07947): the student learns from what the teacher would say, greedily, in
place of the answers of the data. Every question of a conversation is asked by itself. The answers of before stay in a column
(given_answer, given_conversations), other splits stay as they are. Image options must be those of the teacher's training.

Every answer is written to OUTPUT_DIR/answers.jsonl as it comes, so an interrupted run goes on where it stopped. A question that
the teacher leaves empty, or whose record cannot be read, is left out and named. report.json says how many answers there are, and
how many of them read as before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.inference.taught_answers import TaughtQuestions

__all__ = ["AnswerArguments", "command", "main"]


@dataclass
class AnswerArguments:
    """Which teacher, which questions."""

    teacher: str = field(metadata={"help": "The teacher: a folder or a name on the Hub."})
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare."})
    output_dir: str = field(metadata={"help": "Folder of the new question dataset."})
    split: str = field(default="train", metadata={"help": "Split whose answers the teacher writes."})
    train_records: int | None = field(default=None, metadata={"help": "Keep only this many records of it."})
    teacher_dtype: str = field(default="auto", metadata={"help": "Precision of the teacher's weights."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1 …"})
    max_new_tokens: int = field(default=64, metadata={"help": "Longest answer in tokens."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message of the teacher's chats."})
    max_length: int | None = field(default=None, metadata={"help": "Longest teacher input in tokens."})
    batch_size: int = field(default=8, metadata={"help": "Questions at once."})
    num_workers: int = field(default=0, metadata={"help": "Processes that draw and preprocess images."})

    def __post_init__(self) -> None:
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        if Path(self.output_dir).resolve() == Path(self.data).resolve():
            raise ValueError(f"output_dir={self.output_dir}: is the folder of the questions (choose another)")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, AnswerArguments, ImageOptions, description=__doc__, prog=prog))


def main(args: AnswerArguments, images: ImageOptions) -> TaughtQuestions:
    """Ask the teacher what was not asked yet, and write the dataset.

    Returns:
        The split with the teacher's answers.

    Raises:
        AnswerFileError: OUTPUT_DIR holds answers of another teacher, processor, setting or page.
    """
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.inference.taught_answers import teach_answers
    from hf_evl_ecg.models.loading import load_model

    output = Path(args.output_dir)
    draw = images.training_renderer(args.teacher)  # with the artefacts that the student will see
    draw.fingerprint()  # pages that are drawn anew each time have none: the student would see others
    questions = load_questions(args.data, args.split, args.train_records)
    model, processor = load_model(args.teacher, args.teacher_dtype, args.device)
    taught = teach_answers(
        model.eval(),
        processor,
        questions,
        load_image=draw,
        path=output / "answers.jsonl",
        max_new_tokens=args.max_new_tokens,
        system_prompt=args.system_prompt,
        max_length=args.max_length,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    _write(args, output, taught)
    for reason in taught.left_out:
        print(f"left out: {reason}")
    print(f"{taught.written} answers, {taught.same} as before, {len(taught.left_out)} questions left out: {output}")
    return taught


def _write(args: AnswerArguments, output: Path, taught: TaughtQuestions) -> None:
    """The dataset, with its other splits as they were, and a report."""
    from datasets import load_from_disk

    from hf_evl_ecg.data.stored import save_questions

    splits: Any = load_from_disk(args.data)
    given = Path(args.teacher)
    report = {
        "teacher": given.name if given.exists() else args.teacher,
        "split": args.split,
        "answers": taught.written,
        "same_as_before": taught.same,
        "left_out": taught.left_out,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    save_questions({**splits, args.split: taught.questions}, output, {"report.json": text})
