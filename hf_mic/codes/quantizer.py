"""A scalar quantiser: each coordinate of a vector in 1, 2, 4, 8, 16 or 32 bits."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_mic.files import plain
from hf_mic.options import check_between, check_choice

from .inputs import Codes, Vectors, as_array, as_codes, as_matrix, finite_rows
from .levels import lloyd_max, nearest_level
from .packing import BITS, code_bytes, pack, unpack
from .rotation import hadamard_turn, hadamard_turn_back, random_orthogonal, random_signs
from .scoring import Scorer, byte_values, chunks
from .searching import best_rows

__all__ = ["ScalarQuantizer", "Similarity"]

Similarity = Literal["cosine", "dot"]

LEAST_ROWS = 16  # means and spreads of fewer rows are noise
SMALLEST_NUMBER, LARGEST_NUMBER = 1e-15, 1e15  # of calibration rows: their squares are numbers of float32
SAMPLED_ROWS = 100_000  # for means and spreads
SAMPLED_VALUES = 1_000_000  # for the levels
ENCODED_ROWS = 16384  # rows coded at once
QUERY_BLOCK = 256  # queries searched for at once


@dataclass(frozen=True, eq=False)
class ScalarQuantizer:
    r"""A code of vectors, one number of few bits per coordinate, and the calibration it is read with.

    A vector x of d coordinates is turned by an optional rotation R, each coordinate is standardised, and the nearest of
    ``2 ** bits`` levels is stored; read back, it is

    .. math:: \hat x = (\mu + \sigma \odot l_{code}) R^\top

    With 1 bit this is the side of the mean on which a coordinate lies. All coordinates share one table of levels, those of
    least squared error for the standardised calibration rows: levels of each coordinate's own kept as many neighbours
    (within 0.5 points on MiniLM embeddings, at 8 and 32 bytes) and take d times the space. 16 and 32 bits are the float16 and
    float32 numbers themselves, with no calibration.

    Attributes:
        dims: Coordinates d.
        bits: Bits per coordinate.
        means: Mean of each turned coordinate; like spreads and levels empty for 16 and 32 bits. Shape: (d,).
        spreads: Standard deviation of each; 0 for a constant coordinate, which is read back exactly. Shape: (d,).
        levels: Ascending, shared by all coordinates. Shape: (2 ** bits,).
        rotation: R, or None. Shape: (d, d).
        signs: Instead of ``rotation``: R is the Hadamard rotation of these signs. Shape: (2, d).
        source: SHA-256 of the calibration rows.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32)
        >>> quantizer = ScalarQuantizer.fit(vectors, bits=2)
        >>> codes = quantizer.encode(vectors)
        >>> codes.shape, codes.dtype
        ((1000, 8), dtype('uint8'))
        >>> scores, rows = quantizer.search(vectors[:3], codes, k=2)
        >>> rows[:, 0]
        array([0, 1, 2])
    """

    dims: int
    bits: int
    means: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    spreads: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    levels: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    rotation: NDArray[np.float32] | None = None
    source: str = ""
    signs: NDArray[np.float32] | None = None

    @classmethod
    def fit(
        cls,
        vectors: Vectors,
        bits: int,
        *,
        rotation: Literal["orthogonal", "hadamard"] | None = None,
        seed: int = 0,
    ) -> ScalarQuantizer:
        """Calibrate a code on rows like those that will be coded.

        Args:
            vectors: Floats; a numpy array, a memory map, a tensor or a list of rows. Of more than 100,000 rows a random sample is used.
                Shape: (N, d).
            bits: Bits per coordinate: 1, 2, 4, 8, 16 or 32.
            rotation: ``"orthogonal"``: turn the vectors by a random rotation, which gives all coordinates about the same
                spread; it helps few-bit codes of many principal axes. ``"hadamard"``: by random signs and a Hadamard matrix,
                for widths of a power of two or twelve times one; it keeps as much in 0.7 (d = 384) to 0.3 (1024) of the time of
                the dense rotation, and is 2 d numbers in a file instead of d².
            seed: Seed of the rotation and of the sample.

        Returns:
            The code. The same rows and seed give the same.

        Raises:
            ValueError: If the vectors are no floating-point matrix, have fewer than 16 rows or one that is not finite,
                or so small or large that their squares are no numbers of float32.
        """
        bits = plain(bits)
        check_choice("bits", bits, BITS)
        check_choice("rotation", rotation, (None, "orthogonal", "hadamard"))
        array = as_matrix(vectors)
        if len(array) < LEAST_ROWS:
            raise ValueError(
                f"{len(array)} calibration rows are too few: give at least {LEAST_ROWS} (a thousand is better)."
            )
        used = _sample(len(array), SAMPLED_ROWS, seed)
        rows = finite_rows(array[used])
        largest = float(np.abs(rows).max(initial=0))
        if largest and not SMALLEST_NUMBER < largest < LARGEST_NUMBER:
            raise ValueError(
                f"The largest number in the vectors is {largest:.3g}, and float32 does not hold the squares that scores need: divide the "
                "vectors by their mean length."
            )
        # Bytes alone would let (6, 4) rows pass for (4, 6).
        source = hashlib.sha256(repr(rows.shape).encode() + rows.tobytes()).hexdigest()
        dims = rows.shape[1]
        if bits >= 16:
            if rotation is not None:
                raise ValueError(f"rotation={rotation!r} gains nothing with bits={bits}: leave it out")
            return cls(dims, bits, source=source)
        matrix = random_orthogonal(dims, seed) if rotation == "orthogonal" else None
        signs = random_signs(dims, seed) if rotation == "hadamard" else None
        rows = _turned(rows, matrix, signs)
        means = rows.mean(axis=0, dtype=np.float64)
        spreads = rows.std(axis=0, dtype=np.float64)
        spreads[spreads <= 1e-6 * np.abs(means)] = 0  # what float32 cannot tell from a constant
        if not spreads.any():
            warnings.warn(
                f"The {len(rows):,} calibration rows are the same but for rounding, so all vectors have the same code: give rows that "
                "differ, and subtract an offset that all of them share.",
                stacklevel=2,
            )
        standard = _standardised(rows, means, spreads)[:, spreads > 0].ravel()
        standard = standard[_sample(len(standard), SAMPLED_VALUES, seed)]
        levels = lloyd_max(standard, 2**bits) if len(standard) else np.linspace(-1, 1, 2**bits, dtype=np.float32)
        return cls(dims, bits, means.astype(np.float32), spreads.astype(np.float32), levels, matrix, source, signs)

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a code; nothing else is stored per vector."""
        return code_bytes(self.dims, self.bits)

    def encode(self, vectors: Vectors) -> NDArray[np.uint8]:
        """Codes of vectors.

        Args:
            vectors: Floats; a numpy array, a memory map, a tensor or a list of rows. Shape: (N, d).

        Returns:
            Packed as :mod:`hf_mic.codes.packing` says; floats little-endian. Shape: (N, bytes_per_vector).

        Raises:
            ValueError: If the vectors have another width, or a row is not finite, as float16 with 16 bits.
        """
        array = as_matrix(vectors, self.dims)
        codes = np.empty((len(array), self.bytes_per_vector), dtype=np.uint8)
        for start in range(0, len(array), ENCODED_ROWS):
            rows = finite_rows(array[start : start + ENCODED_ROWS], start)
            codes[start : start + len(rows)] = self._encoded(rows, start)
        return codes

    def _encoded(self, rows: NDArray, start: int) -> NDArray[np.uint8]:
        if self.bits == 32:
            return rows.astype("<f4").view(np.uint8)
        if self.bits == 16:
            with np.errstate(over="ignore"):
                half = rows.astype("<f2")
            if not np.isfinite(half).all():
                row = start + int(np.argmin(np.isfinite(half).all(axis=1)))
                raise ValueError(
                    f"Embedding row {row} holds a number beyond 65504, the largest of float16: use bits=32."
                )
            return half.view(np.uint8)
        standard = _standardised(_turned(rows, self.rotation, self.signs), self.means, self.spreads)
        return pack(nearest_level(standard, self.levels), self.bits)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What codes stand for, in the coordinates of the vectors that were coded.

        Args:
            codes: Shape: (N, bytes_per_vector).

        Returns:
            Shape: (N, d).

        Raises:
            ValueError: If these are no codes of this quantiser.
        """
        codes = as_array(self._codes(codes))
        if self.bits >= 16:
            return np.ascontiguousarray(codes).view("<f2" if self.bits == 16 else "<f4").astype(np.float32)
        turned = self.means + self.spreads * self.levels[unpack(codes, self.bits, self.dims)]
        if self.signs is not None:
            return hadamard_turn_back(turned, self.signs)
        return turned if self.rotation is None else turned @ self.rotation.T

    def scores(self, queries: Vectors, codes: Codes, similarity: Similarity = "cosine") -> Codes:
        """Similarity of each query to each coded row, as if the rows were decoded first.

        Args:
            queries: Floats (asymmetric: only the rows are rounded), or codes of this quantiser (symmetric). Shape: (Q, d) or
                (Q, bytes_per_vector).
            codes: A numpy array, a memory map or a tensor on any device. Shape: (N, bytes_per_vector).
            similarity: ``"cosine"``, by the norm of the decoded row, which the code itself gives; or ``"dot"``.

        Returns:
            float32, of the kind and on the device of ``codes``; in memory row by row of the codes. Shape: (Q, N).

        Raises:
            ValueError: If shapes or types do not fit, or a query is not finite.
        """
        floats, codes = self._queries(queries), self._codes(codes)
        scorer = self._scorer(floats, codes, similarity)
        device = codes.device if isinstance(codes, Tensor) else "cpu"
        out = torch.empty((len(codes), len(floats)), dtype=torch.float32, device=device)
        for start, part in chunks(codes):
            out[start : start + len(part)] = scorer(part)
        scored: Any = out.T if isinstance(codes, Tensor) else out.T.numpy()
        return scored

    def search(
        self, queries: Vectors, codes: NDArray | Tensor, k: int = 10, similarity: Similarity = "cosine"
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k most similar coded rows of each query, best first; of equal scores the lower row.

        Args:
            queries: As for :meth:`scores`. Shape: (Q, d) or (Q, bytes_per_vector).
            codes: As for :meth:`scores`; only chunks of scores are held. Shape: (N, bytes_per_vector).
            k: How many rows.
            similarity: As for :meth:`scores`.

        Returns:
            Scores and row numbers. Shape: (Q, k) each.

        Raises:
            ValueError: As :meth:`scores`, or if ``k`` is not in [1, N].
        """
        floats, codes = self._queries(queries), self._codes(codes)
        check_between("k", k, 1, len(codes))
        found = []
        for first in range(0, len(floats), QUERY_BLOCK):
            block = floats[first : first + QUERY_BLOCK]
            scorer = self._scorer(block, codes, similarity)
            found.append(best_rows(((start, scorer(part)) for start, part in chunks(codes)), len(block), k))
        if not found:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def _scorer(self, queries: NDArray, codes: NDArray | Tensor, similarity: Similarity) -> Scorer:
        check_choice("similarity", similarity, ("cosine", "dot"))
        device = codes.device if isinstance(codes, Tensor) else torch.device("cpu")
        turned = _turned(queries, self.rotation, self.signs)
        values = None
        if self.bits < 16:
            values = torch.from_numpy(byte_values(self.bits, self.means, self.spreads, self.levels)).to(device)
        return Scorer(torch.tensor(turned, device=device), self.bits, values, cosine=similarity == "cosine")

    def _queries(self, queries: Vectors) -> NDArray[np.float32]:
        """Float queries, decoded if they are codes."""
        array = as_array(queries)
        return self.decode(array) if array.dtype == np.uint8 else finite_rows(as_matrix(array, self.dims))

    def _codes(self, codes: Codes) -> Codes:
        return as_codes(codes, self.bytes_per_vector, f"Codes of {self.dims} x {self.bits} bits")


def _turned(rows: NDArray, matrix: NDArray | None, signs: NDArray | None) -> NDArray[np.float32]:
    """Rows turned by whichever rotation there is."""
    if signs is not None:
        return hadamard_turn(rows, signs)
    return rows if matrix is None else rows @ matrix


def _standardised(rows: NDArray, means: NDArray, spreads: NDArray) -> NDArray[np.float32]:
    """Deviations from the mean in units of the spread; 0 for a constant coordinate."""
    scale = np.divide(1.0, spreads, out=np.zeros_like(spreads), where=spreads > 0)
    return ((rows - means) * scale).astype(np.float32)


def _sample(count: int, size: int, seed: int) -> NDArray | slice:
    """Ascending numbers of ``size`` of ``count`` entries; all of them if there are no more."""
    if count <= size:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False, shuffle=False))
