from .models import score_model
from .picture import plot_scores
from .report import write_report
from .tables import HEADLINES, markdown_table, seed_table

__all__ = ["HEADLINES", "markdown_table", "plot_scores", "score_model", "seed_table", "write_report"]
