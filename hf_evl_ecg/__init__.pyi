from .config import EVLECGConfig
from .interpreter import ECGInterpreter, Interpretation
from .losses import EVLECGLoss
from .records import ECGRecordError, read_record
from .render import RenderConfig, render
from .signals import ECG
from .trainer import EVLECGTrainer

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
