"""MIC: text embeddings that survive truncation (arXiv 2605.29987)."""

__version__ = "0.1.0"
