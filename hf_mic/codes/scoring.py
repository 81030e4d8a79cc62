"""Similarities read from packed bytes, without unpacking them coordinate by coordinate.

A byte has 256 values, so a table says at once what all coordinates of a byte are (8 of a 1-bit code), or what they add to the
score of a query. Which is faster depends on the number of queries and is chosen by what was measured (benchmarks/mic_codes.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding, embedding_bag

from .packing import symbols_of_bytes

__all__ = ["CHUNK", "Scorer", "byte_values", "chunks"]

CHUNK = 16384  # coded rows scored at once
TABLE_COLUMNS = 64  # queries whose tables stay in the processor's cache
SMALLEST = 1e-18  # its square is a float32; a vector of no length has similarity 0 to all


def byte_values(bits: int, means: NDArray, spreads: NDArray, levels: NDArray) -> NDArray[np.float32]:
    """What the coordinates of a byte are, for each place in a code and each value of a byte.

    Args:
        bits: Bits per coordinate, at most 8.
        means: Mean of each coordinate. Shape: (d,).
        spreads: Standard deviation of each coordinate. Shape: (d,).
        levels: Levels of a standardised coordinate. Shape: (2 ** bits,).

    Returns:
        Coordinates that only fill up the last byte are 0. Shape: (code_bytes(d, bits) * 256, 8 / bits).

    Example:
        >>> values = byte_values(4, np.array([10.0]), np.array([2.0]), np.arange(16.0))
        >>> values[0x73]  # symbol 3, and a second coordinate that there is not
        array([16.,  0.], dtype=float32)
    """
    per_byte = 8 // bits
    filled = [np.pad(part, (0, -len(part) % per_byte)).reshape(-1, 1, per_byte) for part in (means, spreads)]
    values = filled[0] + filled[1] * levels[symbols_of_bytes(bits)]
    return values.reshape(-1, per_byte).astype(np.float32)


class Scorer:
    """Scores of some queries against chunks of coded rows.

    Args:
        queries: Float queries. Shape: (Q, d).
        bits: Bits per coordinate of the codes.
        values: :func:`byte_values`; not for 16 and 32 bits.
        cosine: Divide by the norms of query and decoded row; else the inner product.
    """

    def __init__(self, queries: Tensor, bits: int, values: Tensor | None, *, cosine: bool):
        if cosine:
            queries = queries / torch.linalg.vector_norm(queries, dim=1, keepdim=True).clamp_min(SMALLEST)
        self.bits, self.values, self.cosine = bits, values, cosine
        self.tables: list[Tensor] = []
        if values is None:
            self.queries = queries
            return
        per_byte = values.size(1)
        self.queries = torch.nn.functional.pad(queries, (0, -queries.size(1) % per_byte))
        self.offsets = 256 * torch.arange(len(values) // 256, dtype=torch.int32, device=values.device)
        # Tables save 8 / bits products per byte and query, but no BLAS adds them up.
        if bits * len(queries) <= TABLE_COLUMNS or bits == 1:
            self.tables = [self._table(part) for part in self.queries.split(TABLE_COLUMNS)]

    def _table(self, queries: Tensor) -> Tensor:
        """What each byte adds to the inner product with each query and, last, to the squared norm."""
        assert self.values is not None
        per_byte = self.values.size(1)
        by_byte = self.values.view(-1, 256, per_byte)
        products = torch.bmm(by_byte, queries.view(len(queries), -1, per_byte).permute(1, 2, 0))
        norms = by_byte.square().sum(dim=2, keepdim=True)
        return torch.cat([products, norms], dim=2).flatten(0, 1)

    def __call__(self, codes: Tensor) -> Tensor:
        """Scores of a chunk of codes, one row per code: as the tables give them. Shape: (B, bytes) → (B, Q)."""
        if self.tables:
            index = codes.to(torch.int32) + self.offsets
            sums = [embedding_bag(index, table, mode="sum") for table in self.tables]
            scores = sums[0][:, :-1] if len(sums) == 1 else torch.cat([part[:, :-1] for part in sums], dim=1)
            squared = sums[0][:, -1:]
        else:
            rows = self.decode(codes)
            scores = rows @ self.queries.T
            squared = rows.square().sum(dim=1, keepdim=True) if self.cosine else rows
        return scores.mul_(squared.clamp_min(SMALLEST**2).rsqrt()) if self.cosine else scores

    def decode(self, codes: Tensor) -> Tensor:
        """The coordinates of a chunk, with those that fill up the last byte. Shape: (B, bytes) → (B, ≥ d)."""
        if self.values is None:
            kind = torch.float16 if self.bits == 16 else torch.float32
            return codes.contiguous().view(kind).float()
        if codes.device.type != "cpu":
            return embedding(codes.to(torch.int32) + self.offsets, self.values).flatten(1)
        # numpy gathers rows of a small table twice as fast as torch does.
        index = codes.numpy() + self.offsets.numpy().astype(np.intp)
        return torch.from_numpy(self.values.numpy().take(index, axis=0).reshape(len(index), -1))


def chunks(codes: NDArray | Tensor, size: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """Number of the first row, and rows, of each chunk of codes as a tensor; of a memory map only a chunk is read."""
    for start in range(0, len(codes), size):
        part = codes[start : start + size]
        # A copy: torch warns of arrays that it may not write to.
        yield start, part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
