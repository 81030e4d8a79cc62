from .score_pictures import plot_scores
from .score_report import write_score_report
from .score_tables import markdown_report, markdown_table
from .sections import fill_section

__all__ = ["fill_section", "markdown_report", "markdown_table", "plot_scores", "write_score_report"]
