"""Ways to code vectors in a given number of bytes, and what each keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hf_mic.codes.packing import BITS

__all__ = ["Candidate", "MapName", "sizes"]

MapName = Literal["truncation", "pca", "random", "fitted"]


@dataclass(frozen=True)
class Candidate:
    """A way to code vectors, and what it keeps.

    Attributes:
        map: ``"truncation"``: the first coordinates as they are; ``"pca"``: principal axes; ``"random"``: a random rotation of
            the full width; ``"fitted"``: :func:`hf_mic.frozen.fit_map`.
        rotation: Whether a random rotation of the kept coordinates follows.
        dims: Coordinates kept.
        bits: Bits of each.
        bytes: Bytes of a code.
        neighbours_kept: Share of the ten nearest rows at full width that are among the ten nearest by code.
        spearman: Rank correlation of the cosines by code with those at full width.
    """

    map: MapName
    rotation: bool
    dims: int
    bits: int
    bytes: int
    neighbours_kept: float
    spearman: float


def sizes(width: int, bytes_per_vector: int) -> list[tuple[int, int]]:
    """Dimensions and bits that fill so many bytes, most dimensions first.

    Raises:
        ValueError: If no code of vectors of this width has that size.

    Example:
        >>> sizes(384, 8)
        [(64, 1), (32, 2), (16, 4), (8, 8), (4, 16), (2, 32)]
    """
    found = [
        (8 * bytes_per_vector // bits, bits)
        for bits in BITS
        if 8 * bytes_per_vector % bits == 0 and 1 <= 8 * bytes_per_vector // bits <= width
    ]
    if not found:
        raise ValueError(
            f"bytes_per_vector={bytes_per_vector}: {width} coordinates fill from 1 to {4 * width} bytes; allowed is a number "
            f"for which 8 * bytes / bits is at most {width} for bits of {', '.join(map(str, BITS))}"
        )
    return found
