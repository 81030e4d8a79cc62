from .config import EVLECGConfig
from .distillation.trainer import EVLECGTrainer
from .drawing.config import RenderConfig
from .drawing.rendering import render
from .interpret.interpreter import ECGInterpreter, Interpretation
from .losses import EVLECGLoss
from .records.header import ECGRecordError
from .records.reader import read_record
from .signals.ecg import ECG

__all__ = [
    "ECG",
    "ECGInterpreter",
    "ECGRecordError",
    "EVLECGConfig",
    "EVLECGLoss",
    "EVLECGTrainer",
    "Interpretation",
    "RenderConfig",
    "read_record",
    "render",
]

__version__: str
