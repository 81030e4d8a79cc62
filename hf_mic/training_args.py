"""MICTrainingArguments: every option of a MIC run, for Python, the command line and YAML."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_mic.options import MICOptions

__all__ = ["MICTrainingArguments"]


@dataclass
class MICTrainingArguments(MICOptions, SentenceTransformerTrainingArguments):
    """Training arguments of sentence-transformers plus those of :class:`hf_mic.MICLoss` and its base loss.

    The help of each field says what it does. Settings that depend on the model (prefix lengths below the width, layers that
    exist) are checked when :class:`hf_mic.MICTrainer` builds the loss.

    Raises:
        ValueError: If a value is out of range, or two values contradict each other.

    Source: arXiv 2605.29987.

    Example:
        >>> MICTrainingArguments("out", gamma=0.3, report_to="none").dims_for(48)
        [48, 32, 16]
    """

    def __post_init__(self) -> None:
        MICOptions.__post_init__(self)
        if self.gather_across_devices:
            # Embeddings are gathered into one tensor, so the batches of all processes must be equally large.
            self.dataloader_drop_last = True
        SentenceTransformerTrainingArguments.__post_init__(self)
        config = self.accelerator_config
        if isinstance(config, AcceleratorConfig) and config.dispatch_batches is None:
            config.dispatch_batches = (
                False  # every process reads a stream: columns of other widths cannot be dispatched
            )
