"""The files of a study: results json, its tables as markdown and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mic.files import write_text
from hf_mic.results import Rows, write_results

from .score_pictures import plot_scores
from .score_tables import HEADLINE_METRICS, markdown_report

__all__ = ["write_score_report"]


def write_score_report(
    rows: Rows,
    folder: str | Path,
    study: str,
    config: Mapping[str, Any],
    *,
    drawn: Rows | None = None,
    metrics: Sequence[str] = HEADLINE_METRICS,
    title: str | None = None,
) -> dict[str, Any]:
    """Write ``STUDY.json``, ``STUDY.md`` and ``STUDY.png``, each whole or not at all.

    Args:
        rows: Rows of :func:`hf_mic.evaluation.evaluation.score_embeddings`, possibly of many calls; the first one's precision is drawn.
        folder: Where the files go, made if missing.
        study: Name of the study and of the files.
        config: Settings that produced the rows.
        drawn: Rows of the picture. Default: all.
        metrics: Metrics of the picture.
        title: Title of the picture.

    Returns:
        The results as written to the json file.

    Raises:
        ValueError: As :func:`hf_mic.results.write_results`, or if there is nothing to draw.
    """
    stem = Path(folder) / study
    results = write_results(f"{stem}.json", study, config, rows)
    write_text(f"{stem}.md", f"{markdown_report(results)}\n")
    precision = rows[0].get("precision", "float32")
    plot_scores(rows if drawn is None else drawn, f"{stem}.png", metrics=metrics, precision=precision, title=title)
    return results
