"""A record's segments → its leads in mV: one plain record, or several one after the other with gaps between them.

Everything a header says is checked, for all segments that are read, before a sample of the first is read.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hf_evl_ecg.signals.ecg import DERIVED_LEADS, FS_RANGE_HZ, STANDARD_LEADS, derive_limb_leads

from .header import ECGRecordError, Header, SignalLine, parse_header
from .paths import find_header, signal_files
from .samples import check_sizes, read_physical

__all__ = ["Leads", "count_frames", "read_leads"]

MAX_REPEATS = 16  # of one segment; a small header must not ask for much more memory than its signal files
_MARGIN_S = 1.0  # read beyond what is asked for, so that a filter between sampling rates ends behind it


@dataclass(frozen=True)
class Leads:
    """What was read of a record.

    Attributes:
        millivolts: Leads by name, float64, shape (T,), all at one rate; missing samples are NaN.
        fs_hz: That rate.
        parts: Of each segment that is no gap, its samples and the signal lines of its leads.
        derived: Leads that were computed from I and II, in all of the record or in some segments.
        recorded_s: Length of the whole record, which may be more than was read.
    """

    millivolts: dict[str, np.ndarray]
    fs_hz: float
    parts: tuple[tuple[slice, dict[str, SignalLine]], ...]
    derived: tuple[str, ...]
    recorded_s: float


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

    @property
    def skew(self) -> int:
        """Frames at the end that the most skewed lead does not reach."""
        return max(line.skew for line in self.leads.values())


def read_leads(
    header: Header,
    root: str | os.PathLike[str] | None,
    gain_per_mv: float | None,
    duration_s: float | None = None,
    start_s: float = 0.0,
) -> Leads:
    """Read a record's standard leads, all at one rate; a gap between segments becomes NaN.

    A plain record ends where its most skewed lead does. Leads that one segment lacks and another has are computed from I and II.

    Args:
        header: The record's header, of one segment or several.
        root: Folder that no file of the record may leave; None: the header's own folder.
        gain_per_mv: Stored units per mV of every lead; replaces gain, baseline and units.
        duration_s: Read this many seconds and nothing of what follows; None reads to the end.
        start_s: Begin here and read nothing of what comes before.

    Raises:
        ECGRecordError: A segment is malformed, lacks a lead, or does not fit the others; or the record ends before ``start_s``.
    """
    first = max(0, math.floor((start_s - _MARGIN_S) * header.fs_hz))
    stop = None if duration_s is None else math.ceil((start_s + duration_s + _MARGIN_S) * header.fs_hz)
    segments = _segments(header, root, gain_per_mv, first, stop)
    rate = next(part.rate for part in segments if isinstance(part, _Segment))
    read: list[dict[str, np.ndarray] | int] = []  # leads of a segment, or the frames of a gap
    parts: list[tuple[slice, dict[str, SignalLine]]] = []
    at = 0
    for part in segments:
        length = part if isinstance(part, int) else part.n_frames
        begin = max(0, first - at)
        frames = (length if stop is None else min(length, stop - at)) - begin
        if frames > 0 and isinstance(part, int):
            read.append(frames)
        elif frames > 0 and isinstance(part, _Segment):
            read.append(_read(part, begin, frames, keep_length=bool(header.segments)))
            parts.append((slice((at + begin - first) * rate, (at + begin - first + frames) * rate), part.leads))
        at += length
    found = [leads for leads in read if isinstance(leads, dict)]
    total = sum(length for _, length in header.segments) or at if header.segments else _plain_length(segments[0])
    if not start_s * header.fs_hz < total:
        raise ECGRecordError(header.path, "start_s", start_s, f"less than the record's {total / header.fs_hz:g} s")
    if not found:
        where = f"at {start_s:g} s" if start_s else "at the start"
        gap = sum(part for part in read if isinstance(part, int))
        raise ECGRecordError(header.path, "segments", f"a gap of {gap} frames {where}", f"samples {where}")
    derived = [name for name in DERIVED_LEADS if any(name not in leads for leads in found)]
    names = [name for name in STANDARD_LEADS if any(name in leads for leads in found) or name in derived]
    filled = [_complete(leads, names, rate) for leads in read]
    lead_in = round(start_s * header.fs_hz * rate) - first * rate
    end = None if duration_s is None else lead_in + max(1, round(duration_s * header.fs_hz * rate))
    millivolts = {name: np.concatenate([leads[name] for leads in filled])[lead_in:end] for name in names}
    own = [(slice(max(0, where.start - lead_in), max(0, where.stop - lead_in)), lines) for where, lines in parts]
    return Leads(millivolts, header.fs_hz * rate, tuple(own), tuple(derived), total / header.fs_hz)


def _complete(leads: dict[str, np.ndarray] | int, names: list[str], rate: int) -> dict[str, np.ndarray]:
    """All leads of a segment, those that others have computed from I and II; a gap of missing samples."""
    if isinstance(leads, int):
        return dict.fromkeys(names, np.full(leads * rate, np.nan))
    return leads if set(names) <= leads.keys() else derive_limb_leads(leads["I"], leads["II"]) | leads


def _plain_length(segment: "_Segment | int") -> int:
    assert isinstance(segment, _Segment)
    return segment.n_frames - segment.skew


def count_frames(header: Header, root: str | os.PathLike[str] | None) -> int:
    """Check all of a record that can be checked without reading samples, and return its length in frames.

    Raises:
        ECGRecordError: As `read_leads`, except for damaged samples.
    """
    parts = _segments(header, root, None, 0, None)
    return sum(part if isinstance(part, int) else part.n_frames for part in parts)


def _segments(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None, first: int, stop: int | None
) -> list[_Segment | int]:
    """Check the segments of a record, in order; a gap (`~`) is its length in frames. A plain record is its only segment.

    Those that end before ``first`` stand as gaps, and those that begin behind ``stop`` are left out, unless there is no other.
    """
    if not header.segments:
        return [_segment(header, root, gain_per_mv)]
    _check_lengths(header)
    parts: list[_Segment | int] = []
    at = 0
    for name, length in header.segments:
        if stop is not None and at >= stop and any(isinstance(part, _Segment) for part in parts):
            break
        if name == "~" or at + length <= first:
            parts.append(length)
        elif length:  # a segment of length 0 describes the layout only
            segment = parse_header(find_header(header.path.parent / name, root))
            if segment.segments or segment.fs_hz != header.fs_hz or segment.n_samples not in (None, length):
                found = f"{segment.n_samples} samples at {segment.fs_hz:g} Hz, {len(segment.segments)} segments"
                allowed = f"a plain record of {length} samples at {header.fs_hz:g} Hz"
                raise ECGRecordError(segment.path, "segment", found, allowed)
            parts.append(_segment(replace(segment, n_samples=length), root, gain_per_mv))
        at += length
    rates = {part.rate for part in parts if isinstance(part, _Segment)}
    if len(rates) > 1:
        raise ECGRecordError(header.path, "segments", sorted(rates), "the same number of samples per frame in all")
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
    if not FS_RANGE_HZ[0] <= header.fs_hz * rate <= FS_RANGE_HZ[1]:
        limits = f"{FS_RANGE_HZ[0]:g} to {FS_RANGE_HZ[1]:g} Hz"
        raise ECGRecordError(header.path, "fs times samples per frame", header.fs_hz * rate, limits)
    files = signal_files(header, root)
    return _Segment(header, leads, files, check_sizes(header, files), rate)


def _read(segment: _Segment, begin: int, frames: int, *, keep_length: bool) -> dict[str, np.ndarray]:
    """Frames of a segment's standard leads from ``begin`` on, in mV by name, all at one rate.

    The last frames, which the most skewed lead does not reach, are left out, or NaN with ``keep_length``.
    """
    reach = min(segment.n_frames - begin, frames + segment.skew)
    signals = read_physical(segment.header, segment.files, reach, begin)
    kept = min(frames, reach - segment.skew)
    millivolts = {}
    for line, values in zip(segment.header.signals, signals, strict=True):
        if line.lead is None or values is None:
            continue
        values = values[: kept * line.samples_per_frame] * line.mv_per_unit
        if line.samples_per_frame != segment.rate:
            # Imported here: it takes longer than all else in this module, and few records hold several rates.
            from scipy.signal import resample_poly

            values = resample_poly(values, segment.rate, line.samples_per_frame, padtype="line")
        if keep_length and kept < frames:
            values = np.concatenate([values, np.full((frames - kept) * segment.rate, np.nan)])
        millivolts[line.lead] = values
    return millivolts
