"""Indexes of faiss and usearch as the first stage of a funnel (extra ``search``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FaissStage", "UsearchStage"]

Transform = Callable[[NDArray[np.float32]], NDArray]

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I8": 8, "B1": 1}
"""Bits of a coordinate in a usearch index, by the name of its scalar kind."""


class FaissStage:
    """A faiss index, of floats or binary, over the rows 0 to N - 1.

    Args:
        index: Any index with ``search``; its own options, such as ``nprobe``, stay as they are.
        transform: What becomes of the unit queries before they are searched for, such as
            ``lambda queries: fitted.apply(queries, dim=16)``; for a binary index it gives packed bits. Default: nothing.
    """

    def __init__(self, index: Any, transform: Transform | None = None):
        self.index, self.transform = index, transform

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def best(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray, float]:
        """Rows of the index; a distance becomes a score by its sign. Bytes are known of indexes that read every code."""
        import faiss

        asked = queries if self.transform is None else self.transform(queries)
        values, rows = self.index.search(np.ascontiguousarray(asked), k)
        flat = isinstance(self.index, faiss.IndexFlatCodes | faiss.IndexBinaryFlat)
        read = float(self.index.code_size * len(self)) if flat else float("nan")
        return values if self.index.metric_type == faiss.METRIC_INNER_PRODUCT else -values, rows, read


class UsearchStage:
    """A usearch index whose keys are the rows 0 to N - 1.

    Args:
        index: A ``usearch.index.Index``.
        transform: As for :class:`FaissStage`.
    """

    def __init__(self, index: Any, transform: Transform | None = None):
        self.index, self.transform = index, transform

    def __len__(self) -> int:
        return len(self.index)

    def best(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray, float]:
        """Rows of the index. Bytes are those of the vectors it compared, without its graph."""
        asked = queries if self.transform is None else self.transform(queries)
        found = self.index.search(np.ascontiguousarray(asked), k)
        rows, values = (np.atleast_2d(part) for part in (found.keys, found.distances))
        missing = np.arange(k) >= np.atleast_1d(found.counts)[:, None]
        rows = np.where(missing, -1, rows.astype(np.int64))
        size = self.index.ndim * BITS[self.index.dtype.name] / 8
        return np.where(missing, -np.inf, -values), rows, size * found.computed_distances / len(asked)
