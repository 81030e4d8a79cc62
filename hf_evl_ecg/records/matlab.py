"""The first bytes of a `.mat` file against what a WFDB header takes for granted: one matrix of plain samples of version 4.

Layout: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, chapter on level 4.
"""

import struct
from pathlib import Path

from .header import ECGRecordError, SignalLine

__all__ = ["check_matlab"]

_HEAD = 20  # five integers of four bytes: type, rows, columns, whether complex, length of the name
_TYPES = {0: "double", 10: "single", 20: "int32", 30: "int16", 40: "uint16", 50: "uint8"}
_WANTED = {"16": 30, "32": 20}
_SAVE = "scipy.io.savemat(path, {'val': samples}, format='4') of samples of shape (signals, time)"


def check_matlab(path: Path, lines: list[SignalLine], n_frames: int | None) -> None:
    """Refuse a MATLAB file whose samples do not lie where the signal lines say.

    A file of another kind with that suffix, plain samples for one, is left to them.

    Args:
        path: The file.
        lines: The signals that it holds.
        n_frames: Their length, if the header states it.

    Raises:
        ECGRecordError: Another version, type, shape or offset.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((b"MATLAB", b"\x89HDF")):
        version = "7.3" if head.startswith((b"MATLAB 7.3", b"\x89HDF")) else "5"
        raise ECGRecordError(path, "signal file", f"a file of MATLAB {version}", f"a file of MATLAB 4, as by {_SAVE}")
    fmt, offset, count = lines[0].fmt, lines[0].byte_offset, sum(line.samples_per_frame for line in lines)
    found = _version_4(head, "<") or _version_4(head, ">")
    if fmt not in _WANTED or found is None:
        return
    order, kind, rows, columns, imaginary, name = found
    if (order, kind, imaginary) != ("<", _WANTED[fmt], 0):
        shown = "big-endian " * (order == ">") + "complex " * imaginary + _TYPES[kind]
        allowed = f"{_TYPES[_WANTED[fmt]]} in little-endian order for format {fmt}, as by {_SAVE}"
        raise ECGRecordError(path, "type of the MATLAB 4 matrix", shown, allowed)
    if offset != _HEAD + name:
        raise ECGRecordError(
            path, "byte offset", offset, f"{_HEAD + name}, where the samples of this MATLAB 4 file begin"
        )
    if rows != count or columns < (n_frames or 0):
        turned = " (transposed)" if columns == count else ""
        allowed = f"{count} x {n_frames or 'any number'}, a row for each signal, as by {_SAVE}"
        raise ECGRecordError(path, "shape of the MATLAB 4 matrix", f"{rows} x {columns}{turned}", allowed)


def _version_4(head: bytes, order: str) -> tuple[str, int, int, int, int, int] | None:
    """Order, type, rows, columns, complex or not, and length of the name, if these bytes can begin a matrix of version 4."""
    if len(head) < _HEAD:
        return None
    kind, rows, columns, imaginary, name = struct.unpack(f"{order}5i", head)
    if order == ">":
        kind -= 1000  # the thousands say which order the writer's machine has
    fits = kind in _TYPES and rows > 0 and columns > 0 and imaginary in (0, 1) and 2 <= name <= 64
    return (order, kind, rows, columns, imaginary, name) if fits else None
