"""Vectors in a .npy file: read as a memory map, and mapped into another file without holding either in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_mic.files import replaced_file

from .prefix_map import PrefixMap

__all__ = ["open_vectors", "write_mapped_index"]


def open_vectors(path: str | Path) -> NDArray:
    """A .npy file as a memory map.

    Raises:
        ValueError: If it does not exist or is no .npy file of numbers.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error


def write_mapped_index(fitted: PrefixMap, source: str | Path, target: str | Path, dim: int | None = None) -> None:
    """Map a .npy file into another one in chunks, as float32; the target appears when it is whole.

    Args:
        fitted: The map.
        source: File of vectors. Shape: (N, D).
        target: File that is written. Shape: (N, dim).
        dim: Coordinates that are kept, renormalised. Default: all.

    Raises:
        ValueError: As :meth:`PrefixMap.apply` and :func:`open_vectors`.
    """
    vectors = open_vectors(source)
    shape = (len(vectors), dim or fitted.width)
    with replaced_file(target) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        fitted.apply(vectors, dim=shape[1], out=out, progress=True)
        out.flush()
