"""A record's segments → its leads in mV: one plain record, or several one after the other with gaps between them.

Everything a header says is checked, for all segments, before a sample of the first is read.
"""

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hf_evl_ecg.signals.ecg import DERIVED_LEADS, FS_RANGE_HZ, STANDARD_LEADS

from .header import ECGRecordError, Header, SignalLine, parse_header
from .paths import find_header, signal_files
from .samples import check_sizes, read_physical

__all__ = ["count_frames", "read_leads"]

MAX_REPEATS = 16  # of one segment; a small header must not ask for much more memory than its signal files


@dataclass(frozen=True)
class _Segment:
    """A plain record, or one of several, checked as far as is possible without reading samples.

    Attributes:
        header: Its header, the gain replaced where the caller knows better.
        leads: Signal lines of the standard leads, by name.
        files: Signal file name → its path.
        n_frames: Its length.
        rate: Samples per frame of the fastest lead, to which the others are brought.
    """

    header: Header
    leads: dict[str, SignalLine]
    files: dict[str, Path]
    n_frames: int
    rate: int


def read_leads(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None
) -> tuple[dict[str, np.ndarray], float]:
    """Read a record's standard leads, all at one rate; a gap between segments becomes NaN.

    Args:
        header: The record's header, of one segment or several.
        root: Folder that no file of the record may leave; None: the header's own folder.
        gain_per_mv: Stored units per mV of every lead; replaces gain, baseline and units.

    Returns:
        Leads in mV by name, float64, shape (T,), and their rate in Hz.

    Raises:
        ECGRecordError: A segment is malformed, lacks a lead, or does not fit the others.
    """
    segments = _segments(header, root, gain_per_mv)
    rate = next(part.rate for part in segments if isinstance(part, _Segment))
    read = [np.full(part * rate, np.nan) if isinstance(part, int) else _read(part) for part in segments]
    names = next(part for part in read if isinstance(part, dict))
    leads = {name: np.concatenate([part[name] if isinstance(part, dict) else part for part in read]) for name in names}
    return leads, header.fs_hz * rate


def count_frames(header: Header, root: str | os.PathLike[str] | None) -> int:
    """Check all of a record that can be checked without reading samples, and return its length in frames.

    Raises:
        ECGRecordError: As `read_leads`, except for damaged samples.
    """
    parts = _segments(header, root, None)
    return sum(part if isinstance(part, int) else part.n_frames for part in parts)


def _segments(header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None) -> list[_Segment | int]:
    """Check all segments of a record, in order; a gap (`~`) is its length in frames. A plain record is its only segment."""
    if not header.segments:
        return [_segment(header, root, gain_per_mv)]
    _check_lengths(header)
    parts: list[_Segment | int] = []
    for name, length in header.segments:
        if name == "~":
            parts.append(length)
        elif length:  # a segment of length 0 describes the layout only
            segment = parse_header(find_header(header.path.parent / name, root))
            if segment.segments or segment.fs_hz != header.fs_hz or segment.n_samples != length:
                found = f"{segment.n_samples} samples at {segment.fs_hz:g} Hz, {len(segment.segments)} segments"
                allowed = f"a plain record of {length} samples at {header.fs_hz:g} Hz"
                raise ECGRecordError(segment.path, "segment", found, allowed)
            parts.append(_segment(segment, root, gain_per_mv))
    shapes = {(frozenset(part.leads), part.rate) for part in parts if isinstance(part, _Segment)}
    if len(shapes) > 1:
        raise ECGRecordError(header.path, "segments", len(shapes), "the same leads and samples per frame in all")
    return parts


def _check_lengths(header: Header) -> None:
    """Refuse a header of segments that asks for more memory than its signal files account for."""
    total = sum(length for _, length in header.segments)
    if header.n_samples is not None and header.n_samples != total:
        raise ECGRecordError(header.path, "n_samples", header.n_samples, f"the segments' sum, {total}")
    gaps = sum(length for name, length in header.segments if name == "~")
    if gaps > total - gaps or not total:
        allowed = f"at most half of the record's {total} samples, of which there is at least one"
        raise ECGRecordError(header.path, "length of gaps", gaps, allowed)
    name, times = Counter(name for name, length in header.segments if length).most_common(1)[0]
    if times > MAX_REPEATS and name != "~":
        allowed = f"the same segment at most {MAX_REPEATS} times"
        raise ECGRecordError(header.path, "segment", f"{name}, {times} times", allowed)


def _segment(header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None) -> _Segment:
    """Check one segment before any sample is read."""
    if gain_per_mv is not None:
        lines = tuple(replace(line, gain=gain_per_mv, baseline=0, units="mV") for line in header.signals)
        header = replace(header, signals=lines)
    leads: dict[str, SignalLine] = {}
    for line in header.signals:
        name = line.lead
        if name is None:
            continue
        if name in leads:
            raise ECGRecordError(header.path, "leads", f"{leads[name].name}, {line.name}", f"lead {name} once")
        if line.gain == 0:
            allowed = "a positive number; 0 means uncalibrated, so there is no voltage (gain_per_mv replaces it, if it is known)"
            raise ECGRecordError(header.path, "gain", f"0 (lead {name})", allowed)
        if line.mv_per_unit is None:
            raise ECGRecordError(header.path, f"units of lead {name}", line.units, "mV, uV, nV or V")
        leads[name] = line
    missing = [name for name in STANDARD_LEADS if name not in leads and name not in DERIVED_LEADS]
    if missing:
        found = ", ".join(line.name for line in header.signals)
        raise ECGRecordError(header.path, "leads", found, f"the 12 standard leads or I, II, V1-V6; missing: {missing}")
    rate = max(line.samples_per_frame for line in leads.values())
    if header.fs_hz * rate > FS_RANGE_HZ[1]:
        limit = f"at most {FS_RANGE_HZ[1]:g} Hz"
        raise ECGRecordError(header.path, "fs times samples per frame", header.fs_hz * rate, limit)
    files = signal_files(header, root)
    return _Segment(header, leads, files, check_sizes(header, files), rate)


def _read(segment: _Segment) -> dict[str, np.ndarray]:
    """The segment's standard leads in mV by name, all at one rate."""
    signals = read_physical(segment.header, segment.files, segment.n_frames)
    millivolts = {}
    for line, values in zip(segment.header.signals, signals, strict=True):
        if line.lead is None:
            continue
        values = values * line.mv_per_unit
        if line.samples_per_frame != segment.rate:
            # Imported here: it takes longer than all else in this module, and few records hold several rates.
            from scipy.signal import resample_poly

            values = resample_poly(values, segment.rate, line.samples_per_frame, padtype="line")
        millivolts[line.lead] = values
    return millivolts
