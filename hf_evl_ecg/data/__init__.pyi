from .instructions import load_instructions
from .labelled import keep_answers
from .load import load_ecg
from .questions import conversation_dataset, question_dataset
from .rendered import RenderedECG

__all__ = [
    "RenderedECG",
    "conversation_dataset",
    "keep_answers",
    "load_ecg",
    "load_instructions",
    "question_dataset",
]
