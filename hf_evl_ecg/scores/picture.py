"""Rows of a results json → a picture: every run with its interval, and where chance is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hf_evl_ecg.files import new_file

from .tables import HEADLINES

__all__ = ["plot_scores"]

FEWEST_PLOTTED = 20
"""Tasks of fewer questions are left out of the picture."""


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw every run with its interval, a colour per method, and where chance is.

    Classes, errors and tasks of fewer than `FEWEST_PLOTTED` questions are left out, and single sources where all real ones
    are scored together.
    """
    chosen = [row for row in rows if row["chance"] is not None and "/" not in row["task"].split(":", 1)[-1]]
    chosen = [row for row in chosen if row["metric"] in HEADLINES and row["metric"] != "mean_absolute_error"]
    if any(row["task"].startswith("real:") for row in chosen):
        chosen = [row for row in chosen if row["task"].startswith(("real:", "simulated:"))]
    chosen = [row for row in chosen if row["n"] >= FEWEST_PLOTTED] or chosen
    lines = list(dict.fromkeys((row["task"], row["metric"]) for row in chosen))
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    if not lines:
        return
    figure = Figure(figsize=(8.5, 1.3 + len(lines) * (0.22 + 0.17 * len(methods))), layout="constrained")
    axis = figure.subplots()
    for number, method in enumerate(methods):
        for position, line in enumerate(lines):
            runs = [row for row in chosen if (row["method"], row["task"], row["metric"]) == (method, *line)]
            for index, row in enumerate(runs):
                y = position + (number + (index + 0.5) / len(runs)) * 0.7 / len(methods) - 0.35
                low, high = (row[key] if row[key] is not None else row["value"] for key in ("ci_low", "ci_high"))
                axis.plot([100 * low, 100 * high], [y, y], color=f"C{number}", linewidth=1.2, alpha=0.6)
                axis.plot(100 * row["value"], y, "o", color=f"C{number}", markersize=3)
        axis.plot([], [], "o-", color=f"C{number}", markersize=4, label=method)
    for position, line in enumerate(lines):
        chance = next(row["chance"] for row in chosen if (row["task"], row["metric"]) == line)
        axis.plot([100 * chance] * 2, [position - 0.4, position + 0.4], color="black", linestyle=":", linewidth=1.2)
    axis.plot([], [], color="black", linestyle=":", label="chance")
    axis.set_yticks(range(len(lines)), [f"{task}\n{metric}" for task, metric in lines], fontsize=7)
    axis.set_ylim(len(lines) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("× 100, with 95 % interval; a line per run")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(methods) + 1)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
