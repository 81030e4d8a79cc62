"""MICTrainer: a MIC run needs a model and a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset, Value
from sentence_transformers import SentenceTransformer
from torch import Generator, Tensor, nn
from torch.utils.data import BatchSampler, ConcatDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mic.balance import TermShares
from hf_mic.baselines import method_loss
from hf_mic.batching import EpochOrder, JoinedBatches, SplitBatches
from hf_mic.capture import check_encoder, unwrap
from hf_mic.checkpoints import AtomicCheckpointTrainer
from hf_mic.layers import mark_matryoshka, trained_dims
from hf_mic.losses import MICLoss
from hf_mic.options import MICOptions
from hf_mic.training_args import MICTrainingArguments

_IDENTIFIERS = frozenset(("id", "idx", "index", "uid", "uuid", "guid", "docid", "qid", "pid"))
"""Names of columns that name a row, in lower case; and whatever ends in _id."""

__all__ = ["GammaWarmup", "MICTrainer", "is_scored"]


class MICTrainer(AtomicCheckpointTrainer):
    """Train a SentenceTransformer with MIC (arXiv 2605.29987).

    Takes what :class:`~sentence_transformers.SentenceTransformerTrainer` takes, with :class:`MICTrainingArguments`. Without a
    ``loss`` it builds :class:`hf_mic.MICLoss` from the arguments: around InfoNCE with in-batch negatives for data sets of
    pairs, triplets or longer tuples of texts, around CoSENT for two texts and a ``label`` or ``score``; for several data sets
    of both sorts, one loss for each. A ``loss`` that is given is used as it is; of the MIC arguments only
    ``gamma_warmup_steps`` acts on it.

    The terms ``matryoshka``, ``scr``, ``sir`` and ``distill`` are logged beside the loss, and for each term of MIC its
    ``TERM_share``: its gradient as a share of the main loss's, where it acts. A share below 1 % warns once. With
    ``gamma="auto"`` the weight is logged as ``gamma``, from where a resumed run takes it. Checkpoints are whole or absent.

    With ``gather_across_devices``, all processes take their batches of a step from the same data set, so that the statistics and
    in-batch negatives of a step are those of one data set: N processes do what one with N times the batch size would, except
    that CoSENT compares scored pairs within each process only.

    Args:
        method: Method whose loss is built when none is given, one of :data:`hf_mic.baselines.METHODS`.
        finish_card: Called with the folder after each writing of the model and its README.md, in the main process, such as
            :func:`hf_mic.cards.card.complete_model_card` with its options bound.
        **kwargs: Arguments of SentenceTransformerTrainer.

    Raises:
        ValueError: If a data set's columns fit neither base loss, an argument does not fit the model, or a given loss gathers
            over several processes and the arguments do not.

    Example:
        ```python
        trainer = MICTrainer(model=SentenceTransformer("all-MiniLM-L6-v2"), train_dataset=pairs)
        trainer.train()
        ```
    """

    training_args_class = MICTrainingArguments
    loss_is_scaled_for_ga = False  # losses are means over a micro-batch: the trainer divides by the number of them
    args: MICTrainingArguments

    def __init__(
        self, *args: Any, method: str = "mic", finish_card: Callable[[Path], None] | None = None, **kwargs: Any
    ) -> None:
        self.method, self.finish_card = method, finish_card
        self._own_loss = False
        for role in ("train_dataset", "eval_dataset"):
            _check_datasets(kwargs.get(role), role)
        if (model := kwargs.get("model", args[0] if args else None)) is not None:
            check_encoder(model, "MICTrainer")
        super().__init__(*args, **kwargs)
        # A loss that gathers waits for all processes: batches of other sizes or data sets would hang or mix statistics.
        gathering = any(loss.gather_across_devices for _, loss in _named_losses(self.loss))
        if gathering and not self.args.gather_across_devices and self.accelerator.num_processes > 1:
            raise ValueError(
                "The loss gathers over all processes, but the arguments do not say so: set gather_across_devices=True in "
                "MICTrainingArguments too, so that the batches of a step are equally large and from one data set."
            )
        self.add_callback(EpochOrder())
        self.shares = TermShares(lambda: {prefix: loss.balance for prefix, loss in _named_losses(self.loss)})
        self.add_callback(self.shares)
        self.add_callback(GammaWarmup(self))

    def call_model_init(self, trial: Any = None) -> Any:
        """Make a new model, as for a trial of a hyper-parameter search, with a loss that has the trial's values."""
        model: Any = super().call_model_init(trial)
        if self._own_loss:
            MICOptions.__post_init__(self.args)  # a trial sets one value after the other, unchecked
            built = self.get_default_loss(model)
            parts = built if isinstance(built, dict) else {"": built}
            prepared: Any = {name: self.prepare_loss(part, model) for name, part in parts.items()}
            self.loss = prepared if isinstance(built, dict) else prepared[""]
        return model

    def get_default_loss(  # type: ignore[override]  # the host takes a dict, its hint does not say so
        self, model: SentenceTransformer
    ) -> nn.Module | dict[str, nn.Module]:
        """Build the loss for the data sets of the trainer: one, or one per data set if their sorts differ.

        Raises:
            ValueError: As :func:`is_scored` and :func:`hf_mic.baselines.method_loss`.
        """
        self._own_loss = True
        parts = [*_named(self.train_dataset, "train_dataset"), *_named(self.eval_dataset, "eval_dataset")]
        labels = self.data_collator.valid_label_columns
        scored = {label: is_scored(data, labels, label) for label, _, data in parts}
        if len(set(scored.values())) <= 1:
            return method_loss(self.method, model, self.args, scored=any(scored.values()))
        sorts: dict[str | None, set[bool]] = {}
        for label, name, _ in parts:
            sorts.setdefault(name, set()).add(scored[label])
        if None in sorts or any(len(values) > 1 for values in sorts.values()):
            raise ValueError(
                f"Some data sets have scores and some have not: {scored}. Pass them as dicts {{name: data set}}, with the "
                "same sort under one name for training and evaluation, or pass a loss."
            )
        return {
            str(name): method_loss(self.method, model, self.args, scored=any(values)) for name, values in sorts.items()
        }

    def get_multi_dataset_batch_sampler(
        self,
        dataset: ConcatDataset,
        batch_samplers: list[BatchSampler],
        generator: Generator | None = None,
        seed: int | None = 0,
    ) -> BatchSampler:
        """Order the batches of several data sets; where processes gather, those of one step come from the same data set."""
        processes = self.accelerator.num_processes if self.args.gather_across_devices else 1
        if processes == 1:
            return super().get_multi_dataset_batch_sampler(dataset, batch_samplers, generator, seed)
        joined: list[BatchSampler] = [JoinedBatches(batches, processes) for batches in batch_samplers]
        return SplitBatches(super().get_multi_dataset_batch_sampler(dataset, joined, generator, seed), processes)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of all losses that a process has used since the last time."""
        kind = "train" if "loss" in logs else "eval" if "eval_loss" in logs else None
        if kind and isinstance(self.loss, dict):
            _share_terms(self.accum_loss_components[kind])
        if kind == "train":
            logs.update(self.shares.logs())
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the README.md of ``output_dir``, then hand it to ``finish_card``."""
        super().create_model_card(*args, **kwargs)
        if self.finish_card and self.is_world_process_zero():
            self.finish_card(Path(str(self.args.output_dir)))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if dims := trained_dims(self.loss):
            mark_matryoshka(unwrap(self.model), dims)
        super()._save(output_dir, state_dict)
        if self.finish_card and self.args.should_save:
            self.finish_card(Path(str(output_dir or self.args.output_dir)))


class GammaWarmup(TrainerCallback):
    """Let gamma of each MICLoss rise linearly from 0 over ``gamma_warmup_steps``, counted from the start of the whole run.

    The weight of a step depends on its number only, so a resumed run continues where it was.

    Args:
        trainer: The trainer whose losses are driven.
    """

    def __init__(self, trainer: MICTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the scale of gamma for the step that begins."""
        warmup = self.trainer.args.gamma_warmup_steps
        # As transformers reads warmup_steps: below 1 it is a share of all steps.
        steps = max(1, math.ceil(warmup * state.max_steps) if warmup < 1 else warmup)
        for _, loss in _named_losses(self.trainer.loss):
            loss.gamma_scale = min(1.0, state.global_step / steps) if warmup else 1.0


def _named_losses(loss: nn.Module | dict[str, nn.Module]) -> Iterator[tuple[str, MICLoss]]:
    """MIC losses, each after what its entries in the log begin with: of several, the name of its data set."""
    if isinstance(loss, dict):
        yield from ((f"{name}_", part) for name, part in loss.items() if isinstance(part, MICLoss))
    elif isinstance(loss, MICLoss):
        yield "", loss


def _share_terms(terms: dict[str, Tensor]) -> None:
    """Give all processes the same sums of terms in the same order: 0 for those of losses that a process has not used yet.

    The host gathers term by term, so processes that know different ones would wait for each other forever. If no process has
    counted a step there are none: the mean would be 0 / 0.
    """
    reports = gather_object([({name: value.dtype for name, value in terms.items()}, int(terms.get("steps", 0)))])
    known = {name: kind for kinds, _ in reports for name, kind in kinds.items()}
    device = PartialState().device
    shared = {name: terms.get(name, torch.zeros((), dtype=known[name], device=device)) for name in sorted(known)}
    terms.clear()
    if any(steps for _, steps in reports):
        terms.update(shared)


def _named(data: Any, role: str) -> list[tuple[str, str | None, Dataset | IterableDataset]]:
    """Label, name within a dict (None outside of one) and rows of each data set that was given."""
    if isinstance(data, Mapping):
        return [(f"{role}[{name!r}]", name, part) for name, part in data.items()]
    return [(role, None, data)] if isinstance(data, (Dataset, IterableDataset)) else []


def _check_datasets(data: Any, role: str) -> None:
    """Refuse what is neither a data set nor a dict of some.

    Raises:
        TypeError: If it is a list, a torch data set or anything else.
    """
    parts = data.values() if isinstance(data, Mapping) else [data]
    for part in parts:
        if part is not None and not isinstance(part, (Dataset, IterableDataset)):
            raise TypeError(
                f"{role} is or holds a {type(part).__name__}: give a datasets.Dataset or IterableDataset, or several as a dict "
                "{name: data set}."
            )


def is_scored(dataset: Dataset | IterableDataset, label_columns: list[str], name: str = "train_dataset") -> bool:
    """Tell scored pairs from pairs, triplets and tuples of texts by the columns, and refuse all else.

    Args:
        dataset: Any columns of text, and at most one of ``label_columns``.
        label_columns: Names under which sentence-transformers looks for labels.
        name: Name of the data set in messages.

    Returns:
        True for two texts and a number, False for two or more texts.

    Raises:
        ValueError: If there are too few or too many columns, labels are not numbers, or there are no rows.

    Example:
        >>> is_scored(Dataset.from_dict({"anchor": ["a"], "positive": ["b"]}), ["label", "score"])
        False
    """
    columns = list(dataset.column_names or ())
    labels = [column for column in columns if column in label_columns]
    texts = [column for column in columns if column not in labels]
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError(f"{name} has no rows.")
    if len(labels) > 1:
        raise ValueError(f"{name} has several label columns {labels}: keep one of them.")
    _check_texts(dataset, texts, name)
    if labels:
        kind = getattr(dataset.features[labels[0]], "dtype", "list")
        if not kind.startswith(("int", "uint", "float", "bool")):
            raise ValueError(f"{name}: column {labels[0]!r} must hold numbers, it holds values of type {kind}.")
        if len(texts) != 2:
            raise ValueError(
                f"{name} has the label column {labels[0]!r} and the text columns {texts}: a score needs exactly two texts. "
                "Select columns, or pass a loss that fits the data."
            )
    elif len(texts) < 2:
        raise ValueError(
            f"{name} has the columns {columns}: a pair needs at least two text columns, such as anchor and positive. Single "
            "texts become pairs with hf_mic.evaluation.simcse_pairs."
        )
    return bool(labels)


def _check_texts(dataset: Dataset | IterableDataset, columns: list[str], name: str) -> None:
    """Refuse columns that would be trained on as texts and hold none: numbers, dicts, and what names a row.

    Raises:
        ValueError: If there is one.
    """
    for column in columns:
        kind = dataset.features.get(column) if dataset.features is not None else None  # a stream may not know
        number = isinstance(kind, Value) and kind.dtype not in ("string", "large_string")
        if number or isinstance(kind, dict):  # pictures and sounds are a matter between data and model
            raise ValueError(
                f"{name}: column {column!r} holds {getattr(kind, 'dtype', 'dicts')}, not texts: remove it with remove_columns, or name a "
                "score 'label' or 'score'."
            )
        if column.lower() in _IDENTIFIERS or column.lower().endswith("_id"):
            raise ValueError(
                f"{name}: column {column!r} would be trained on as a text (the third and later ones as hard negatives): remove it with "
                "remove_columns, or rename it if it does hold texts."
            )
