r"""Ask models the tasks of ECGBench and score their answers, strictly and as the released scorers do.

    hf-evl-ecg benchmark --models pulse=outputs/pulse evl_ecg=outputs/student --tasks ptb-test ecgqa-test mmmu-ecg \
        --data data/ECGBench --dtype bfloat16 --device cuda --max_new_tokens 1024 --output_dir outputs/ecgbench

DATA is the folder of ECGBench: TASK.json, .jsonl or .parquet, or folders TASK of such files, and images/; or hub:OWNER/NAME. Tasks:
ptb-test, cpsc-test, code15-test, ecgqa-test, csn-test-no-cot, g12-test-no-cot, mmmu-ecg, ptb-test-report, arena.

Reports and the arena need a judge behind a URL that speaks OpenAI's chat completions; without one they are answered but not scored:

    JUDGE_API_KEY=... hf-evl-ecg benchmark --models evl_ecg=outputs/student --tasks ptb-test-report arena --data data/ECGBench \
        --judge_url http://localhost:8000/v1 --judge_model a-judge --max_new_tokens 1024 --output_dir outputs/ecgbench

Answers and raw verdicts are written to OUTPUT_DIR as they come, so an interrupted run goes on; results are OUTPUT_DIR/ecgbench.json, .md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["BenchmarkArguments", "command", "main"]


@dataclass
class BenchmarkArguments:
    """Which models, on which tasks, judged by whom."""

    models: list[str] = field(
        metadata={"help": "Models as METHOD=FOLDER or METHOD=HUB_NAME; the method's name stands in the results."}
    )
    tasks: list[str] = field(metadata={"help": "Tasks of ECGBench."})
    data: str = field(metadata={"help": "Folder of ECGBench, or hub:OWNER/NAME to download it."})
    output_dir: str = field(metadata={"help": "Where answers, verdicts and results go."})
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the images; by default DATA/images."})
    allow_partial: bool = field(default=False, metadata={"help": "Score a task of which records are missing."})
    judge_url: str | None = field(default=None, metadata={"help": "Base URL of the judge of reports and the arena."})
    judge_model: str | None = field(default=None, metadata={"help": "Name of the judge there."})
    judge_key_variable: str = field(
        default="JUDGE_API_KEY", metadata={"help": "Environment variable with the judge's key, which is kept nowhere."}
    )
    judge_timeout: float = field(default=120.0, metadata={"help": "Longest wait for one verdict (s)."})
    judge_workers: int = field(default=4, metadata={"help": "Verdicts asked for at once."})
    seed: int | None = field(default=None, metadata={"help": "Training seed of the models, for the results."})
    dtype: str = field(default="auto", metadata={"help": "Precision of the weights: auto, float32, bfloat16."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1 …"})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest generated answer."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message."})
    batch_size: int = field(default=8, metadata={"help": "Questions at once."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read and preprocess images."})
    n_bootstrap: int = field(default=1000, metadata={"help": "Resamples for the intervals; 0 for none."})

    def __post_init__(self) -> None:
        names = [model.partition("=")[0] for model in self.models if all(model.partition("="))]
        if len(set(names)) < len(self.models):
            raise ValueError(f"models={self.models}: METHOD=FOLDER, each method once, is allowed")
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError(f"judge_url={self.judge_url}, judge_model={self.judge_model}: both or none are needed")


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, BenchmarkArguments, description=__doc__, prog=prog))


def main(args: BenchmarkArguments) -> list[dict[str, Any]]:
    """Score every model on every task and write results.

    Returns:
        Rows of the results json.
    """
    from hf_evl_ecg.benchmarks import Judge, load_benchmark, run_benchmarks, write_benchmarks
    from hf_evl_ecg.models.loading import load_model

    judge = None
    if args.judge_url is not None and args.judge_model is not None:
        judge = Judge(
            args.judge_url, args.judge_model, key_variable=args.judge_key_variable, timeout_s=args.judge_timeout
        )
    tasks = [load_benchmark(name, args.data, args.image_dir) for name in args.tasks]
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
            judge_workers=args.judge_workers,
            allow_partial=args.allow_partial,
            n_bootstrap=args.n_bootstrap,
            max_new_tokens=args.max_new_tokens,
            system_prompt=args.system_prompt,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )
        rows += scored
        notes += said
    text = write_benchmarks(args.output_dir, asdict(args), rows, notes)
    print(f"\n{text}\nWritten: {Path(args.output_dir) / 'ecgbench'}.json, .md")
    return rows
