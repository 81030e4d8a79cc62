"""Does a map help? Neighbours that its prefixes keep of rows it was not fitted on, beside those that PCA keeps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .soft_codes import soft_codes
from .vectors import unit_rows

__all__ = ["compare_with_pca", "neighbours_kept", "split_held_out"]

HELD_OUT_SHARE = 20  # one row in this many
MOST_HELD_OUT = 512  # a recall of 10 neighbours is then known to about one point
REFERENCE_ROWS = 8192  # rows among which the neighbours are looked for


def split_held_out(count: int, least: int, seed: int) -> tuple[NDArray, NDArray]:
    """Row numbers to fit on and to hold out, both ascending.

    Args:
        count: Rows there are, at least ``least``.
        least: Rows that the fit needs; they are never held out.
        seed: Seed of the draw.

    Returns:
        Rows to fit on, and a twentieth of all rows, at most 512, to measure on (none if the fit needs all).

    Example:
        >>> fit, held_out = split_held_out(100, least=64, seed=0)
        >>> len(fit), len(held_out)
        (95, 5)
    """
    number = max(0, min(MOST_HELD_OUT, count // HELD_OUT_SHARE, count - least))
    # A stream of its own: the batches of a seed do not depend on what is held out.
    chosen = np.sort(np.random.default_rng([seed, 1]).choice(count, number, replace=False))
    rest = np.ones(count, dtype=bool)
    rest[chosen] = False
    return np.flatnonzero(rest), chosen


def neighbours_kept(queries: Tensor, rows: Tensor, nearest: Tensor) -> Tensor:
    """Share of given neighbours that are also among the nearest by the cosines of these vectors.

    Args:
        queries: Vectors of any length. Shape: (Q, d).
        rows: Vectors among which is searched. Shape: (N, d).
        nearest: Row numbers that should be found. Shape: (Q, k).

    Returns:
        Recall at k of each query. Shape: (Q,).

    Example:
        The two nearest by the first coordinate should be rows 0 and 1, by the cosine they are rows 0 and 2:

        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.5]])
        >>> neighbours_kept(torch.tensor([[1.0, 0.1]]), rows, torch.tensor([[0, 1]]))
        tensor([0.5000])
    """
    similarity = nn.functional.normalize(queries, dim=1) @ nn.functional.normalize(rows, dim=1).T
    found = similarity.topk(nearest.size(1), dim=1).indices
    return (found.unsqueeze(2) == nearest.unsqueeze(1)).any(dim=2).float().mean(dim=1)


def compare_with_pca(
    apply: Callable[[Tensor], Tensor],
    axes: Tensor,
    rows: NDArray,
    fit: NDArray,
    held_out: NDArray,
    dims: Sequence[int],
    *,
    bits: int | None = None,
    k: int = 10,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Recall of the full width's nearest rows by the prefixes of a map, by as many principal axes, and by the rows as they are.

    Warns once, with both numbers, if the map is behind by more than a point and twice the standard error of the paired
    difference: less is noise.

    Args:
        apply: The map on unit vectors. Shape: (B, D) to (B, at least max(dims)).
        axes: Principal axes of the vectors, as columns. Shape: (D, D).
        rows: Embeddings. Shape: (N, D).
        fit: Numbers of the rows the map was fitted on, of which a random 8,192 are searched.
        held_out: Numbers of the rows whose neighbours are looked for.
        dims: Prefix lengths.
        bits: Search codes of this many bits instead of floats; queries stay floats.
        k: Neighbours.
        seed: Seed of the sample.

    Returns:
        ``{"dim", "map", "pca", "truncation"}`` for each prefix length, recalls between 0 and 1; empty without held-out rows.
    """
    if not len(held_out):
        return []
    number = min(REFERENCE_ROWS, len(fit))
    used = np.sort(np.random.default_rng([seed, 2]).choice(fit, number, replace=False))
    queries, searched = unit_rows(rows[held_out]), unit_rows(rows[used])
    nearest = (queries @ searched.T).topk(min(k, number), dim=1).indices
    mapped, rotated = [apply(x) for x in (queries, searched)], [x @ axes[:, : max(dims)] for x in (queries, searched)]
    results, behind = [], []
    for dim in dims:
        short = [(q[:, :dim], s[:, :dim]) for q, s in (mapped, rotated, (queries, searched))]
        if bits is not None:
            short = [(q, soft_codes(s, bits, math.inf)) for q, s in short]
        ours, pca, plain = (neighbours_kept(q, s, nearest) for q, s in short)
        results.append(
            {"dim": dim, "map": ours.mean().item(), "pca": pca.mean().item(), "truncation": plain.mean().item()}
        )
        error = (ours - pca).std(correction=0).item() / math.sqrt(len(ours))
        if results[-1]["map"] < results[-1]["pca"] - max(2 * error, 0.01):
            behind.append(f"{100 * results[-1]['map']:.1f} against {100 * results[-1]['pca']:.1f} % at dim {dim}")
    if behind:
        warnings.warn(
            f"The map keeps fewer of the {nearest.size(1)} nearest neighbours of {len(held_out)} held-out rows than PCA: "
            f"{', '.join(behind)}. Use PCA there, fit on more rows, or lower sir_weight and scr_weight.",
            stacklevel=3,
        )
    return results
