"""The second half of a method: coordinates in few bits, or groups of them by number in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hf_mic.codes.quantizer import ScalarQuantizer
from hf_mic.evaluation.metrics import normalize
from hf_mic.frozen.candidates import sizes

from .maps import Method

__all__ = ["Code", "Coder", "ScalarCoder", "candidate_codes"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Code:
    """Coordinates kept, bits of each, and whether a random rotation of them comes first.

    Example:
        >>> Code(64, 1).bytes
        8
    """

    dims: int
    bits: int
    turned: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of a vector."""
        return self.dims * self.bits // 8


class Coder(Protocol):
    """What a search sees: queries that stay floats, and rows as their bytes give them back."""

    def queries(self, mapped: Floats) -> Floats:
        """Float queries. Shape: (Q, D) → (Q, d)."""

    def index(self, mapped: Floats) -> Floats:
        """Rows coded and decoded. Shape: (N, D) → (N, d)."""


class ScalarCoder:
    """A prefix at unit length, coded by :class:`hf_mic.codes.ScalarQuantizer`.

    Args:
        mapped: Mapped rows on which the code is calibrated. Shape: (N, D).
        code: Which code.
        seed: Seed of its rotation.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
        >>> coder = ScalarCoder(rows, Code(8, 1))
        >>> np.unique(coder.index(rows)[:, 0]).size  # one bit: two values
        2
    """

    def __init__(self, mapped: Floats, code: Code, seed: int = 0):
        self.code = code
        rotation = "orthogonal" if code.turned else None
        self.quantizer = ScalarQuantizer.fit(self.queries(mapped), code.bits, rotation=rotation, seed=seed)  # type: ignore[arg-type]

    def queries(self, mapped: Floats) -> Floats:
        """The prefix at unit length. Shape: (Q, D) → (Q, d)."""
        return normalize(mapped[:, : self.code.dims])

    def index(self, mapped: Floats) -> Floats:
        """What the bytes of the prefix stand for. Shape: (N, D) → (N, d)."""
        return self.quantizer.decode(self.quantizer.encode(self.queries(mapped)))


def candidate_codes(method: Method, width: int, size: int, most: int = 3) -> list[Code]:
    """Codes of a size among which a method's is chosen: those of most dimensions, with and without a rotation if that is open.

    Args:
        method: A method that codes coordinates by themselves.
        width: Width of the vectors.
        size: Bytes.
        most: Most pairs of dimensions and bits.

    Example:
        >>> candidate_codes(Method("truncation"), 384, 8)
        [Code(dims=64, bits=1, turned=False), Code(dims=32, bits=2, turned=False), Code(dims=16, bits=4, turned=False)]
    """
    pairs = [(dims, bits) for dims, bits in sizes(width, size) if bits in method.bits][:most]
    turns = (False, True) if method.turned is None else (method.turned,)
    return [Code(dims, bits, turned) for dims, bits in pairs for turned in turns if not (turned and bits >= 16)]
