"""Reports on disk: the geometry of an embedding matrix as json, markdown table and picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_mic.files import plain, write_text

from .diagnostics import geometry_report
from .linalg import Matrix, as_matrix, centre, draw, eigenvalues, factorise, take
from .pictures import plot_spectra

__all__ = ["geometry_table", "write_geometry_report"]


def geometry_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of :func:`hf_mic.geometry.diagnostics.geometry_report` rows, with the measures that have a value.

    Example:
        >>> print(geometry_table([{"dim": 2, "n": 8, "knn_k": 7, "eigen_cv": 0.125, "alignment": None}]))
        | dim | eigen_cv |
        |---:|---:|
        | 2 | 0.125 |
    """
    settings = ("dim", "n", "knn_k")
    names = [name for name in rows[0] if name not in settings and any(row[name] is not None for row in rows)]
    lines = [f"| {' | '.join(['dim', *names])} |", f"|{'---:|' * (len(names) + 1)}"]
    for row in rows:
        cells = ["–" if row[name] is None else f"{row[name]:.4g}" for name in names]
        lines.append(f"| {' | '.join([str(row['dim']), *cells])} |")
    return "\n".join(lines)


def write_geometry_report(
    embeddings: Matrix,
    dims: Sequence[int],
    output_dir: str | os.PathLike[str],
    pairs: np.ndarray | Sequence[tuple[int, int]] | None = None,
    *,
    name: str = "geometry",
    title: str | None = None,
    k: int = 10,
    max_rows: int = 20_000,
    max_queries: int = 1_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure embeddings with :func:`hf_mic.geometry.diagnostics.geometry_report` and write ``name.json``, ``.md``, ``.png``.

    The json holds ``rows``, ``spectra`` (width → eigenvalues) and the settings. Each file is replaced in one step. A
    constant matrix has no spectrum to draw and gets no picture.

    Args:
        embeddings: Shape: (N, D), N ≥ 2.
        dims: Prefix widths, each 1 ≤ d ≤ D.
        output_dir: Folder, made if missing.
        pairs: Row indices of positive pairs, shape (M, 2).
        name: Stem of the three files.
        title: Heading of the picture.
        k: Neighbours per query of the k-NN overlap.
        max_rows: Larger matrices are sampled down to that many rows.
        max_queries: Queries of the k-NN overlap.
        seed: Seed of every draw.

    Returns:
        The rows of the report.

    Raises:
        ValueError: As `geometry_report`.
    """
    settings = plain({"k": k, "max_rows": max_rows, "max_queries": max_queries, "seed": seed})
    rows = geometry_report(embeddings, dims, pairs, k=k, max_rows=max_rows, max_queries=max_queries, seed=seed)
    x = as_matrix(take(embeddings, draw(len(embeddings), max_rows, seed)))
    factor = factorise(centre(x))
    spectra = {row["dim"]: eigenvalues(factor[:, : row["dim"]], len(x)) for row in rows}
    folder = Path(output_dir)
    report = {
        "total_rows": len(embeddings),
        "width": x.shape[1],
        "settings": settings,
        "rows": rows,
        "spectra": {str(d): values.tolist() for d, values in spectra.items()},
    }
    text = json.dumps(report, indent=2, allow_nan=False)
    write_text(folder / f"{name}.json", f"{text}\n")
    write_text(folder / f"{name}.md", f"{geometry_table(rows)}\n")
    if any(values.any() for values in spectra.values()):
        plot_spectra(spectra, folder / f"{name}.png", title=title)
    return rows
