"""What funnels of several depths find of the exact neighbours, against the bytes they read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from hf_mic.files import write_atomically
from hf_mic.geometry.linalg import shared

from .funnel import CodedStage, Funnel, VectorStage

__all__ = ["funnels", "plot_recall", "recall", "recall_rows"]


def recall(found: NDArray, exact: NDArray) -> float:
    """Share of the exact neighbours that were found. Shapes: (Q, k) each.

    Example:
        >>> import numpy as np
        >>> recall(np.array([[4, 7], [1, -1]]), np.array([[7, 4], [2, 1]]))
        0.75
    """
    return float(shared(found, exact).mean() / exact.shape[1])


def funnels(
    coded: Sequence[CodedStage], vectors: VectorStage | None, shortlists: Sequence[int]
) -> list[tuple[str, Funnel]]:
    """Codes alone, and with each shortlist the stages after them.

    Args:
        coded: Codes of the same vectors, fewest bytes first; each that follows gets ten times the shortlist of the next stage.
        vectors: The vectors themselves, last; None without them.
        shortlists: Rows that the last stage compares.

    Returns:
        Names such as ``8 bytes → float32 of 100`` and funnels.

    Raises:
        ValueError: If stages hold different numbers of rows.
    """
    name = f"{coded[0].compressor.bytes_per_vector} bytes"
    made = [(name, Funnel(coded[:1]))]
    later = [(f"{stage.compressor.bytes_per_vector} bytes", stage) for stage in coded[1:]]
    last = [] if vectors is None else [(str(vectors.vectors.dtype), vectors)]
    for depth in dict.fromkeys((len(last), len(later) + len(last))):  # straight to the last stage, and through all
        stages: list[tuple[str, Any]] = [*later, *last][len(later) + len(last) - depth :]
        for size in shortlists if stages else ():
            sizes = [min(len(coded[0]), size * 10 ** (depth - 1 - i)) for i in range(depth)]
            steps = [f"{label} of {count:,}" for (label, _), count in zip(stages, sizes, strict=True)]
            made.append((" → ".join([name, *steps]), Funnel([coded[0], *(stage for _, stage in stages)], sizes)))
    return made


def recall_rows(
    candidates: Sequence[tuple[str, Funnel]], queries: NDArray, k: int, exact: NDArray | None
) -> list[dict[str, Any]]:
    """Search with each funnel: its ``name``, ``depth``, ``bytes_read`` per query, and ``recall`` (None without exact rows)."""
    rows = []
    for name, funnel in candidates:
        found = funnel.search(queries, k)
        kept = None if exact is None else recall(found.rows, exact)
        rows.append({"name": name, "depth": len(found.bytes_read), "bytes_read": sum(found.bytes_read), "recall": kept})
    return rows


def plot_recall(rows: Sequence[Mapping[str, Any]], exact_bytes: float, k: int, path: str | os.PathLike[str]) -> None:
    """Draw recall against bytes read for a query, a line for each depth, exact search as a dashed line, as one png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    for depth in sorted({row["depth"] for row in rows}):
        points = sorted((row["bytes_read"], 100 * row["recall"]) for row in rows if row["depth"] == depth)
        label = f"{depth} stage{'s' if depth > 1 else ''}"
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    axis.axvline(exact_bytes, color="0.5", linestyle="--", label="exact search")
    axis.set(xscale="log", xlabel="bytes read for a query", ylabel=f"recall@{k} (%)")
    axis.set_ylim(top=101)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=140))
