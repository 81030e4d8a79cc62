"""Vectors in a file: read, a .npy file as a memory map, and mapped into another file without holding either in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from hf_mic.codes.storage import open_array, read_by
from hf_mic.files import new_array, replaced_file

from .prefix_map import PrefixMap

__all__ = ["READERS", "open_vectors", "write_mapped_index"]


def open_vectors(path: str | Path) -> NDArray:
    """Vectors of a file: .npy as a memory map; .npz, .safetensors, .csv and .parquet read whole.

    An .npz or .safetensors file holds one array. A .csv file has a number per field, a first line of names is left out. A .parquet
    file has one column of lists, or a column of numbers per coordinate.

    Raises:
        ValueError: If it does not exist, cannot be read, or holds no single matrix of numbers.

    Example:
        >>> np.savez("vectors.npz", np.eye(2))
        >>> open_vectors("vectors.npz").shape
        (2, 2)
    """
    kind = Path(path).suffix.lower()
    try:
        if kind in READERS and kind != ".npy":
            return read_by(lambda: READERS[kind](path), path, kind)
        return open_array(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} cannot be read as a {kind if kind in READERS else '.npy'} file: {error}") from error


def _read_npz(path: str | Path) -> NDArray:
    with np.load(path, allow_pickle=False) as file:
        return _only(dict(file))


def _read_safetensors(path: str | Path) -> NDArray:
    return _only(load_file(path))


def _read_csv(path: str | Path) -> NDArray:
    with Path(path).open(encoding="utf-8") as file:
        fields = file.readline().strip().split(",")
    try:
        named = not [float(field) for field in fields]
    except ValueError:
        named = True
    return np.loadtxt(path, delimiter=",", skiprows=int(named), dtype=np.float32, ndmin=2)


def _read_parquet(path: str | Path) -> NDArray:
    from pyarrow.parquet import read_table  # comes with datasets

    table = read_table(path)
    columns = [column.to_numpy() for column in table.columns]
    return np.stack(columns[0]) if len(columns) == 1 and columns[0].dtype == object else np.stack(columns, axis=1)


def _only(arrays: dict[str, NDArray]) -> NDArray:
    """The one array of a file."""
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays ({', '.join(arrays)}), one is needed")
    return next(iter(arrays.values()))


READERS = {
    ".npy": open_array,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def write_mapped_index(fitted: PrefixMap, source: str | Path, target: str | Path, dim: int | None = None) -> None:
    """Map a .npy file into another one in chunks, as float32; the target appears when it is whole.

    Args:
        fitted: The map.
        source: File of vectors. Shape: (N, D).
        target: File that is written. Shape: (N, dim).
        dim: Coordinates that are kept, renormalised. Default: all.

    Raises:
        ValueError: As :meth:`PrefixMap.apply` and :func:`open_vectors`.
        OSError: There is no space for it.
    """
    vectors = open_vectors(source)
    shape = (len(vectors), dim or fitted.width)
    with replaced_file(target) as temporary:
        out = new_array(temporary, np.float32, shape)
        fitted.apply(vectors, dim=shape[1], out=out, progress=True)
        out.flush()
