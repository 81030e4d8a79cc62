"""The runs of a study: train one method with one seed, score it at each dimension, with the geometry of its prefixes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from hf_mic.evaluation.evaluation import score_embeddings
from hf_mic.evaluation.tasks import ClassificationTask, PairClassificationTask, STSTask, Task
from hf_mic.evaluation.training_data import load_training_data
from hf_mic.frozen.head import KeepOrthogonal, add_dense_head
from hf_mic.geometry.diagnostics import geometry_report
from hf_mic.trainer import MICTrainer
from hf_mic.training_args import MICTrainingArguments

__all__ = [
    "GEOMETRY",
    "encode_with",
    "geometry_texts",
    "held_out_texts",
    "score",
    "train",
    "training_data",
    "untrained_rows",
]

GEOMETRY = ("cross_correlation", "eigen_cv", "residual_r2_adjusted", "effective_rank", "knn_overlap")
Embed = Callable[[list[str]], NDArray]


def training_data(
    data_dir: str | Path, sources: Sequence[Mapping[str, Any]], held_out: set[str]
) -> Dataset | dict[str, Dataset]:
    """Read the training files, without rows that hold a text of ``held_out``.

    Args:
        data_dir: Folder of the files.
        sources: Mappings with ``file`` and ``kind``, and optionally ``columns``, as for
            :func:`hf_mic.evaluation.training_data.load_training_data`.
        held_out: Texts that are scored.
    """
    parts = {}
    for source in sources:
        dataset = load_training_data(Path(data_dir) / source["file"], source["kind"], columns=source.get("columns"))
        columns = list(dataset.column_names)
        dataset = dataset.filter(lambda row, names=columns: not any(row[name] in held_out for name in names))
        file = Path(source["file"])
        stem = file.name.split(".")[0]
        parts[file.parent.name if stem == "train" and file.parent.name else stem] = dataset
    return parts if len(parts) > 1 else next(iter(parts.values()))


def train(
    plan: Mapping[str, Any], method: Mapping[str, Any], seed: int, *, data_dir: str, output_dir: str, held_out: set[str]
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Train one method with one seed.

    Returns:
        The model and what is known of the run: seconds, and the mean of each logged loss term over the last fifth.
    """
    set_seed(seed)
    settings = {"max_steps": -1, **plan["training"], **method.get("training", {})}
    encoder = SentenceTransformer(plan["model"])
    head = add_dense_head(encoder) if plan["head"] != "none" else None
    encoder.max_seq_length = plan["max_seq_length"].get("train", encoder.max_seq_length)
    if head is not None:
        place = rf"model\.{list(encoder).index(head)}\.linear\."
        settings["learning_rate_mapping"] = {place: plan["head_learning_rate"]}
    args = MICTrainingArguments(
        str(Path(output_dir) / "checkpoints" / f"{method['name']}-{seed}"),
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=max(1, settings["max_steps"] // 5),
        use_cpu=not torch.cuda.is_available(),
        **settings,
    )
    data = training_data(data_dir, plan["data"][method["data"]], held_out)
    trainer = MICTrainer(model=encoder, args=args, train_dataset=data, method=method["method"])
    if head is not None and plan["head"] == "orthogonal":
        trainer.add_callback(KeepOrthogonal(head))
    began = time.perf_counter()
    trainer.train()
    last = next(entry for entry in reversed(trainer.state.log_history) if "loss" in entry)
    terms = {name: last[name] for name in ("loss", "matryoshka", "scr", "sir", "distill") if name in last}
    return encoder, {"train_seconds": round(time.perf_counter() - began, 1), "last_terms": terms}


def score(
    name: str, seed: int | None, embed: Embed, tasks: Sequence[Task], dims: Sequence[int], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of all tasks and of the geometry of ``texts``, per dimension."""
    rows = score_embeddings(tasks, embed, dims, method=name, seed=seed, probe_c=1.0, progress_bar=False)
    for report in geometry_report(embed(list(texts)), dims) if texts else []:
        size = {"dim": report["dim"], "precision": "float32", "bytes_per_vector": 4 * report["dim"]}
        rows += [
            {"method": name, "seed": seed, "task": "geometry", **size, "metric": metric, "value": report[metric]}
            | {"n": len(texts), "ci_low": None, "ci_high": None}
            for metric in GEOMETRY
            if report.get(metric) is not None
        ]
    return rows


def encode_with(encoder: SentenceTransformer, plan: Mapping[str, Any]) -> Embed:
    """The function that embeds texts with a model, at the length and precision used for scoring."""
    encoder.max_seq_length = plan["max_seq_length"].get("score", encoder.max_seq_length)

    def embed(texts: list[str]) -> NDArray:
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=plan["bf16_scores"]):
            vectors = encoder.encode(texts, batch_size=64, show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().cpu().numpy()

    return embed


def untrained_rows(
    plan: Mapping[str, Any], tasks: Sequence[Task], *, data_dir: str, held_out: set[str]
) -> list[dict[str, Any]]:
    """Rows of the starting encoder: truncated, and after PCA fitted on the texts of the first training data."""
    embed = encode_with(SentenceTransformer(plan["model"]), plan)
    texts = geometry_texts(tasks)
    rows = score("truncation", None, embed, tasks, plan["dims"], texts)
    data = training_data(data_dir, next(iter(plan["data"].values())), held_out)
    parts = data.values() if isinstance(data, dict) else [data]
    training = embed([text for part in parts for text in part[part.column_names[0]]])
    _, _, directions = np.linalg.svd(training - training.mean(axis=0), full_matrices=False)
    return rows + score("pca", None, lambda given: embed(given) @ directions.T, tasks, plan["dims"], texts)


def geometry_texts(tasks: Sequence[Task]) -> list[str]:
    """The distinct sentences of the first STS task, which are never trained on; none without such a task."""
    sts = next((task for task in tasks if isinstance(task, STSTask)), None)
    return [] if sts is None else list(dict.fromkeys([*sts.sentences1, *sts.sentences2]))


def held_out_texts(tasks: Sequence[Task]) -> set[str]:
    """Texts that are scored by similarity or classified; training data that hold one are left out."""
    texts: set[str] = set()
    for task in tasks:
        if isinstance(task, STSTask):
            texts |= {*task.sentences1, *task.sentences2}
        elif isinstance(task, ClassificationTask):
            texts |= set(task.test_texts)
        elif isinstance(task, PairClassificationTask):
            texts |= {text for pair in task.test_pairs for text in pair}
    return texts
