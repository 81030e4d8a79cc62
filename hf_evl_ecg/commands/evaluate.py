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

Tasks of ECGBench, from its folder or hub:OWNER/NAME, with strict scores beside those of the released scorers (OUTPUT_DIR/ecgbench.json,
.md). Reports and the arena need a judge behind a URL that speaks OpenAI's chat completions; without one they are answered, not scored:

    JUDGE_API_KEY=... hf-evl-ecg evaluate --models evl_ecg=outputs/student --benchmarks ptb-test mmmu-ecg arena --data data/ECGBench \
        --judge_url http://localhost:8000/v1 --judge_model a-judge --max_new_tokens 1024 --output_dir outputs/ecgbench
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["BenchmarkArguments", "EvaluateArguments", "command", "main", "score_benchmarks", "score_models"]


@dataclass
class EvaluateArguments:
    """Which models, on which questions."""

    models: list[str] = field(
        metadata={"help": "Models as METHOD=FOLDER or METHOD=HUB_NAME; the method's name stands in the results."}
    )
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare; with --benchmarks: ECGBench."})
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


@dataclass
class BenchmarkArguments:
    """Tasks of ECGBench instead of one's own questions, and who judges them."""

    benchmarks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "ptb-test, cpsc-test, code15-test, ecgqa-test, csn-test-no-cot, g12-test-no-cot, mmmu-ecg, ptb-test-report, arena."
        },
    )
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the images; by default DATA/images."})
    allow_partial: bool = field(default=False, metadata={"help": "Score a task of which records are missing."})
    judge_url: str | None = field(default=None, metadata={"help": "Base URL of the judge of reports and the arena."})
    judge_model: str | None = field(default=None, metadata={"help": "Name of the judge there."})
    judge_key_variable: str = field(
        default="JUDGE_API_KEY", metadata={"help": "Environment variable with the judge's key, which is kept nowhere."}
    )
    judge_timeout: float = field(default=120.0, metadata={"help": "Longest wait for one verdict (s)."})
    judge_workers: int = field(default=4, metadata={"help": "Verdicts asked for at once."})

    def __post_init__(self) -> None:
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError(f"judge_url={self.judge_url}, judge_model={self.judge_model}: both or none are needed")
        if not self.benchmarks and (self.judge_url or self.image_dir or self.allow_partial):
            raise ValueError(
                "judge_url, image_dir and allow_partial are for --benchmarks (name some, or leave them out)"
            )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    kinds = (EvaluateArguments, BenchmarkArguments, PageOptions)
    args, benchmark, images = parse_arguments(arguments, *kinds, description=__doc__, prog=prog)
    if benchmark.benchmarks:
        score_benchmarks(args, benchmark)
    else:
        main(args, images)


def score_benchmarks(args: EvaluateArguments, benchmark: BenchmarkArguments) -> list[dict[str, Any]]:
    """Score every model on tasks of ECGBench and write results.

    Returns:
        Rows of the results json.
    """
    from hf_evl_ecg.benchmarks import Judge, load_benchmark, run_benchmarks, write_benchmarks
    from hf_evl_ecg.models.loading import load_model

    judge = None
    if benchmark.judge_url is not None and benchmark.judge_model is not None:
        judge = Judge(
            benchmark.judge_url,
            benchmark.judge_model,
            key_variable=benchmark.judge_key_variable,
            timeout_s=benchmark.judge_timeout,
        )
    tasks = [load_benchmark(name, args.data, benchmark.image_dir) for name in benchmark.benchmarks]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for method, _, path in (model.partition("=") for model in args.models):
        model, processor = load_model(path, args.dtype, args.device)
        scored, said = run_benchmarks(
            model.eval(),
            processor,
            tasks,
            args.output_dir,
            method=method,
            seed=args.seed,
            judge=judge,
            judge_workers=benchmark.judge_workers,
            allow_partial=benchmark.allow_partial,
            n_bootstrap=args.n_bootstrap,
            max_new_tokens=args.max_new_tokens,
            system_prompt=args.system_prompt,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )
        rows += scored
        notes += said
    text = write_benchmarks(args.output_dir, {"evaluate": asdict(args), "benchmark": asdict(benchmark)}, rows, notes)
    print(f"\n{text}\nWritten: {Path(args.output_dir) / 'ecgbench'}.json, .md")
    return rows


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
