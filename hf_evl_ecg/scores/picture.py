"""Rows of a results json → a picture: every run with its interval, and where chance is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hf_evl_ecg.files import new_file

from .tables import HEADLINES, MIN_ITEMS

__all__ = ["PlottedLine", "plot_lines", "plot_scores"]


class PlottedLine(NamedTuple):
    """One task and metric in a picture.

    Attributes:
        label: What the axis says of it.
        chance: Score of the best answer that ignores the ECG.
        runs: Rows of each model, none or several of one.
    """

    label: str
    chance: float
    runs: Sequence[Sequence[Mapping[str, Any]]]


def plot_scores(rows: Sequence[Mapping[str, Any]], path: str | Path) -> bool:
    """Draw every run of a study, a colour per method.

    Classes, errors and tasks of fewer than `MIN_ITEMS` questions are left out, and single sources where all real ones are
    scored together.

    Args:
        rows: Rows of a results json.
        path: Where to write the png; replaced as a whole.

    Returns:
        Whether there was anything to draw.
    """
    chosen = [row for row in rows if row["chance"] is not None and "/" not in row["task"].split(":", 1)[-1]]
    chosen = [row for row in chosen if row["metric"] in HEADLINES and row["metric"] != "mean_absolute_error"]
    if any(row["task"].startswith("real:") for row in chosen):
        chosen = [row for row in chosen if row["task"].startswith(("real:", "simulated:"))]
    chosen = [row for row in chosen if row["n"] >= MIN_ITEMS] or chosen
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    lines = []
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in chosen):
        own = [row for row in chosen if (row["task"], row["metric"]) == (task, metric)]
        runs = [[row for row in own if row["method"] == method] for method in methods]
        lines.append(PlottedLine(f"{task}\n{metric}", own[0]["chance"], runs))
    return plot_lines(lines, methods, path)


def plot_lines(lines: Sequence[PlottedLine], names: Sequence[str], path: str | Path) -> bool:
    """Draw runs with their intervals, a colour per model, and where chance is.

    Args:
        lines: From top to bottom.
        names: Names of the models in the legend.
        path: Where to write the png; replaced as a whole.

    Returns:
        Whether there was anything to draw.
    """
    if not lines:
        return False
    thin = max(len(runs) for line in lines for runs in line.runs) ** 0.5  # several runs of a model share its height
    figure = Figure(figsize=(8, 1.2 + len(lines) * (0.24 + 0.13 * len(names))), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(names):
        color = f"C{number}"
        for position, line in enumerate(lines):
            runs = line.runs[number]
            for index, row in enumerate(runs):
                y = position + 0.7 * (number + (index + 0.5) / len(runs)) / len(names) - 0.35
                if row["ci_low"] is not None:
                    axis.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=color, linewidth=1.6 / thin)
                axis.plot(100 * row["value"], y, "o", color=color, markersize=4.5 / thin)
        axis.plot([], [], "o-", color=color, markersize=4.5, label=name)
    for position, line in enumerate(lines):
        axis.plot([100 * line.chance] * 2, [position - 0.42, position + 0.42], color="black", linestyle=":")
    axis.plot([], [], color="black", linestyle=":", label="chance")
    axis.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=8)
    axis.set_ylim(len(lines) - 0.45, -0.55)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("× 100, with 95 % interval")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(names) + 1), frameon=False)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})  # the same bytes in every version
    return True
