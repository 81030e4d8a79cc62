from .evaluation import encoders, evaluate_model, precomputed, score_embeddings
from .loading import EncoderLoadError, load_encoder
from .score_pictures import plot_scores
from .score_tables import markdown_report, markdown_table
from .sections import fill_section
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
    "fill_section",
    "load_encoder",
    "load_task",
    "load_tasks",
    "load_text_tasks",
    "load_training_data",
    "markdown_report",
    "markdown_table",
    "plot_scores",
    "precomputed",
    "read_columns",
    "read_table",
    "score_embeddings",
    "simcse_pairs",
]
