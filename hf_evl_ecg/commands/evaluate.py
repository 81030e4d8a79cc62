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
OUTPUT_DIR/STUDY.json, .md and .png, each value with a 95 % bootstrap interval over records and the level of chance. A model that says
how the ECGs of its training were drawn is asked about such pages; options that differ are refused. --compare sft adds what every other method gains over sft, each resample with the same records for both.

Tasks of ECGBench, from its folder or hub:OWNER/NAME, with strict scores beside those of the released scorers (OUTPUT_DIR/ecgbench.json,
.md). Reports and the arena need a judge behind a URL that speaks OpenAI's chat completions; without one they are answered, not scored:

    JUDGE_API_KEY=... hf-evl-ecg evaluate --models evl_ecg=outputs/student --benchmarks ptb-test mmmu-ecg arena --data data/ECGBench \
        --judge_url http://localhost:8000/v1 --judge_model a-judge --max_new_tokens 1024 --output_dir outputs/ecgbench

Reasoning step by step, as ECG-Reasoning-Benchmark asks for it (arXiv 2603.14326): criterion, finding, where it is seen, decision. About
the simulated records and those of LUDB in a question dataset, whose truth is known, or with the released files (a folder, or
hub:OWNER/NAME) and the records they name (OUTPUT_DIR/ecg_reasoning.json, .md):

    hf-evl-ecg evaluate --models evl_ecg=outputs/student --benchmarks reasoning --data outputs/questions --output_dir outputs/reasoning
    hf-evl-ecg evaluate --models evl_ecg=outputs/student --benchmarks reasoning-ptbxl --data data/ecg-reasoning-benchmark \
        --record_dir data/ptb-xl --output_dir outputs/reasoning

With --benchmarks an option that would have no effect is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.command_line.benchmark_options import BenchmarkArguments, refuse_unused
from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = [
    "BenchmarkArguments",
    "EvaluateArguments",
    "command",
    "main",
    "score_benchmarks",
    "score_models",
    "score_reasoning",
]


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
    study: str | None = field(
        default=None,
        metadata={
            "help": "Name of the results json, md and png; default: ecg_scores, with --benchmarks ecgbench or ecg_reasoning."
        },
    )
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
    kinds = (EvaluateArguments, BenchmarkArguments, PageOptions)
    args, benchmark, images = parse_arguments(arguments, *kinds, description=__doc__, prog=prog)
    if not benchmark.benchmarks:
        main(args, images)
        return
    refuse_unused(benchmark, args, images)
    if benchmark.reasons:
        score_reasoning(args, benchmark, images)
    else:
        score_benchmarks(args, benchmark)


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
    if judge is not None and not any(found.task.kind == "judged" for found in tasks):
        raise ValueError(f"judge_url={benchmark.judge_url}: none of {benchmark.benchmarks} is judged (leave it out)")
    if not args.likelihoods and not any(found.task.labels for found in tasks):
        raise ValueError(f"likelihoods=False: {benchmark.benchmarks} have no labels to score (leave it out)")
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
            likelihoods=args.likelihoods,
            **_answering(args),
        )
        rows += scored
        notes += said
    study = args.study or "ecgbench"
    config = {"evaluate": asdict(args), "benchmark": asdict(benchmark)}
    text = write_benchmarks(args.output_dir, config, rows, notes, study)
    print(f"\n{text}\nWritten: {Path(args.output_dir) / study}.json, .md")
    return rows


def score_reasoning(
    args: EvaluateArguments, benchmark: BenchmarkArguments, images: PageOptions
) -> list[dict[str, Any]]:
    """Score every model on reasoning step by step and write results.

    Returns:
        Rows of the results json.
    """
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.models.loading import load_model
    from hf_evl_ecg.reasoning import TASKS, build_chains, load_released, run_reasoning, write_reasoning

    tasks = {}
    for name in benchmark.benchmarks:
        check_choice("benchmark", name, TASKS)
        source = TASKS[name]
        if source is None or benchmark.record_dir is None:
            tasks[name] = build_chains(load_questions(args.data, args.split, args.records))
        else:
            tasks[name] = load_released(source, args.data, benchmark.record_dir)
    rows: list[dict[str, Any]] = []
    for method, _, path in (model.partition("=") for model in args.models):
        model, processor = load_model(path, args.dtype, args.device)
        rows += run_reasoning(
            model.eval(),
            processor,
            tasks,
            args.output_dir,
            method=method,
            seed=args.seed,
            load_image=images.renderer(path),
            history=benchmark.history,
            **_answering(args),
        )
    study = args.study or "ecg_reasoning"
    config = {"evaluate": asdict(args), "benchmark": asdict(benchmark)} | images.described(_paths(args))
    text = write_reasoning(args.output_dir, study, config, rows)
    print(f"\n{text}\nWritten: {Path(args.output_dir) / study}.json, .md")
    return rows


def _paths(args: EvaluateArguments) -> list[str]:
    return [model.partition("=")[2] for model in args.models]


def _answering(args: EvaluateArguments) -> dict[str, Any]:
    """Options of every benchmark."""
    names = ("n_bootstrap", "max_new_tokens", "system_prompt", "batch_size", "num_workers")
    return {name: getattr(args, name) for name in names}


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
    study = args.study or "ecg_scores"
    text = write_report(output, study, {"evaluate": asdict(args)} | images.described(_paths(args)), rows)
    print(f"\n{text}\nWritten: {output / study}.json, .md, .png")
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
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.models.loading import load_model
    from hf_evl_ecg.scores.compare import gain_rows
    from hf_evl_ecg.scores.models import score_model

    methods = {method for method, _, _ in models.values()}
    if compare and (set(compare) - methods or n_bootstrap < 1):
        raise ValueError(f"compare={compare}, n_bootstrap={n_bootstrap}: allowed are {sorted(methods)} and at least 1")
    drawn = {path: images.renderer(path) for _, _, path in models.values()}  # clean pages: artefacts are for training
    questions = load_questions(data, split, records)
    rows: list[dict[str, Any]] = []
    answered: dict[str, list[Any]] = {}
    for name, (method, seed, path) in models.items():
        model, processor = load_model(path, dtype, device)
        scored, pairs = score_model(
            model.eval(),
            processor,
            questions,
            drawn[path],
            method=method,
            seed=seed,
            answers=output / f"answers_{name}_{split}.jsonl",
            n_bootstrap=n_bootstrap,
            **options,
        )
        rows += scored
        answered.setdefault(method, []).append(pairs)
    return rows + (gain_rows(answered, compare, n_bootstrap) if compare else [])
