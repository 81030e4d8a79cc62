from .evaluation import encoders, evaluate_model, precomputed, score_embeddings
from .loading import EncoderLoadError, load_encoder
from .tables import read_columns, read_table
from .tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask
from .text_tasks import load_task, load_tasks, load_text_tasks
from .training_data import load_training_data, simcse_pairs

__all__ = [
    "ClassificationTask",
    "EncoderLoadError",
    "PairClassificationTask",
    "RetrievalTask",
    "STSTask",
    "encoders",
    "evaluate_model",
    "load_encoder",
    "load_task",
    "load_tasks",
    "load_text_tasks",
    "load_training_data",
    "precomputed",
    "read_columns",
    "read_table",
    "score_embeddings",
    "simcse_pairs",
]
