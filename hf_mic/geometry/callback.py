"""Geometry of the embeddings during training, in the trainer's own log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mic.capture import embedding_width
from hf_mic.options import check_at_least

from .diagnostics import geometry_report

__all__ = ["GeometryCallback"]

logger = logging.getLogger(__name__)


class GeometryCallback(TrainerCallback):
    """Encode a fixed sample of texts with the model being trained and log its geometry at each prefix width.

    Entries are called ``geometry/<measure>@<dim>``, as in ``geometry/eigen_cv@32``, with the measures of
    :func:`hf_mic.geometry.diagnostics.geometry_report`; undefined values are left out. They go through ``trainer.log``, so they
    reach ``log_history`` and every reporting integration. Every process encodes, the first one measures and logs.
    Training is not disturbed: no gradient, no random numbers, and each submodule gets its train or eval mode back.
    Embeddings with NaN or infinity give a warning instead of values.

    Args:
        texts: The sample; some hundred texts, since eigenvalue CV and R² need N well above the dimension.
        dims: Prefix widths, each at most the embedding width.
        trainer: The trainer that the callback is added to.
        at_evaluation: Measure after each evaluation, once per step however many data sets are evaluated.
        every_n_steps: Also measure after every n-th optimiser step.
        measures: Names to log; all by default.
        pairs: Indices of positive pairs in `texts`, shape (M, 2), for the alignment.
        prompt: Prefix of every text, as in ``SentenceTransformer.encode``.
        batch_size: Texts per forward pass.
        k: Neighbours of the k-NN overlap, at most ``len(texts) - 1`` are used.
        max_queries: Queries of the k-NN overlap; see `geometry_report`.
        seed: Seed of the draws in `geometry_report`.

    Raises:
        ValueError: Fewer than two texts, dims that the model does not have, an unknown measure, nothing that triggers.

    Example:
        ```python
        trainer = SentenceTransformerTrainer(model, args, train_dataset=data, loss=loss)
        trainer.add_callback(GeometryCallback(texts, [16, 32, 384], trainer=trainer, every_n_steps=100))
        trainer.train()
        ```
    """

    def __init__(
        self,
        texts: Sequence[str],
        dims: Sequence[int],
        *,
        trainer: Trainer,
        at_evaluation: bool = True,
        every_n_steps: int | None = None,
        measures: Sequence[str] | None = None,
        pairs: np.ndarray | Sequence[tuple[int, int]] | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        k: int = 10,
        max_queries: int = 1_000,
        seed: int = 0,
    ) -> None:
        if isinstance(texts, str) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise ValueError("texts must be a list of at least two strings")
        if not isinstance(trainer.model, SentenceTransformer):
            raise ValueError(f"the trainer must train a SentenceTransformer, got {type(trainer.model).__name__}")
        if every_n_steps is not None:
            check_at_least("every_n_steps", every_n_steps, 1)
        if not at_evaluation and every_n_steps is None:
            raise ValueError("nothing would be measured: set at_evaluation=True or every_n_steps")
        self.texts = list(texts)
        self.dims = list(dims)
        self.trainer = trainer
        self.at_evaluation = at_evaluation
        self.every_n_steps = every_n_steps
        self.prompt = prompt
        self.batch_size = batch_size
        self.settings: dict[str, Any] = {"pairs": pairs, "k": k, "max_queries": max_queries, "seed": seed}
        self.measures = self._check(trainer.model, measures)
        self._measured_step: int | None = None

    def _check(self, model: SentenceTransformer, measures: Sequence[str] | None) -> list[str]:
        """Run the report once on random vectors of the model's width, so that bad settings fail before training."""
        sample = np.random.default_rng(0).normal(size=(len(self.texts), embedding_width(model)))
        names = [
            name for name in geometry_report(sample, self.dims, **self.settings)[0] if name not in ("dim", "n", "knn_k")
        ]
        chosen = names if measures is None else list(measures)
        unknown = sorted(set(chosen) - set(names))
        if unknown or not chosen:
            raise ValueError(f"unknown measures {unknown or 'in an empty list'}; choose from {', '.join(names)}")
        return chosen

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the last measured step: a new run counts from its own start."""
        self._measured_step = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure on every n-th step."""
        if self.every_n_steps is not None and state.global_step % self.every_n_steps == 0:
            self._measure(state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure after an evaluation."""
        if self.at_evaluation:
            self._measure(state, control)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step == self._measured_step:
            return
        self._measured_step = state.global_step
        embeddings = self._encode()
        if not state.is_world_process_zero:
            return
        if not np.isfinite(embeddings).all():
            logger.warning("step %d: embeddings are not finite, geometry not logged", state.global_step)
            return
        logs = {
            f"geometry/{name}@{row['dim']}": row[name]
            for row in geometry_report(embeddings, self.dims, **self.settings)
            for name in self.measures
            if row[name] is not None
        }
        # Logging clears should_log; the trainer still owes this step's loss, and all processes gather for it.
        should_log = control.should_log
        self.trainer.log(logs)
        control.should_log = should_log

    def _encode(self) -> np.ndarray:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        modes = {module: module.training for module in model.modules()}
        try:
            return model.encode(self.texts, prompt=self.prompt, batch_size=self.batch_size, show_progress_bar=False)
        finally:
            for module, training in modes.items():
                module.training = training
