"""The parts of a run of the verb `train`: data and trainer, scores, card and publishing."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from sentence_transformers import SentenceTransformer

from hf_mic.capture import embedding_width
from hf_mic.cards.card import complete_model_card, hub_name
from hf_mic.command_line.train_arguments import TrainArguments
from hf_mic.evaluation.evaluation import evaluate_model
from hf_mic.evaluation.loading import load_encoder
from hf_mic.evaluation.tables import read_table
from hf_mic.evaluation.tasks import Task
from hf_mic.evaluation.training_data import load_training_data
from hf_mic.frozen.head import KeepOrthogonal, add_dense_head
from hf_mic.hub.legacy_modules import write_legacy_modules
from hf_mic.hub.publish import publish_encoder
from hf_mic.reports.score_report import write_score_report
from hf_mic.reports.score_tables import markdown_report
from hf_mic.trainer import MICTrainer
from hf_mic.training_args import MICTrainingArguments

__all__ = ["build_trainer", "distinct_examples", "finish", "load_data", "warn_about_single_process"]

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "anchor", "positive", "negative", "sentence1", "sentence2")


def load_data(args: TrainArguments) -> dict[str, Dataset]:
    """Read the training data, by name.

    Raises:
        ValueError: As :func:`hf_mic.evaluation.training_data.load_training_data`.
    """
    kinds: Sequence[str | None] = args.kinds or [None]
    kinds = [*kinds] * len(args.data) if len(kinds) == 1 else kinds
    parts: dict[str, Dataset] = {}
    for source, kind in zip(args.data, kinds, strict=True):
        options: dict[str, Any] = {"split": args.split, "subset": args.subset, "max_rows": args.max_rows}
        columns = cast(Mapping[str, Any] | None, args.columns)  # a text became a mapping in TrainArguments
        if args.unsupervised:
            kind, columns = "single", {"text": _text_columns(args, source)}
        elif args.score_range is not None:
            options["score_range"] = tuple(args.score_range)
        name = Path(source).name.split(".")[0]
        name = name if name not in parts else f"{name}_{len(parts)}"
        parts[name] = load_training_data(source, kind, columns=columns, **options)
    return parts


def _text_columns(args: TrainArguments, source: str) -> list[str]:
    """Columns of a source that hold sentences, whatever its kind."""
    if args.columns:
        columns = cast(Mapping[str, Any], args.columns)
        named = [names for target, names in columns.items() if target != "score"]
        return [name for names in named for name in ([names] if isinstance(names, str) else names)]
    present = read_table(source, split=args.split, subset=args.subset)
    return [name for name in TEXT_COLUMNS if name in present] or ["text"]


def build_trainer(args: TrainArguments, training: MICTrainingArguments) -> MICTrainer:
    """The trainer with model, head and data as the arguments say."""
    parts, model = load_data(args), load_encoder(args.model)
    if args.max_seq_length is not None:
        model.max_seq_length = args.max_seq_length
    model.model_card_data.train_datasets = [
        {"name": name} if Path(source).exists() else {"name": source, "id": source}
        for name, source in zip(parts, args.data, strict=True)
    ]
    model.model_card_data.license = args.license or model.model_card_data.license
    head = add_dense_head(model) if args.dense_head != "none" else None
    if head is not None:
        training.learning_rate_mapping = {
            **cast(dict[str, float], training.learning_rate_mapping),
            rf"model\.{list(model).index(head)}\.linear\.": args.head_learning_rate,
        }
    data = next(iter(parts.values())) if len(parts) == 1 else parts
    trainer = MICTrainer(model=model, args=training, train_dataset=data, method=args.method)
    if head is not None and args.dense_head == "orthogonal":
        trainer.add_callback(KeepOrthogonal(head))
    about = model.model_card_data
    about.base_model = args.base_model or hub_name(args.model) or about.base_model
    about.widget, about.usage_examples = distinct_examples(about.widget, about.usage_examples)
    return trainer


def distinct_examples(
    widget: Sequence[Mapping[str, Any]], texts: Sequence[Any] | None
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Examples of a card without a text beside its own copy, whose similarity of 1 says nothing; pairs of SimCSE are such copies.

    Example:
        >>> distinct_examples([{"source_sentence": "a", "sentences": ["a", "b", "b"]}], ["a", "a", "b"])
        ([{'source_sentence': 'a', 'sentences': ['b']}], ['a', 'b'])
    """
    told = [dict(example) for example in widget]
    for example in filter(lambda example: "sentences" in example, told):
        others = dict.fromkeys(text for text in example["sentences"] if text != example["source_sentence"])
        example["sentences"] = list(others)
    if texts is None or not all(isinstance(text, str) for text in texts):
        return told, None if texts is None else list(texts)
    apart = list(dict.fromkeys(texts))
    return told, apart if len(apart) > 1 else None


def finish(
    trainer: MICTrainer, args: TrainArguments, tasks: Sequence[Task], hub: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Score the trained model, write its card, publish it if that was asked for; in the first process only."""
    model, training, output = trainer.model, trainer.args, Path(str(trainer.args.output_dir))
    dims = args.eval_dims or sorted({8, *training.dims_for(embedding_width(model))})
    if args.legacy_modules:
        write_legacy_modules(model, output)
    results = score(args, training, model, tasks, dims) if tasks else None
    method = args.method if results else None
    trainer.finish_card = partial(
        complete_model_card, loss=trainer.loss, results=results, method=method, model_id=training.hub_model_id
    )
    trainer.create_model_card()
    if hub:
        report = publish_encoder(
            model, card=output / "README.md", truncate_dim=min(dims), legacy_modules=args.legacy_modules, **hub
        )
        print(f"Published: {report.push.repo_id} ({report.push.revision}) at {report.push.commit}")
    return results


def score(
    args: TrainArguments,
    training: MICTrainingArguments,
    model: SentenceTransformer,
    tasks: Sequence[Task],
    dims: Sequence[int],
) -> dict[str, Any]:
    """Score the trained model and the truncated starting model; write json, markdown and picture."""
    options: dict[str, Any] = {"n_bootstrap": args.n_bootstrap, "progress_bar": True}
    start = load_encoder(args.model)
    start.max_seq_length = model.max_seq_length
    rows = evaluate_model(start, tasks, dims, method="truncation", **options)
    rows += evaluate_model(model, tasks, dims, method=args.method, seed=training.seed, **options)
    output = Path(str(training.output_dir))
    config = {"script": asdict(args), "training": training.to_dict()}
    results = write_score_report(rows, output, args.study, config)
    print(f"\n{markdown_report(results)}\n\nWritten: {output / args.study}.json, .md, .png")
    return results


def warn_about_single_process() -> None:
    """Say so if ``accelerate launch --cpu --num_processes N`` found no MPI and quietly started a single process."""
    started = {"RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK"} & set(os.environ)
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and not started:
        logger.warning(
            "Several CPU processes were asked for, one was started: accelerate needs MPI (--mpirun_hostfile) for more. Use "
            "accelerate launch --multi_gpu --num_processes N -m hf_mic train ... --use_cpu instead."
        )
