"""The results of a study on disk: json, and a table and a picture made from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_text
from hf_evl_ecg.results import write_results

from .picture import plot_scores
from .tables import markdown_table, seed_table

__all__ = ["write_report"]


def write_report(
    output: Path, study: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> str:
    """Write STUDY.json, STUDY.md and STUDY.png.

    Returns:
        The markdown.
    """
    output.mkdir(parents=True, exist_ok=True)
    results = write_results(output / f"{study}.json", study, config, rows)
    text = markdown_table(results["rows"], notes)
    if len({row["seed"] for row in rows}) > 1:
        text = f"{seed_table(results['rows'])}\nEach run, with its interval over the records:\n\n{text}"
    write_text(output / f"{study}.md", text)
    plot_scores(results["rows"], output / f"{study}.png")
    return text
