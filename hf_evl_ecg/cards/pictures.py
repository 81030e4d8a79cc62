"""The picture of reliability in a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_evl_ecg.files import new_file
from hf_evl_ecg.scores.lines import Row
from hf_evl_ecg.scores.names import task_text
from hf_evl_ecg.scores.tables import MIN_ITEMS

__all__ = ["plot_reliability", "pool_reliability"]

MAX_PANELS = 6


def plot_reliability(tables: Mapping[str, Sequence[Row]], path: str | Path) -> bool:
    """Draw accuracy against confidence, a panel per kind of question, a line per model; below: how many answers.

    Sources are pooled; simulated records are left out where there are real ones, as are kinds of question with fewer than
    20 answers, unless all have.

    Args:
        tables: Model's name in the legend → ``{"source", "task", "n", "bins"}`` each, bins as from
            `hf_evl_ecg.qa.calibration.reliability_bins`; the first model's counts are drawn.
        path: Where to write the png; replaced as a whole.

    Returns:
        Whether there was anything to draw.
    """
    pooled = {name: pool_reliability(found) for name, found in tables.items()}
    first = next(iter(pooled.values()), {})
    counts = {task: sum(b["n"] for b in bins) for task, bins in first.items()}
    tasks = [task for task, n in counts.items() if n >= MIN_ITEMS] or list(counts)
    tasks = sorted(tasks, key=lambda task: -counts[task])[:MAX_PANELS]
    if not tasks:
        return False
    columns = 2 if len(tasks) in (2, 4) else min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(max(4.2, 3.2 * columns), 3.8 * lines + 0.3 * (1 + len(tables))), layout="constrained")
    grid = figure.subplots(2 * lines, columns, squeeze=False, height_ratios=[3, 1] * lines)
    for number in range(lines * columns):
        upper, lower = (grid[2 * (number // columns) + part][number % columns] for part in (0, 1))
        if number >= len(tasks):
            upper.remove()
            lower.remove()
            continue
        _draw_panel(upper, lower, {name: found.get(tasks[number]) for name, found in pooled.items()})
        upper.set_title(f"{task_text(tasks[number])}, n = {counts[tasks[number]]}", fontsize=9)
        if number % columns == 0:
            upper.set_ylabel("share that is right")
            lower.set_ylabel("answers")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    return True


def pool_reliability(tables: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Bins by task over all sources; simulated records only where there are no others.

    Args:
        tables: As in `plot_reliability`.
    """
    real = [table for table in tables if table["source"] != "simulated"]
    pooled: dict[str, list[dict[str, Any]]] = {}
    for task in dict.fromkeys(table["task"] for table in real or tables):
        own = [table["bins"] for table in real or tables if table["task"] == task]
        pooled[task] = [_merge(parts) for parts in zip(*own, strict=True)]
    return pooled


def _draw_panel(upper: Axes, lower: Axes, models: Mapping[str, Sequence[Row] | None]) -> None:
    upper.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1, label="perfectly calibrated")
    for number, (name, bins) in enumerate(models.items()):
        filled = [b for b in bins or () if b["n"]]
        points = [b["confidence"] for b in filled], [b["accuracy"] for b in filled]
        upper.plot(*points, "-", color=f"C{number}", linewidth=1.3, alpha=0.7)
        upper.scatter(*points, s=[12 + 3 * b["n"] ** 0.5 for b in filled], color=f"C{number}")
        upper.plot([], [], "o-", color=f"C{number}", markersize=5, label=name)
    bins = next(iter(models.values())) or ()
    lower.bar([b["low"] for b in bins], [b["n"] for b in bins], [b["high"] - b["low"] for b in bins], align="edge",
              color="C0", alpha=0.6)  # fmt: skip
    for axis in (upper, lower):
        axis.set_xlim(-0.02, 1.02)
        axis.grid(alpha=0.3)
    upper.set_ylim(-0.04, 1.04)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("confidence")


def _merge(parts: Sequence[Row]) -> dict[str, Any]:
    n = sum(part["n"] for part in parts)
    mean = {
        key: sum(part[key] * part["n"] for part in parts if part["n"]) / n if n else None
        for key in ("confidence", "accuracy")
    }
    return {"low": parts[0]["low"], "high": parts[0]["high"], "n": n, **mean}
