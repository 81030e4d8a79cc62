from .losses import MICLoss
from .trainer import MICTrainer
from .training_args import MICTrainingArguments

__all__ = ["MICLoss", "MICTrainer", "MICTrainingArguments"]

__version__: str
