from .asking import ChainAnswers, answer_chains
from .building import build_chain, build_chains, chains_of_record
from .chains import Chain, Step, question_text
from .criteria import DIAGNOSES
from .released import load_released
from .runner import TASKS, run_reasoning, write_reasoning
from .scoring import grade_chain, reasoning_table, score_chains
from .truth import ECGTruth, ludb_truth, simulated_truth

__all__ = [
    "DIAGNOSES",
    "TASKS",
    "Chain",
    "ChainAnswers",
    "ECGTruth",
    "Step",
    "answer_chains",
    "build_chain",
    "build_chains",
    "chains_of_record",
    "grade_chain",
    "load_released",
    "ludb_truth",
    "question_text",
    "reasoning_table",
    "run_reasoning",
    "score_chains",
    "simulated_truth",
    "write_reasoning",
]
