"""MIC: text embeddings that survive truncation (arXiv 2605.29987)."""

from hf_mic.losses import MICLoss

__all__ = ["MICLoss", "__version__"]

__version__ = "0.1.0"
