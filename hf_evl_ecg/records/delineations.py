"""Cardiologists' wave boundaries in the MIT annotation format → waves → heart rate, PR, QRS and QT."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from hf_evl_ecg.qa.prompts import MEASUREMENTS

from .header import ECGRecordError

__all__ = ["Wave", "measure", "read_delineation"]

MAX_ANNOTATION_BYTES = 1 << 20  # LUDB's hold a few hundred bytes; anything far larger is rejected

# Codes of the MIT annotation format: https://physionet.org/physiotools/wag/annot-5.htm
_SYMBOLS = {1: "N", 24: "p", 27: "t", 39: "(", 40: ")"}
_SKIP, _AUX = 59, 63


@dataclass(frozen=True)
class Wave:
    """One delineated wave in one lead, in samples.

    Attributes:
        kind: "p", "N" (QRS) or "t".
        onset: First sample.
        peak: Sample of the peak.
        offset: Last sample.
    """

    kind: str
    onset: int
    peak: int
    offset: int


def read_delineation(path: str | os.PathLike[str]) -> list[Wave]:
    """Read one lead's annotation file (`1.ii` …) into complete waves, in order; incomplete ones are left out.

    Args:
        path: The annotation file.

    Raises:
        ECGRecordError: The file is missing, too large or cut short.
    """
    path = Path(path)
    marks = _read_marks(path)
    waves = []
    for i in range(1, len(marks) - 1):
        (before, onset), (kind, peak), (after, offset) = marks[i - 1 : i + 2]
        if kind in "pNt" and before == "(" and after == ")" and onset <= peak <= offset:
            waves.append(Wave(kind, onset, peak, offset))
    return waves


def measure(waves_by_lead: Mapping[str, Sequence[Wave]], fs_hz: float) -> dict[str, float | None]:
    """Measure heart rate (beats per minute), PR, QRS and QT (ms) from delineated waves.

    Per lead: rate from the mean interval between neighbouring QRS peaks; PR from P onset to QRS onset where nothing lies
    between; QRS from onset to offset; QT from QRS onset to the offset of the T wave before the next QRS; the median over
    beats. Then the median over leads. None where no lead has the waves, or where the value is not plausible.

    Args:
        waves_by_lead: Waves of each lead in order of time.
        fs_hz: Sampling rate in Hz.

    Example:
        >>> qrs = [Wave("N", 100, 120, 140), Wave("N", 600, 620, 640)]
        >>> measure({"II": qrs}, 500.0)["heart_rate"], measure({"II": qrs}, 500.0)["qrs_duration"]
        (60.0, 80.0)
    """
    collected: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    for waves in waves_by_lead.values():
        ms = 1000.0 / fs_hz
        qrs = [wave for wave in waves if wave.kind == "N"]
        pairs = list(pairwise(waves))
        per_lead = {
            "heart_rate": [60.0 * fs_hz * (len(qrs) - 1) / (qrs[-1].peak - qrs[0].peak)] if len(qrs) > 1 else [],
            "pr_interval": [(b.onset - a.onset) * ms for a, b in pairs if (a.kind, b.kind) == ("p", "N")],
            "qrs_duration": [(wave.offset - wave.onset) * ms for wave in qrs],
            "qt_interval": [(b.offset - a.onset) * ms for a, b in pairs if (a.kind, b.kind) == ("N", "t")],
        }
        for name, values in per_lead.items():
            if values:
                collected[name].append(median(values))
    measured: dict[str, float | None] = {}
    for name, values in collected.items():
        low, high = MEASUREMENTS[name].plausible
        value = median(values) if values else None
        measured[name] = value if value is not None and low <= value <= high else None
    return measured


def _read_marks(path: Path) -> list[tuple[str, int]]:
    """Read (symbol, sample) of every annotation whose code is in `_SYMBOLS`."""
    try:
        if path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ECGRecordError(path, "annotation size", path.stat().st_size, f"at most {MAX_ANNOTATION_BYTES} bytes")
        words = np.frombuffer(path.read_bytes()[: path.stat().st_size // 2 * 2], dtype="<u2").tolist()
    except OSError as error:
        raise ECGRecordError(path, "annotation file", error.strerror, "an existing, readable file") from error
    marks: list[tuple[str, int]] = []
    time, i = 0, 0
    while i < len(words):
        code, step = words[i] >> 10, words[i] & 0x3FF
        i += 1
        if code == 0 and step == 0:
            return marks
        if code == _SKIP:
            if i + 2 > len(words):
                break
            jump = (words[i] << 16) + words[i + 1]
            time += jump - (1 << 32 if jump >= 1 << 31 else 0)
            i += 2
        elif code == _AUX:
            i += (step + 1) // 2
        elif code < _SKIP:
            time += step
            if code in _SYMBOLS:
                marks.append((_SYMBOLS[code], time))
    raise ECGRecordError(path, "annotations", f"{len(words)} words without an end mark", "a complete annotation file")
