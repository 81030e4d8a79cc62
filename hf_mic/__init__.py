"""MIC: text embeddings that survive truncation (arXiv 2605.29987)."""

from hf_mic.losses import MICLoss
from hf_mic.trainer import MICTrainer
from hf_mic.training_args import MICTrainingArguments

__all__ = ["MICLoss", "MICTrainer", "MICTrainingArguments", "__version__"]

__version__ = "0.1.0"
