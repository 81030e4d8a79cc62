"""Embeddings that are computed already: checked, scaled to unit length, and their principal axes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_mic.codes.inputs import Vectors, as_matrix
from hf_mic.statistics import check_prefixes

__all__ = [
    "check_directions",
    "checked_vectors",
    "describe_direction",
    "distinct_unit_rows",
    "principal_axes",
    "unit_rows",
]

SCAN_ROWS = 16384  # rows held at once, so that an index on disk need not fit into memory
COVARIANCE_ROWS = 100_000  # rows sampled to estimate the axes
DIRECTION_ROWS = 4096  # rows sampled to see whether they point different ways
HASHED_ROWS = 2048  # rows whose numbers are held as 64 bits at once
SHORTEST, LONGEST = 1e-15, 1e15  # lengths whose squares, and those of their parts, float32 holds
NARROW, ROUNDING = (
    1e-3,
    1e-6,
)  # squared length outside of one direction: neighbours that are hard to tell apart, that are noise
COPIES = 0.1  # share of copies that is worth a word


def unit_rows(rows: NDArray, first: int = 0) -> Tensor:
    """Embedding rows as float32 unit vectors.

    Args:
        rows: Embeddings. Shape: (B, D).
        first: Number of the first row within the whole array, for messages.

    Raises:
        ValueError: If a row is zero or not finite.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    with np.errstate(over="ignore"):  # seen to below
        vectors = torch.from_numpy(np.array(rows, dtype=np.float32, order="C"))
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    extreme = torch.nonzero(~((norms >= SHORTEST) & (norms <= LONGEST)).squeeze(1)).flatten()
    if not extreme.numel():
        return vectors / norms
    # Each by its largest number first: a length has a square in float32 only between 1e-19 and 1e19, a direction always.
    exact = np.asarray(rows)[extreme.numpy()].astype(np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        what = "is zero" if largest[bad[0], 0] == 0 else "holds NaN or infinity"
        raise ValueError(
            f"Embedding row {first + int(extreme[bad[0]])} {what} ({bad.size} such rows among {len(rows)}): a direction is needed. "
            "Drop these rows, or embed their texts again."
        )
    exact /= largest
    unit = vectors / norms
    unit[extreme] = torch.from_numpy(exact / np.linalg.norm(exact, axis=1, keepdims=True)).float()
    return unit


def distinct_unit_rows(rows: NDArray, most: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors of rows drawn at random, in their order, without exact copies.

    Args:
        rows: Embeddings. Shape: (N, D).
        most: How many are drawn; of fewer, all are used.
        seed: Seed of the draw.

    Returns:
        Shape: (at most ``most``, D).

    Raises:
        ValueError: If a drawn row is zero or not finite.

    Example:
        >>> distinct_unit_rows(np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 2.0]]), most=3)
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    if len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False, shuffle=False))]
    unit = unit_rows(rows).numpy()
    _, first = np.unique(unit.view(f"V{unit.itemsize * unit.shape[1]}").ravel(), return_index=True)
    _warn_of_copies(len(unit) - len(first), len(unit))
    return unit[np.sort(first)]


def describe_direction(unit: NDArray) -> tuple[float, str]:
    """How far unit vectors point different ways, and if they hardly do, what of the vectors makes them point one way.

    Args:
        unit: Unit vectors, of which a few thousand tell. Shape: (N, D).

    Returns:
        The mean squared length outside of the direction that most of it lies along, and a sentence on what that direction is.

    Example:
        >>> outside, sentence = describe_direction(np.array([[1.0, 0.001], [1.0, -0.001]]))
        >>> f"{outside:.0e}", sentence
        ('1e-06', 'Coordinate 0 is far larger than all others: leave it out, ...')
    """
    rows = unit[:: -(-len(unit) // DIRECTION_ROWS)].astype(np.float64)
    direction = rows[0]
    for _ in range(10):  # power iteration; where it matters, the second direction is a thousandth of the first
        direction = rows.T @ (rows @ direction)
        direction /= np.linalg.norm(direction)
    along = rows @ direction
    outside = float(np.square(rows - np.outer(along, direction)).sum(axis=1).mean())
    coordinate = int(np.abs(direction).argmax())
    if direction[coordinate] ** 2 > 0.99:
        sentence = (
            f"Coordinate {coordinate} is far larger than all others: leave it out, or divide each coordinate by its standard deviation, "
            "of queries too."
        )
    elif abs(along.mean()) > 0.9:
        sentence = (
            "One offset is in all of them and is far larger than what differs: subtract their mean, vectors - vectors.mean(axis=0), "
            "from queries too."
        )
    else:
        sentence = "They lie on one line, and have a single number each to tell them apart."
    return outside, sentence


def check_directions(unit: NDArray) -> None:
    """Refuse unit vectors that differ by rounding alone, and warn of those that hardly differ.

    Raises:
        ValueError: If all but a millionth of their squared length lies along one direction.
    """
    outside, sentence = describe_direction(unit)
    if outside < ROUNDING:
        raise ValueError(
            f"The vectors lie along one direction but for rounding ({outside:.1g} of their squared length). {sentence}"
        )
    if outside < NARROW:
        warnings.warn(
            f"The vectors hardly point different ways ({outside:.1g} of their squared length lies outside of one direction), so rounding "
            f"decides over neighbours. {sentence}",
            stacklevel=3,
        )


def _warn_of_copies(copies: int, count: int) -> None:
    if copies > COPIES * count:
        warnings.warn(
            f"{copies:,} of {count:,} vectors are exact copies of others and were left out: a copy is its own nearest neighbour, and "
            "teaches nothing.",
            stacklevel=4,
        )


def checked_vectors(embeddings: Vectors, dims: Sequence[int], batch_size: int) -> tuple[NDArray, NDArray[np.int64]]:
    """The embeddings as a numpy array, after a look at every row, and the numbers of those that are no copies of earlier ones.

    Args:
        embeddings: A numpy array, a memory map, a tensor or a list of rows. Shape: (N, D).
        dims: Prefix lengths, which must lie below D.
        batch_size: Rows that are needed at least.

    Raises:
        ValueError: If they are no floating-point matrix of that size, a row is zero or not finite, or fewer rows than a batch
            differ, or all but by rounding.
    """
    embeddings = as_matrix(embeddings)
    count, width = embeddings.shape
    check_prefixes(dims, width, allow_full=False)
    if count < batch_size:
        raise ValueError(
            f"A batch of {batch_size} needs at least as many embeddings, got {count}: lower batch_size, or give "
            "more vectors (ten times the width is a fair least)."
        )
    # A number of 64 bits in place of each row: of 10 million rows, less than one in a hundred runs takes two for the same.
    factors = 1 + 2 * np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64)
    hashes = np.empty(count, dtype=np.uint64)
    for start in range(0, count, SCAN_ROWS):
        bits = unit_rows(embeddings[start : start + SCAN_ROWS], start).numpy().view(np.uint32)
        for part in range(0, len(bits), HASHED_ROWS):
            chunk = bits[part : part + HASHED_ROWS]
            hashes[start + part : start + part + len(chunk)] = chunk.astype(np.uint64) @ factors
    distinct = np.sort(np.unique(hashes, return_index=True)[1])
    if len(distinct) < batch_size:
        raise ValueError(
            f"Only {len(distinct):,} of {count:,} vectors differ, and a batch of {batch_size} needs at least as many: copies teach "
            "nothing. Lower batch_size, or give more vectors."
        )
    _warn_of_copies(count - len(distinct), count)
    check_directions(unit_rows(embeddings[distinct[:: -(-len(distinct) // DIRECTION_ROWS)]]).numpy())
    return embeddings, distinct


def principal_axes(rows: Vectors, seed: int = 0, *, among: NDArray | None = None) -> Tensor:
    """Principal axes of the unit vectors as an orthogonal matrix, most variance first, largest entry positive.

    Args:
        rows: Embeddings; of more than 100,000 rows a random sample of that size is used. Shape: (N, D).
        seed: Seed of the sample.
        among: Numbers of the rows to use, ascending; default all.

    Returns:
        The eigenvectors of the covariance matrix, as columns. Shape: (D, D).

    Example:
        >>> principal_axes(np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2]])).abs().round()  # directions vary along y
        tensor([[0., 1.],
                [1., 0.]])
    """
    rows = as_matrix(rows)
    width = rows.shape[1]
    used = np.arange(len(rows)) if among is None else among
    if len(used) > COVARIANCE_ROWS:
        used = np.sort(np.random.default_rng(seed).choice(used, COVARIANCE_ROWS, replace=False, shuffle=False))
    total, mean = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for start in range(0, len(used), SCAN_ROWS):
        unit = unit_rows(rows[used[start : start + SCAN_ROWS]])
        # Sums over 100,000 rows in float64: in float32 small eigenvalues would drown in the rounding of large ones.
        total += (unit.T @ unit).double()
        mean += unit.double().sum(dim=0)
    mean /= len(used)
    axes = torch.linalg.eigh(total / len(used) - torch.outer(mean, mean)).eigenvectors.flip(1)
    # An eigenvector has no sign of its own; fixed, the same vectors give the same map.
    sign = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return (axes * sign).float()
