"""Product quantisation of faiss, the rival that codes groups of coordinates together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ProductCoder"]

Floats = NDArray[np.float32]
ITERATIONS = 20  # of OPQ; 50, faiss's default, change no score by more than the seed does and take the time of it


class ProductCoder:
    """A byte per group of coordinates, the number of the nearest of 256 centroids; with OPQ after a learned rotation.

    Args:
        rows: Unit vectors to fit on. Shape: (N, D).
        size: Bytes, each for D / size coordinates.
        rotate: Learn a rotation (OPQ).
        seed: Seed of the centroids.

    Raises:
        ValueError: If D is no multiple of ``size``.
        ModuleNotFoundError: If faiss is not installed.

    Source: Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", 2011; Ge, He, Ke, Sun, "Optimized Product
        Quantization", 2014.
    """

    def __init__(self, rows: Floats, size: int, *, rotate: bool = False, seed: int = 0):
        import faiss

        width = rows.shape[1]
        if width % size:
            raise ValueError(f"size={size}: {width} coordinates do not fall into so many equal groups")
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        self.rotation = None
        if rotate:
            self.rotation = faiss.OPQMatrix(width, size)
            self.rotation.niter = ITERATIONS
            self.rotation.train(rows)
            rows = self.rotation.apply_py(rows)
        # faiss's stubs describe the C++ methods, and Python has wrappers of them that return arrays.
        self.quantizer: Any = faiss.ProductQuantizer(width, size, 8)
        self.quantizer.cp.seed = 1234 + seed  # 1234 is faiss's own
        self.quantizer.cp.min_points_per_centroid = 1  # else it warns below 9,984 rows, once for each group
        self.quantizer.train(rows)

    def queries(self, mapped: Floats) -> Floats:
        """Turned, not rounded. Shape: (Q, D) → (Q, D)."""
        rows = np.ascontiguousarray(mapped, dtype=np.float32)
        return rows if self.rotation is None else self.rotation.apply_py(rows)

    def index(self, mapped: Floats) -> Floats:
        """The centroids that stand for the rows. Shape: (N, D) → (N, D)."""
        return self.quantizer.decode(self.quantizer.compute_codes(self.queries(mapped)))
