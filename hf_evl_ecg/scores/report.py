"""The results of a study on disk: json, and a table and a picture made from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_text
from hf_evl_ecg.results import write_results

from .picture import plot_means, plot_scores
from .tables import GAIN, gain_table, markdown_table, seed_table

__all__ = ["write_report"]

SHOWN_APART = 10  # methods that colours tell apart


def write_report(
    output: Path, study: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> str:
    """Write STUDY.json, STUDY.md and STUDY.png.

    Returns:
        The markdown.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_results(output / f"{study}.json", study, config, rows)
    scored = [row for row in rows if GAIN not in row["metric"]]
    text = markdown_table(scored, notes)
    if len({row["seed"] for row in scored}) > 1:
        text = f"{seed_table(scored)}\nEach run, with its interval over the records:\n\n{text}"
    if len(scored) < len(rows):
        text = f"{text}\nOne method against another, record by record:\n\n{gain_table(rows)}"
    write_text(output / f"{study}.md", text)
    many = len({row["method"] for row in scored}) > SHOWN_APART
    if not (many and plot_means(scored, output / f"{study}.png")):
        plot_scores(scored, output / f"{study}.png")
    return text
