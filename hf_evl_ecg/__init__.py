"""EVL-ECG: small ECG vision-language models by distillation (arXiv 2605.29977)."""

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.interpreter import ECGInterpreter, Interpretation
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.records import ECGRecordError, read_record
from hf_evl_ecg.render import RenderConfig, render
from hf_evl_ecg.signals import ECG
from hf_evl_ecg.trainer import EVLECGTrainer

__version__ = "0.1.0"

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
