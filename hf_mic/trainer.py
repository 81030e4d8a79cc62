"""MICTrainer: a MIC run needs a model and a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from sentence_transformers import SentenceTransformer
from torch import Generator, Tensor, nn
from torch.utils.data import BatchSampler, ConcatDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mic.balance import TermShares
from hf_mic.baselines import method_loss
from hf_mic.batching import EpochOrder, JoinedBatches, SplitBatches, check_datasets, is_scored
from hf_mic.capture import check_encoder, unwrap
from hf_mic.checkpoints import AtomicCheckpointTrainer
from hf_mic.layers import mark_matryoshka, trained_dims
from hf_mic.losses import MICLoss
from hf_mic.options import MICOptions
from hf_mic.training_args import MICTrainingArguments

__all__ = ["GammaWarmup", "MICTrainer", "NonFiniteLossError"]


class NonFiniteLossError(RuntimeError):
    """The loss of a batch is NaN or infinite, which one step would spread to every weight."""


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
        NonFiniteLossError: While training or evaluating, at the first loss that is NaN or infinite, before it reaches a weight.

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
            check_datasets(kwargs.get(role), role)
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
            ValueError: As :func:`hf_mic.batching.is_scored` and :func:`hf_mic.baselines.method_loss`.
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

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of a micro-batch; labels and loss must be numbers. Asking waits for the device, as the host does at each loss."""
        source = f", data set {inputs['dataset_name']!r}" if "dataset_name" in inputs else ""
        where = f"step {self.state.global_step + 1}{source}"
        labels = next((inputs[name] for name in self.data_collator.valid_label_columns if name in inputs), None)
        if labels is not None and not bool(torch.isfinite(labels).all()):  # CoSENT would pass over them without a word
            rows = (~torch.isfinite(labels)).nonzero().flatten().tolist()
            raise NonFiniteLossError(
                f"{where}: labels of rows {rows} of the batch are NaN or infinite (drop or mend these rows)."
            )
        found = super().compute_loss(model, inputs, *args, **kwargs)
        if not bool((found[0] if isinstance(found, tuple) else found).isfinite()):
            raise NonFiniteLossError(f"{where}: the loss is not finite{self._culprit(inputs)}")
        return found

    def _culprit(self, inputs: dict[str, Any]) -> str:
        """Whether a loss is no number because of embeddings, and what to do."""
        features, _ = self.collect_features(inputs)
        with torch.no_grad():
            finite = [unwrap(self.model)(dict(part))["sentence_embedding"].isfinite().all(-1) for part in features]
        rows = sorted({row for column in finite for row in (~column).nonzero().flatten().tolist()})
        lower = "resume from a checkpoint with a lower learning_rate, or with bf16 instead of fp16"
        if rows:
            return f": embeddings of rows {rows} of the batch hold NaN or infinity, so the model has diverged or overflows ({lower})."
        return f", although all embeddings are: a term overflows (lower gamma or distill_weight, or {lower})."

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
