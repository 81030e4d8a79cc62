from .evaluation import encoders, evaluate_model, precomputed, score_embeddings
from .score_tables import fill_section, markdown_report, markdown_table, plot_scores
from .tables import load_training_data, read_columns, read_table, simcse_pairs
from .tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask
from .text_tasks import load_task, load_text_tasks

__all__ = [
    "ClassificationTask",
    "PairClassificationTask",
    "RetrievalTask",
    "STSTask",
    "encoders",
    "evaluate_model",
    "fill_section",
    "load_task",
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
