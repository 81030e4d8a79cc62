"""EVL-ECG: small ECG vision-language models by distillation (arXiv 2605.29977)."""

__version__ = "0.1.0"
