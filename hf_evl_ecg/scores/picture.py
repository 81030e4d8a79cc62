"""Rows of a results json → a picture: every run with its interval, and where chance is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from hf_evl_ecg.files import new_file

from .lines import ERROR, Row, Run, headline_lines, main_lines
from .names import metric_name

__all__ = ["plot_means", "plot_scores"]


def plot_scores(rows: Sequence[Row], path: str | Path, runs: Mapping[Run, str] | None = None) -> bool:
    """Draw the scores that tables lead with and their intervals, a colour per name, and where chance is.

    Errors are left out, and what `hf_evl_ecg.scores.lines.main_lines` leaves out.

    Args:
        rows: Rows of a results json.
        path: Where to write the png; replaced as a whole.
        runs: (method, seed) of each model → its name in the legend, which several may share; the tasks are those of the first.
            By default all, by the names of their methods.

    Returns:
        Whether there was anything to draw.
    """
    runs = runs or {(row["method"], row["seed"]): row["method"] for row in rows}
    lines, _ = main_lines(headline_lines(rows, list(runs)))
    lines = [line for line in lines if line.chance is not None and line.metric != ERROR]
    if not lines:
        return False
    names = list(dict.fromkeys(runs.values()))
    thin = max(list(runs.values()).count(name) for name in names) ** 0.5  # several runs of a model share its height
    figure = Figure(figsize=(8, 1.2 + len(lines) * (0.24 + 0.13 * len(names))), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(names):
        # matplotlib's own cycle begins anew after ten, and two models would look like one.
        color = f"C{number}" if len(names) <= 10 else colormaps["tab20"](number % 20)
        for position, line in enumerate(lines):
            own = [row for run, row in line.rows.items() if runs[run] == name]
            for index, row in enumerate(own):
                y = position + 0.7 * (number + (index + 0.5) / len(own)) / len(names) - 0.35
                if row["ci_low"] is not None:
                    axis.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=color, linewidth=1.6 / thin)
                axis.plot(100 * row["value"], y, "o", color=color, markersize=4.5 / thin)
        axis.plot([], [], "o-", color=color, markersize=4.5, label=name)
    for position, line in enumerate(lines):
        chance = 100 * (line.chance or 0.0)
        axis.plot([chance, chance], [position - 0.42, position + 0.42], color="black", linestyle=":")
    axis.plot([], [], color="black", linestyle=":", label="chance")
    axis.set_yticks(range(len(lines)), [f"{line.task}\n{line.metric_text}, n = {line.n}" for line in lines], fontsize=8)
    axis.set_ylim(len(lines) - 0.45, -0.55)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("× 100, with 95 % interval")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(names) + 1), frameon=False)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})  # the same bytes in every version
    return True


def plot_means(rows: Sequence[Row], path: str | Path) -> bool:
    """Draw what methods reach on means of tasks, a line per method: of more models than colours can tell apart.

    Args:
        rows: Rows of a results json; those of `hf_evl_ecg.scores.compare.comparison_rows` that are means are drawn.
        path: Where to write the png; replaced as a whole.

    Returns:
        Whether there was anything to draw.
    """
    means = [row for row in rows if row["metric"].startswith("mean_") and row["chance"] is not None]
    tasks = list(dict.fromkeys(row["task"] for row in means))
    if not tasks:
        return False
    methods = list(dict.fromkeys(row["method"] for row in means))
    figure = Figure(figsize=(1.6 + 3.6 * len(tasks), 1.2 + 0.24 * len(methods)), layout="constrained")
    for axis, task in zip(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], tasks, strict=True):
        own = [row for row in means if row["task"] == task]
        for row in own:
            y = methods.index(row["method"])
            axis.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color="C0", linewidth=1.6)
            axis.plot(100 * row["value"], y, "o", color="C0", markersize=4.5)
        axis.axvline(100 * own[0]["chance"], color="black", linestyle=":")
        axis.set_title(f"{task}, {metric_name(own[0]['metric'])}\nn = {own[0]['n']}", fontsize=9)
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.grid(alpha=0.3)
    figure.supxlabel("× 100, with 95 % interval; dotted: chance", fontsize=9)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    return True
