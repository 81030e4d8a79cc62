"""Pictures of an inspection: neighbours kept by dimension and by bytes, geometry by dimension."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_mic.files import write_atomically

from .inspection import Inspection

__all__ = ["plot_geometry", "plot_neighbours"]

PRECISION_COLOURS = {"float32": "C0", "int8": "C1", "binary": "C2"}


def plot_neighbours(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Draw the share of full-width neighbours that are kept, by dimension and by bytes per vector, as one png.

    Args:
        inspection: What was measured.
        path: Where the png goes, replaced in one step.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = inspection.neighbours
    dims = [row["dim"] for row in rows]
    for key, label, style in (
        ("first", "first d coordinates", {"color": "C0", "linewidth": 2}),
        ("random", "d coordinates drawn at random", {"color": "0.5", "linestyle": "--"}),
        ("principal_axes", "first d principal axes of what is measured", {"color": "C3", "linestyle": ":"}),
    ):
        left.plot(dims, [100 * row[key] for row in rows], marker="o", markersize=3.5, label=label, **style)
    if inspection.mapped:
        after = inspection.mapped["neighbours"]
        left.plot(
            [row["dim"] for row in after],
            [100 * row["first"] for row in after],
            "C4o-",
            markersize=3.5,
            label="first d after the map",
        )
    _dimension_axis(left, dims)
    k, count = inspection.settings["k"], inspection.texts["measured"]
    left.set_ylabel(f"kept of the {k} nearest at full width (%)")
    right.set(xscale="log", xlabel="bytes per vector")
    ways = {"": (inspection.storage, "-")}
    if inspection.mapped:
        ways[" after the map"] = (inspection.mapped["storage"], ":")
    for precision in inspection.settings["precisions"]:
        for when, (storage, line) in ways.items():
            points = sorted((row["bytes_per_vector"], row["kept"]) for row in storage if row["precision"] == precision)
            sizes, kept = zip(*points, strict=True)
            label, colour = precision + when, PRECISION_COLOURS[precision]
            right.plot(sizes, [100 * v for v in kept], line, color=colour, marker="o", markersize=3.5, label=label)
    if code := inspection.mapped.get("code"):
        right.plot(
            code["bytes_per_vector"], 100 * code["kept"], "k*", markersize=11, label=f"code, {code['bits']} bits"
        )
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis in (left, right):
        axis.axhline(100 * k / (count - 1), color="0.75", linewidth=1, label="chance")
        axis.set_ylim(0, 103)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    _save(figure, path)


def plot_geometry(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Draw six measures of geometry by dimension, each with its value for independent isotropic Gaussian vectors.

    Args:
        inspection: What was measured.
        path: Where the png goes, replaced in one step.
    """
    count = inspection.texts["measured"]
    floors: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
        "residual_r2_adjusted": ("residual R² from the prefix (adjusted)", lambda d: 0 * d),
        "cross_correlation": ("mean squared prefix/residual correlation", lambda d: 0 * d + 1 / (count - 1)),
        "eigen_cv": ("eigenvalue CV", lambda d: np.sqrt(d / count)),
        "effective_rank": ("effective rank", lambda d: d),
        "mean_cosine": ("mean cosine", lambda d: 0 * d),
        "uniformity": ("uniformity (t = 2)", lambda d: np.where(d < 8, np.nan, -4 + 8 / d)),
    }
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    for axis, (key, (title, floor)) in zip(figure.subplots(2, 3).flat, floors.items(), strict=True):
        rows = [row for row in inspection.geometry if row[key] is not None]
        dims = np.array([row["dim"] for row in rows], dtype=float)
        axis.plot(dims, floor(dims), color="0.5", linestyle="--", linewidth=1)
        axis.plot(dims, [row[key] for row in rows], color="C0", marker="o", markersize=3.5)
        if inspection.mapped:
            after = [(row["dim"], row[key]) for row in inspection.mapped["geometry"] if row[key] is not None]
            axis.plot(*np.array(after, dtype=float).reshape(-1, 2).T, color="C4", marker="o", markersize=3.5)
        axis.set_title(title, fontsize=10)
        _dimension_axis(axis, [row["dim"] for row in inspection.geometry])
        if key == "effective_rank":
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.grid(alpha=0.3)
    names = ["isotropic", inspection.model["name"], *(["after the map"] if inspection.mapped else [])]
    figure.legend(figure.axes[0].lines, names, loc="outside lower center", ncols=3)
    _save(figure, path)


def _dimension_axis(axis: Axes, dims: list[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(dims, [str(dim) for dim in dims])
    axis.minorticks_off()
    axis.set_xlabel("dimension d")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=140))
