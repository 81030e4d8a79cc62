"""Pictures made from the rows of a results json."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hf_mic.files import write_atomically
from hf_mic.results import Rows

from .score_tables import HEADLINE_METRICS, over_seeds, select_rows

__all__ = ["plot_scores"]


def plot_scores(
    rows: Rows,
    path: str | Path,
    *,
    metrics: Sequence[str] = HEADLINE_METRICS,
    precision: str = "float32",
    title: str | None = None,
) -> None:
    """Draw score against dimension, one panel per (task, metric) and one line per method.

    The dimension axis is logarithmic (base 2). A band of one standard deviation surrounds a method with several seeds.

    Args:
        rows: Rows of the study.
        path: Where to write the png; replaced as a whole.
        metrics: Which metrics to draw.
        precision: Which precision to draw.
        title: Title of the picture.

    Raises:
        ValueError: If no row has one of the metrics at that precision.
    """
    drawn = [row for row in rows if row["metric"] in metrics and row.get("precision", "float32") == precision]
    panels = list(dict.fromkeys((row["task"], row["metric"]) for row in drawn))
    if not panels:
        raise ValueError(f"No row has one of the metrics {list(metrics)} at precision {precision!r}.")
    methods = list(dict.fromkeys(row["method"] for row in drawn))
    figure = Figure(figsize=(4.6 * len(panels), 4.0 + 0.2 * len(methods)), layout="constrained")
    for axis, (task, metric) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        scores = over_seeds(select_rows(drawn, task=task, metric=metric), lambda row: (row["method"], row["dim"]))
        for number, method in enumerate(methods):
            points = sorted((dim, *value) for (name, dim), value in scores.items() if name == method)
            if not points:
                continue
            dims, means, spreads = zip(*points, strict=True)
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
            axis.plot(dims, means, marker="o", markersize=3.5, label=method, **style)
            low, high = ([m + sign * (s or 0) for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            if any(spreads):
                axis.fill_between(dims, low, high, color=style["color"], alpha=0.2, linewidth=0)
        ticks = sorted({dim for _, dim in scores})
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(dim) for dim in ticks])
        axis.minorticks_off()
        axis.set(title=task, xlabel="dimension", ylabel=f"{metric} × 100")
        axis.grid(alpha=0.3)
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
