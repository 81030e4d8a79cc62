"""A picture of the spectra of an embedding and its prefixes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from hf_mic.files import write_atomically

__all__ = ["plot_spectra"]


def plot_spectra(spectra: Mapping[int, np.ndarray], path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Draw the covariance spectrum of each prefix and the number of dimensions it fills, as one png.

    Left: eigenvalues of a prefix divided by their mean against their rank; an isotropic prefix is a flat line at 1.
    Right: participation ratio against prefix width; an isotropic prefix lies on the diagonal.

    Args:
        spectra: Prefix width d → eigenvalues, largest first, shape (d,). Prefixes without variance are left out.
        path: Where the png goes, replaced in one step.
        title: Heading of the picture.

    Raises:
        ValueError: No spectrum has variance.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # no pyplot: neither a display nor global state

    drawn = {d: np.asarray(spectra[d], dtype=np.float64) for d in sorted(spectra) if np.any(spectra[d])}
    if not drawn:
        raise ValueError("nothing to draw: every spectrum is zero, so the embeddings are constant")
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    shades = colormaps["viridis"](np.linspace(0, 0.88, len(drawn)))
    for shade, (d, values) in zip(shades, drawn.items(), strict=True):
        relative = values / values.mean()
        keep = relative > 1e-8  # below lies rounding, which a logarithmic axis would stretch
        ranks = np.flatnonzero(keep) + 1
        left.plot(ranks, relative[keep], color=shade, marker="o", markersize=2.5, label=f"d = {d}")
    left.axhline(1.0, color="0.4", linestyle="--", linewidth=1, label="isotropic")
    left.set(xscale="log", yscale="log", xlabel="rank of the eigenvalue", ylabel="eigenvalue / mean eigenvalue")
    left.legend(fontsize=8, frameon=False)
    dims = list(drawn)
    used = [values.sum() ** 2 / (values**2).sum() for values in drawn.values()]
    right.plot(dims, dims, color="0.4", linestyle="--", linewidth=1, label="isotropic")
    right.plot(dims, used, color=shades[0], marker="o", markersize=4, label="participation ratio")
    right.set_xscale("log", base=2)
    right.set_yscale("log", base=2)
    right.set_xticks(dims, labels=[str(d) for d in dims])
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set(xlabel="prefix width d", ylabel="dimensions filled")
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.5)
    if title:
        figure.suptitle(title)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=140))
