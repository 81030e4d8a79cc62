"""Numbers in CSV, HDF5 and NumPy files, with a description of what they are → recordings."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hf_evl_ecg.arguments import check_at_least, check_between
from hf_evl_ecg.signals.ecg import FS_RANGE_HZ, STANDARD_LEADS, canonical_lead
from hf_evl_ecg.signals.errors import ECGRecordError
from hf_evl_ecg.signals.units import mv_per_unit

from .libraries import library, read_by, refuse
from .recording import Channel, Recording, check_count, combine, read_whole

__all__ = ["ArrayDescription", "read_array"]

MAX_BYTES = 256 << 20
MAX_TABLE_BYTES = 64 << 20  # of text, a row of which takes some hundred bytes
MAX_RATIO = 200  # of an array in HDF5; what is not stored is filled in
_PADDING_S = 0.1  # CODE-15 fills 10 s of 400 Hz with 0.12 s at each end
_JSON_BYTES = 1 << 16


@dataclass(frozen=True)
class ArrayDescription:
    """What the numbers of a file are, which only who wrote them knows.

    Attributes:
        fs_hz: Sampling rate in Hz.
        unit: Their unit, a voltage: mV, uV, nV or V.
        leads: Names of the columns, in their order; such as are none of the 12 leads (time, pacing) are left out.
        dataset: Name of the array, where a file holds several.
        index: Number of the recording, from 0, where the array holds several: shape (recordings, T, leads).

    Raises:
        ValueError: A rate out of range, a unit that is no voltage, a lead twice, or a negative index.

    Example:
        >>> ArrayDescription(fs_hz=400, unit="mV", leads=("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")).unit
        'mV'
    """

    fs_hz: float
    unit: str
    leads: tuple[str, ...] = STANDARD_LEADS
    dataset: str | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        check_between("fs_hz", self.fs_hz, *FS_RANGE_HZ, "Hz")
        if mv_per_unit(self.unit) is None:
            raise ValueError(f"unit={self.unit!r}: allowed are mV, uV, nV, V")
        if isinstance(self.leads, str):  # a text is a sequence too, of letters
            raise ValueError(f"leads={self.leads!r:.80}: a list of names is needed")
        names = [lead for lead in map(canonical_lead, self.leads) if lead]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"leads={list(self.leads)}: {repeated} twice")
        object.__setattr__(self, "leads", tuple(self.leads))
        if self.index is not None:
            check_at_least("index", self.index, 0)


def read_array(path: Path, kind: str, description: ArrayDescription | None = None) -> Recording:
    """Read described numbers: shape (T, columns), or (columns, T) where only that fits.

    Zeros in all leads at both ends, with which data sets fill recordings up to one length, are cut off, and a note says so.

    Args:
        path: The file.
        kind: "CSV", "HDF5" or "NumPy".
        description: What its numbers are; None: the file of the same name and ``.json`` behind it says so.

    Raises:
        ECGRecordError: There is no description or it does not fit, or the file is damaged or too large.
    """
    description = description or _beside(path, kind)
    read = {"CSV": _read_table, "HDF5": _read_hdf5, "NumPy": _read_numpy}[kind]
    array, _ = read_by(path, kind, lambda: read(path, description))
    array = _oriented(path, array, description)
    array, notes = _without_padding(path, array, description.fs_hz)
    columns = zip(description.leads, array.T, strict=True)
    channels = [Channel(name, values, description.unit, description.fs_hz) for name, values in columns]
    return combine(path, kind, channels, notes=notes)


def _beside(path: Path, kind: str) -> ArrayDescription:
    file = path.with_name(f"{path.name}.json")
    names = [field.name for field in fields(ArrayDescription)]
    example = '{"fs_hz": 500, "unit": "mV", "leads": ["I", "II", ...]}'
    if not file.is_file():
        allowed = f"an ArrayDescription, or {file.name} beside it with {example}"
        raise ECGRecordError(path, f"description of the {kind} file", "missing", allowed)
    try:
        content = json.loads(read_whole(file, "a description", _JSON_BYTES))
        if not isinstance(content, Mapping) or not set(content) <= set(names):
            raise ValueError(f"other entries than {names}")
        return ArrayDescription(**content)
    except ECGRecordError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ECGRecordError(file, "description", str(error), example) from None


def _oriented(path: Path, array: np.ndarray, description: ArrayDescription) -> np.ndarray:
    """The recording as (T, columns)."""
    shape, columns = array.shape, len(description.leads)
    if array.dtype.kind not in "iuf":
        raise ECGRecordError(path, "type of numbers", str(array.dtype), "whole or floating-point numbers")
    if array.ndim == 2 and shape[1] != columns and shape[0] == columns:
        array = array.T
    if array.ndim != 2 or array.shape[1] != columns:
        allowed = f"(T, {columns}) for the described leads {', '.join(description.leads)[:300]}"
        raise ECGRecordError(path, "shape", str(shape), allowed)
    return array


def _without_padding(path: Path, array: np.ndarray, fs_hz: float) -> tuple[np.ndarray, tuple[str, ...]]:
    filled = np.flatnonzero((array != 0).any(axis=1))
    if not len(filled):
        raise ECGRecordError(path, "samples", f"{len(array)} times 0", "a recording; this one was never filled")
    start, stop = int(filled[0]), int(filled[-1]) + 1
    start = start if start >= _PADDING_S * fs_hz else 0
    stop = stop if len(array) - stop >= _PADDING_S * fs_hz else len(array)
    if (start, stop) == (0, len(array)):
        return array, ()
    before, after = start / fs_hz, (len(array) - stop) / fs_hz
    return array[start:stop], (
        f"padded with zeros, {before:.3g} s before and {after:.3g} s after it, which are cut off",
    )


def _read_table(path: Path, description: ArrayDescription) -> np.ndarray:
    import pandas as pd

    text = read_whole(path, "CSV", MAX_TABLE_BYTES).decode("utf-8-sig", errors="replace")
    lines = [line for line in text[: 1 << 16].splitlines() if line.strip()]
    separator = max(";\t,", key=lambda mark: len(lines[1].split(mark)) * (1.0 if mark != "," else 0.5))
    named = any(canonical_lead(name.strip(' "')) for name in lines[0].split(separator))
    if named:
        names = [canonical_lead(name.strip(' "')) for name in lines[0].split(separator)]
        stated = [canonical_lead(name) for name in description.leads]
        if names != stated:
            allowed = f"the described order, {', '.join(description.leads)[:300]}"
            raise ECGRecordError(path, "first line", lines[0], allowed)
    decimal = "," if separator != "," and "," in lines[1] and "." not in lines[1] else "."
    table = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        decimal=decimal,
        header=0 if named else None,
        skipinitialspace=True,
        dtype=np.float64,
    )
    return table.to_numpy()


def _read_numpy(path: Path, description: ArrayDescription) -> np.ndarray:
    data = read_whole(path, "NumPy", MAX_BYTES)
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            name = _chosen(path, names, description)
            if archive.getinfo(f"{name}.npy").file_size > MAX_BYTES:
                raise ECGRecordError(
                    path, "unpacked size", archive.getinfo(f"{name}.npy").file_size, f"at most {MAX_BYTES} bytes"
                )
            data = archive.read(f"{name}.npy")
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    left = len(data) - file.tell()
    count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
    if dtype.hasobject or count * dtype.itemsize != left or not count:
        raise ECGRecordError(path, "array", f"{dtype} of shape {shape} in {left} bytes", "numbers that fill it")
    array = np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C")
    return _picked(path, array, description)


def _read_hdf5(path: Path, description: ArrayDescription) -> np.ndarray:
    h5py = library(path, "HDF5", "h5py")
    with h5py.File(path, "r") as file:
        # Links that lead into other files are no hard links, and are not followed.
        names = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
        arrays = [name for name in names if isinstance(file[name], h5py.Dataset) and file[name].ndim > 1]
        if description.dataset and "/" in description.dataset.strip("/"):
            refuse(path, "HDF5", "a data set inside a group; only those at the top are read")
        dataset = file[_chosen(path, arrays, description)]
        if dataset.external or dataset.is_virtual:
            refuse(path, "HDF5", "numbers that lie in other files")
        if dataset.dtype.kind not in "iuf":
            raise ECGRecordError(path, "type of numbers", str(dataset.dtype), "whole or floating-point numbers")
        stored, stated = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        if stated > MAX_RATIO * max(stored, 1):
            found = f"{stated} bytes of shape {dataset.shape} out of {stored}"
            raise ECGRecordError(path, "array", found, f"at most {MAX_RATIO} times its packed size")
        return _picked(path, dataset, description)


def _chosen(path: Path, names: list[str], description: ArrayDescription) -> str:
    if description.dataset in names:
        return str(description.dataset)
    if description.dataset is None and len(names) == 1:
        return names[0]
    allowed = f"dataset= one of {', '.join(names[:20]) or '(there is no array)'}"
    raise ECGRecordError(path, "dataset", description.dataset or "not stated", allowed)


def _picked(path: Path, array: Any, description: ArrayDescription) -> np.ndarray:
    """One recording of several, or all there is; of a file on disk nothing else is read."""
    shape = tuple(array.shape)
    if len(shape) == 3:
        if description.index is None or description.index >= shape[0]:
            raise ECGRecordError(
                path, "index", description.index or "not stated", f"0 to {shape[0] - 1}, as the array holds {shape[0]}"
            )
        check_count(path, [shape[1] * shape[2]])
        return np.asarray(array[description.index])
    if len(shape) != 2 or description.index is not None:
        raise ECGRecordError(path, "shape", str(shape), "(T, leads), or (recordings, T, leads) with an index")
    check_count(path, [shape[0] * shape[1]])
    return np.asarray(array[...])
