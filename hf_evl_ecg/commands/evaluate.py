r"""Ask models the same questions about the same ECGs and score their answers: teacher, baselines and student alike.

One GPU:

    hf-evl-ecg evaluate --models teacher=outputs/teacher sft=outputs/student_sft evl_ecg=outputs/student \
        --data outputs/questions --batch_size 32 --num_workers 8 --dtype bfloat16 --device cuda --output_dir outputs/scores

Several GPUs: one process per model, then all of them once more, which only reads the answers that are there:

    CUDA_VISIBLE_DEVICES=0 hf-evl-ecg evaluate ... --models teacher=outputs/teacher &
    CUDA_VISIBLE_DEVICES=1 hf-evl-ecg evaluate ... --models evl_ecg=outputs/student & wait

Answers are generated greedily and read strictly; an answer that cannot be read is wrong. Where a question has a known set of answers,
their likelihoods are scored too (AUC, calibration). Every answer is written to OUTPUT_DIR/answers_METHOD_SPLIT.jsonl as it comes, so
an interrupted run goes on where it stopped; a file of another model, of other pictures, prompts or settings is refused. Results:
OUTPUT_DIR/STUDY.json, .md and .png, each value with a 95 % bootstrap interval over records and the level of chance. Image options
must be those of training. --compare sft adds what every other method gains over sft, each resample with the same records for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["EvaluateArguments", "command", "main", "score_models"]


@dataclass
class EvaluateArguments:
    """Which models, on which questions."""

    models: list[str] = field(
        metadata={"help": "Models as METHOD=FOLDER or METHOD=HUB_NAME; the method's name stands in the results."}
    )
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare."})
    output_dir: str = field(metadata={"help": "Where answers and results go."})
    split: str = field(default="test", metadata={"help": "Split to score; choose settings on validation only."})
    records: int | None = field(default=None, metadata={"help": "Use only this many records, drawn evenly."})
    study: str = field(default="ecg_scores", metadata={"help": "Name of the results json, md and png."})
    seed: int | None = field(default=None, metadata={"help": "Training seed of the models, for the results."})
    dtype: str = field(default="auto", metadata={"help": "Precision of the weights: auto, float32, bfloat16."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1 …"})
    generate: bool = field(default=True, metadata={"help": "Score generated answers."})
    likelihoods: bool = field(default=True, metadata={"help": "Score likelihoods of possible answers."})
    max_new_tokens: int = field(default=64, metadata={"help": "Longest generated answer."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message."})
    batch_size: int = field(default=8, metadata={"help": "Questions at once."})
    num_workers: int = field(default=0, metadata={"help": "Processes that draw and preprocess images."})
    n_bootstrap: int = field(default=1000, metadata={"help": "Resamples for the intervals; 0 for none."})
    min_per_class: int = field(default=10, metadata={"help": "Positive items a class needs for rows of its own."})
    compare: list[str] | None = field(
        default=None,
        metadata={
            "help": "Methods that every other one is compared with: differences of AUC and of right answers, paired by record."
        },
    )

    def __post_init__(self) -> None:
        wrong = [model for model in self.models if not all(model.partition("="))]
        names = [model.partition("=")[0] for model in self.models]
        if wrong or len(set(names)) < len(names):
            raise ValueError(f"models={self.models}: METHOD=FOLDER, each method once, is allowed")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, EvaluateArguments, PageOptions, description=__doc__, prog=prog))


def main(args: EvaluateArguments, images: PageOptions) -> list[dict[str, Any]]:
    """Score every model and write results.

    Returns:
        Rows of the results json.
    """
    from hf_evl_ecg.scores.report import write_report

    output = Path(args.output_dir)
    split_names = (model.partition("=") for model in args.models)
    models = {method: (method, args.seed, path) for method, _, path in split_names}
    own = ("models", "output_dir", "study", "seed")
    options = {name: value for name, value in asdict(args).items() if name not in own}
    rows = score_models(models, images, output, **options)
    text = write_report(output, args.study, {"evaluate": asdict(args), "images": asdict(images)}, rows)
    print(f"\n{text}\nWritten: {output / args.study}.json, .md, .png")
    return rows


def score_models(
    models: Mapping[str, tuple[str, int | None, str]],
    images: PageOptions,
    output: Path,
    *,
    data: str,
    split: str = "test",
    records: int | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    compare: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    **options: Any,
) -> list[dict[str, Any]]:
    """Score models one after the other on the same questions.

    Args:
        models: Name of its file of answers → method, training seed and folder of a model.
        images: How ECGs are drawn.
        output: Folder for the files of answers.
        data: Question dataset.
        split: Split to score.
        records: Use only this many records; None: all.
        dtype: Precision of the weights.
        device: Where the models run.
        compare: Methods that every other one is compared with, over all of its seeds.
        n_bootstrap: Resamples for the intervals; 0 for none.
        options: Further options of `hf_evl_ecg.scores.models.score_model`.

    Returns:
        Rows of the results json.

    Raises:
        ValueError: ``compare`` names a method that is not scored, or there are no resamples to compare by.
    """
    from hf_evl_ecg.data.questions import load_questions
    from hf_evl_ecg.models.loading import load_model
    from hf_evl_ecg.scores.compare import gain_rows
    from hf_evl_ecg.scores.models import score_model

    methods = {method for method, _, _ in models.values()}
    if compare and (set(compare) - methods or n_bootstrap < 1):
        raise ValueError(f"compare={compare}, n_bootstrap={n_bootstrap}: allowed are {sorted(methods)} and at least 1")
    draw = images.renderer()  # clean pages: artefacts are for training
    questions = load_questions(data, split, records)
    rows: list[dict[str, Any]] = []
    answered: dict[str, list[Any]] = {}
    for name, (method, seed, path) in models.items():
        model, processor = load_model(path, dtype, device)
        scored, pairs = score_model(
            model.eval(),
            processor,
            questions,
            draw,
            method=method,
            seed=seed,
            answers=output / f"answers_{name}_{split}.jsonl",
            n_bootstrap=n_bootstrap,
            **options,
        )
        rows += scored
        answered.setdefault(method, []).append(pairs)
    return rows + (gain_rows(answered, compare, n_bootstrap) if compare else [])
