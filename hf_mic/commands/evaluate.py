r"""Score encoders at each dimension, and per byte: STS, classification, pairs and retrieval, with bootstrap intervals.

Several models on one axis; STS-B, Banking77 and SciFact come from the Hub, or from --data_dir:

    hf-mic evaluate --models sentence-transformers/all-MiniLM-L6-v2 outputs/mic --methods truncation mic

On data of your own (see --tasks), as stored bytes:

    hf-mic evaluate --models outputs/mic --tasks sts=my_pairs.csv classification=train.csv,test.csv \
        --precisions float32 int8 binary

Writes STUDY.json, .md and .png. Each text is embedded once per model; on one CPU core MiniLM takes about 20 s per thousand short
sentences, a dimension some seconds more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.precision import PRECISIONS


@dataclass
class EvaluateArguments:
    """What to score and where to write it."""

    models: list[str] = field(metadata={"help": "Models: folders or names on the Hub."})
    methods: list[str] | None = field(
        default=None,
        metadata={"help": "Name of each model in the tables; the last part of its path or name if not given."},
    )
    seeds: list[int] | None = field(
        default=None,
        metadata={"help": "Training seed of each model. Models with the same method are averaged over their seeds."},
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder with stsb/{dev,test}.csv, classification/banking77/{train,test}.csv and retrieval/scifact/ "
            "(BEIR layout). Without it, the same data comes from the Hub."
        },
    )
    tasks: list[str] = field(
        default_factory=lambda: ["stsb", "banking77", "scifact"],
        metadata={
            "help": "Any of stsb, banking77, scifact, or files of your own: sts=FILE (columns sentence1, sentence2, score), "
            "classification=TRAIN,TEST (text, label), pairs=DEV,TEST (sentence1, sentence2, label 0 or 1), "
            "retrieval=FOLDER (BEIR layout). Files: csv, tsv, jsonl, parquet; Hub names are accepted too."
        },
    )
    validation: bool = field(
        default=False,
        metadata={
            "help": "Score STS-B dev, a held-out fifth of Banking77's training set and SciFact's training queries: for "
            "choosing settings without looking at test data."
        },
    )
    dims: list[int] = field(
        default_factory=lambda: [8, 16, 32, 64, 128, 256, 384],
        metadata={"help": "Prefix lengths; none may exceed the width of a model."},
    )
    precisions: list[str] = field(
        default_factory=lambda: ["float32"],
        metadata={"help": f"How vectors are stored: any of {', '.join(PRECISIONS)}. Several give a table by bytes."},
    )
    probe_c: float = field(
        default=10.0, metadata={"help": "Inverse penalty of the logistic regression that scores classification."}
    )
    n_bootstrap: int = field(
        default=500, metadata={"help": "Bootstrap resamples of the test items for the 95 %% intervals; 0 for none."}
    )
    batch_size: int = field(default=64, metadata={"help": "Texts per forward pass."})
    device: str | None = field(
        default=None, metadata={"help": "Such as cpu or cuda:0; chosen automatically if not given."}
    )
    output_dir: str = field(default="outputs/mic_evaluate", metadata={"help": "Where STUDY.json, .md and .png go."})
    study: str = field(default="mic_evaluate", metadata={"help": "Name of the study in the results and of the files."})

    def __post_init__(self) -> None:
        for name in ("methods", "seeds"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.models):
                raise ValueError(f"--{name} needs one entry per model: {len(self.models)}, got {len(given)}.")
        runs = list(zip(self.names(), self.each_seed(), strict=True))
        if len(set(runs)) < len(runs):
            raise ValueError(f"Two models share method and seed in {runs}: tell them apart with --methods and --seeds.")

    def names(self) -> list[str]:
        """Method name of each model."""
        return self.methods or [Path(model).name for model in self.models]

    def each_seed(self) -> Sequence[int | None]:
        """Seed of each model, None where it is not known."""
        return self.seeds or [None for _ in self.models]


def parse(words: Sequence[str]) -> tuple[EvaluateArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([EvaluateArguments], words, __doc__, prog="hf-mic evaluate")
    return (args,)


def main(args: EvaluateArguments) -> dict[str, Any]:
    """Score all models; json, markdown and picture are written anew after each, so a killed run keeps what is done.

    Returns:
        The results as written to the json file.

    Raises:
        ValueError: If a task is not known, its data are not sound, or a dimension exceeds the width of a model.
    """
    from hf_mic.evaluation.evaluation import evaluate_model
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.reports.score_report import write_score_report
    from hf_mic.reports.score_tables import markdown_report

    tasks = load_tasks(args.tasks, args.data_dir, validation=args.validation)
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for path, method, seed in zip(args.models, args.names(), args.each_seed(), strict=True):
        rows += evaluate_model(
            load_encoder(path, device=args.device),
            tasks,
            args.dims,
            method=method,
            seed=seed,
            precisions=args.precisions,
            probe_c=args.probe_c,
            n_bootstrap=args.n_bootstrap,
            batch_size=args.batch_size,
            progress_bar=True,
        )
        results = write_score_report(rows, args.output_dir, args.study, asdict(args))
    print(f"\n{markdown_report(results)}\n\nWritten: {Path(args.output_dir, args.study)}.json, .md, .png")
    return results
