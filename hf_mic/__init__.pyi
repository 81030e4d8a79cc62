from .frozen.compressor import Compressor
from .losses import MICLoss
from .trainer import MICTrainer
from .training_args import MICTrainingArguments

__all__ = ["Compressor", "MICLoss", "MICTrainer", "MICTrainingArguments"]

__version__: str
