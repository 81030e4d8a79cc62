"""The beginning of a long EDF file as a file of its own: a Holter's day is a gigabyte, a page shows 10 s of it."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .limits import check_edf, stated_number

__all__ = ["beginning"]

_MARGIN_S = 1.0  # behind what is asked for, so that a filter between sampling rates ends there


@contextmanager
def beginning(path: Path, duration_s: float | None) -> Iterator[tuple[Path, float | None]]:
    """Give a file with the first data records and the length of the whole recording in seconds; the file itself and None if all is wanted.

    Args:
        path: An EDF file.
        duration_s: What is needed of it; None: all.

    Raises:
        ECGRecordError: Numbers in its header that are none, or beyond any recorder's.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256)
        signals = stated_number(path, "number of signals", head[252:256], 1, 1024)
        header = head + file.read(256 * signals)
        at = 256 + 216 * signals
        counts = [header[at + 8 * i : at + 8 * i + 8] for i in range(signals)]
        samples = sum(stated_number(path, "samples per data record", text, 1, size) for text in counts)
        step = _seconds(head[244:252])
        there = (size - len(header)) // (2 * samples)
        stated = stated_number(path, "number of data records", head[236:244], -1, 10**8)
        total = there if stated < 0 else min(stated, there)
        needed = total if duration_s is None or not step else math.ceil((duration_s + _MARGIN_S) / step)
        if needed >= total:
            yield path, None
            return
        part = header[:236] + f"{needed:<8d}".encode("ascii") + header[244:] + file.read(2 * samples * needed)
    check_edf(path, "EDF", part)
    handle, name = tempfile.mkstemp(prefix="ecg_edf_")
    try:
        with os.fdopen(handle, "wb") as copy:
            copy.write(part)
        yield Path(name), total * step
    finally:
        os.unlink(name)


def _seconds(raw: bytes) -> float:
    """Duration of a data record; 0 where it is no positive number, of which the parser says what is wrong."""
    try:
        value = float(raw.decode("latin-1").strip("\x00 "))
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0
