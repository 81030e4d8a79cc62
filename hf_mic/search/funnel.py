"""Funnel search: few bytes of every vector, more bytes of those that are left, floats of the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_mic.codes.inputs import Vectors, as_array, as_codes, as_matrix
from hf_mic.codes.searching import best_rows
from hf_mic.frozen.compressor import Compressor
from hf_mic.frozen.vectors import unit_rows
from hf_mic.options import check_between

__all__ = ["CodedStage", "Found", "Funnel", "RescoringStage", "Stage", "VectorStage"]

CHUNK = 16384  # rows compared at once where all are
QUERY_BLOCK = 256
SMALLEST = 1e-30  # a row of no length has similarity 0 to all


class Stage(Protocol):
    """Vectors in one form, and how queries are compared with all or some of them."""

    def __len__(self) -> int: ...

    def best(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray, float]:
        """Scores and rows of the k best of all, shape (Q, k), -1 where there are fewer, and bytes read for a query."""


@runtime_checkable
class RescoringStage(Stage, Protocol):
    """A stage that can also compare some rows only."""

    def rescore(self, queries: NDArray[np.float32], rows: Sequence[NDArray]) -> tuple[list[NDArray], float]:
        """Scores of some rows, one array for each query, and bytes read for a query."""


class CodedStage:
    """Codes of a :class:`Compressor`.

    Args:
        compressor: What made the codes.
        codes: From :meth:`Compressor.transform`, or a memory map of them. Shape: (N, bytes_per_vector).
    """

    def __init__(self, compressor: Compressor, codes: NDArray[np.uint8]):
        self.compressor = compressor
        self.codes = as_array(as_codes(codes, compressor.bytes_per_vector, "Codes of this compressor"))

    def __len__(self) -> int:
        return len(self.codes)

    def best(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray, float]:
        """Every code is read."""
        return *self.compressor.search(queries, self.codes, k), float(self.codes.size)

    def rescore(self, queries: NDArray[np.float32], rows: Sequence[NDArray]) -> tuple[list[NDArray], float]:
        """Only the codes of these rows are read."""
        mapped = self.compressor.prefix_map.apply(queries, dim=self.compressor.dims)
        quantizer = self.compressor.quantizer
        scores = [quantizer.scores(mapped[i : i + 1], self.codes[some])[0] for i, some in enumerate(rows)]
        return scores, _mean_length(rows) * self.compressor.bytes_per_vector


class VectorStage:
    """Floating-point vectors compared by cosine, which may lie on disk: of a memory map only the rows asked for are read.

    Args:
        vectors: float16, float32 or float64 of any scale. Shape: (N, D).
    """

    def __init__(self, vectors: Vectors):
        self.vectors = as_matrix(vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def best(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray, float]:
        """Exact search: every vector is read."""
        unit = self._queries(queries).T
        check_between("k", k, 1, len(self))

        def scored(columns: Tensor) -> Iterator[tuple[int, Tensor]]:
            for start in range(0, len(self), CHUNK):
                yield start, _unit(self.vectors[start : start + CHUNK]) @ columns

        found = [
            best_rows(scored(block), block.size(1), k)
            for block in torch.split(unit, QUERY_BLOCK, dim=1)
            if block.size(1)
        ]
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(rows), float(self.vectors.nbytes)

    def rescore(self, queries: NDArray[np.float32], rows: Sequence[NDArray]) -> tuple[list[NDArray], float]:
        """Only these rows are read."""
        unit = self._queries(queries)
        scores = [(_unit(self.vectors[some]) @ unit[i]).numpy() for i, some in enumerate(rows)]
        return scores, _mean_length(rows) * self.vectors.shape[1] * self.vectors.itemsize

    def _queries(self, queries: NDArray[np.float32]) -> Tensor:
        return unit_rows(as_matrix(queries, self.vectors.shape[1]))


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        scores: Similarity of the last stage, best first; -inf where fewer were found. Shape: (Q, k).
        rows: Row numbers, -1 where fewer were found. Shape: (Q, k).
        bytes_read: Bytes of vectors or codes that each stage reads for a query, on average; NaN of an index that does not say.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    bytes_read: tuple[float, ...]


class Funnel:
    """A search in stages: the first compares all vectors, each later one those that the stage before left.

    Args:
        stages: The first may be an index of another library (:mod:`hf_mic.search.indexes`); all hold the same vectors in the
            same order.
        shortlists: How many rows each stage but the last hands on, descending.

    Raises:
        ValueError: If the numbers of rows differ, or there are not as many descending shortlists as stages before the last.

    Example:
        >>> from hf_mic.frozen import AdaptConfig
        >>> random = np.random.default_rng(0)
        >>> vectors = (random.normal(size=(2000, 8)) @ random.normal(size=(8, 64))).astype(np.float32)
        >>> small = Compressor.fit(vectors, bytes_per_vector=4, config=AdaptConfig(steps=20))
        >>> funnel = Funnel([CodedStage(small, small.transform(vectors)), VectorStage(vectors)], [50])
        >>> found = funnel.search(vectors[:3], k=5)
        >>> found.rows[:, 0], found.bytes_read  # 4 bytes of 2000 codes, 256 of 50 vectors
        (array([0, 1, 2]), (8000.0, 12800.0))
    """

    def __init__(self, stages: Sequence[Stage], shortlists: Sequence[int] = ()):
        counts = [len(stage) for stage in stages]
        if not stages or len(set(counts)) > 1:
            raise ValueError(f"Stages must hold the same vectors, at least one stage; they hold {counts} rows.")
        sizes = list(shortlists)
        if len(sizes) != len(stages) - 1 or sizes != sorted(sizes, reverse=True) or any(size < 1 for size in sizes):
            raise ValueError(
                f"shortlists={sizes}: must be {len(stages) - 1} descending numbers, one for each of the {len(stages)} stages but the "
                "last"
            )
        later = [stage for stage in stages[1:] if isinstance(stage, RescoringStage)]
        if len(later) < len(stages) - 1:
            names = ", ".join(type(stage).__name__ for stage in stages[1:] if stage not in later)
            raise ValueError(f"{names} searches everything, so it can only be the first stage.")
        self.first, self.later, self.shortlists = stages[0], later, [min(size, counts[0]) for size in sizes]

    def search(self, queries: Vectors, k: int = 10) -> Found:
        """The k best rows of each query by the last stage, among those that the stages before left.

        Args:
            queries: Floats of any scale. Shape: (Q, D).
            k: How many, at most the last shortlist.

        Raises:
            ValueError: If there are no queries, one is zero or not finite, or ``k`` exceeds rows or shortlist.
        """
        asked = as_matrix(queries)
        if not len(asked):
            raise ValueError("There are no queries: give at least one row.")
        floats = unit_rows(asked).numpy()
        check_between("k", k, 1, min([len(self.first), *self.shortlists]))
        sizes = [*self.shortlists, k]
        scores, rows, read = self.first.best(floats, sizes[0])
        total = [read]
        for stage, size in zip(self.later, sizes[1:], strict=True):
            # Ascending, so that a file is read in its order; this also settles which of equal scores comes first.
            left = [np.sort(some[some >= 0]) for some in rows]
            values, read = stage.rescore(floats, left)
            scores, rows = _ranked(values, left, size)
            total.append(read)
        return Found(np.asarray(scores, np.float32), np.asarray(rows, np.int64), tuple(total))


def _ranked(values: Sequence[NDArray], rows: Sequence[NDArray], size: int) -> tuple[NDArray, NDArray]:
    """The best of each list, of equal scores the lower row; filled up with -inf and -1."""
    scores, numbers = np.full((len(rows), size), -np.inf, np.float32), np.full((len(rows), size), -1)
    for i, (value, some) in enumerate(zip(values, rows, strict=True)):
        order = np.argsort(-value, kind="stable")[:size]
        scores[i, : len(order)], numbers[i, : len(order)] = value[order], some[order]
    return scores, numbers


def _mean_length(rows: Sequence[NDArray]) -> float:
    return float(np.mean([len(some) for some in rows]))


def _unit(rows: NDArray[Any]) -> Tensor:
    values = torch.from_numpy(np.array(rows, dtype=np.float32))
    return values / torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(SMALLEST)
