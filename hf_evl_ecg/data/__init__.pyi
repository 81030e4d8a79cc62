from .cinc import load_cinc
from .folder import load_folder
from .instructions import load_instructions
from .labelled import keep_answers
from .load import load_ecg
from .ludb import load_ludb
from .ptbxl import load_ptbxl
from .questions import conversation_dataset, question_dataset
from .rendered import RenderedECG
from .simulated import load_simulated
from .table import LoadReport
from .zscored import load_ptbxl_filtered

__all__ = [
    "LoadReport",
    "RenderedECG",
    "conversation_dataset",
    "keep_answers",
    "load_cinc",
    "load_ecg",
    "load_folder",
    "load_instructions",
    "load_ludb",
    "load_ptbxl",
    "load_ptbxl_filtered",
    "load_simulated",
    "question_dataset",
]
