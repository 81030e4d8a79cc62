from .study_runs import encode_with, geometry_texts, held_out_texts, score, train, untrained_rows
from .training_run import build_trainer, finish

__all__ = [
    "build_trainer",
    "encode_with",
    "finish",
    "geometry_texts",
    "held_out_texts",
    "score",
    "train",
    "untrained_rows",
]
