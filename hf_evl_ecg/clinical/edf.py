"""A stretch of a long EDF file as a file of its own: a Holter's day is a gigabyte, a page shows 10 s of it."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hf_evl_ecg.signals.errors import ECGRecordError

from .limits import check_edf, stated_number

__all__ = ["Part", "stretch"]

_MARGIN_S = 1.0  # around what is asked for, so that a filter between sampling rates ends there


class Part(NamedTuple):
    """Data records of an EDF file as a file.

    Attributes:
        path: That file, or the whole one.
        start_s: Where in the recording it begins, in seconds.
        recorded_s: Length of the whole recording in seconds; None where it is all there.
    """

    path: Path
    start_s: float = 0.0
    recorded_s: float | None = None


@contextmanager
def stretch(path: Path, start_s: float, duration_s: float | None) -> Iterator[Part]:
    """Give the data records that hold a stretch, and a second around it; the file itself where that is all.

    Args:
        path: An EDF file.
        start_s: Where the stretch begins, in seconds.
        duration_s: Its length in seconds; None: up to the end.

    Raises:
        ECGRecordError: Numbers in its header that are none, or beyond any recorder's; a start behind the end.
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
        if step and start_s >= total * step:
            raise ECGRecordError(path, "start_s", start_s, f"less than the record's {total * step:g} s")
        first = max(0, math.floor((start_s - _MARGIN_S) / step)) if step else 0
        stop = total if duration_s is None or not step else math.ceil((start_s + duration_s + _MARGIN_S) / step)
        needed = min(stop, total) - first
        if needed >= total:
            yield Part(path)
            return
        file.seek(2 * samples * first, os.SEEK_CUR)
        part = header[:236] + f"{needed:<8d}".encode("ascii") + header[244:] + file.read(2 * samples * needed)
    check_edf(path, "EDF", part)
    handle, name = tempfile.mkstemp(prefix="ecg_edf_")
    try:
        with os.fdopen(handle, "wb") as copy:
            copy.write(part)
        yield Part(Path(name), first * step, total * step)
    finally:
        os.unlink(name)


def _seconds(raw: bytes) -> float:
    """Duration of a data record; 0 where it is no positive number, of which the parser says what is wrong."""
    try:
        value = float(raw.decode("latin-1").strip("\x00 "))
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0
