"""A WFDB record on disk → `ECG` in millivolts, or one typed error that says what is wrong with it.

Lead names of any usual spelling and order, units of any size, any sampling rate, one or several signal files and
segments. A record's header and the names inside it are not trusted: sizes are checked before memory is taken, and no
name can lead out of the record's folder.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.signal import resample_poly

from hf_evl_ecg.signals.ecg import (
    DERIVED_LEADS,
    ECG,
    FS_RANGE_HZ,
    STANDARD_LEADS,
    canonical_lead,
    canonical_leads,
    derive_limb_leads,
)

from .comments import read_diagnoses, read_person
from .header import ECGRecordError, Header, SignalLine, parse_header
from .plausibility import ECGRecordWarning, ImplausibleAmplitudeWarning, amplitude_mv, warn_about_scale
from .samples import check_sizes, read_physical

__all__ = [
    "ECGRecordError",
    "ECGRecordWarning",
    "ImplausibleAmplitudeWarning",
    "amplitude_mv",
    "check_record",
    "read_header",
    "read_record",
    "resolve_inside",
]

LARGEST_MV = 3.4e38  # float32
MAX_REPEATS = 16  # of one segment; a small header must not ask for much more memory than its signal files


def read_record(
    path: str | os.PathLike[str],
    lead_order: Sequence[str] = STANDARD_LEADS,
    *,
    root: str | os.PathLike[str] | None = None,
    nan: Literal["raise", "interpolate"] = "raise",
    gain_per_mv: float | None = None,
) -> ECG:
    """Read a WFDB record as a 12-lead ECG in millivolts.

    All formats of the WFDB library, several signal files, segments, several samples per frame, skew and byte offsets
    are understood. III, aVR, aVL and aVF are computed from I and II where they are absent (named in
    `metadata["derived_leads"]`); other channels are ignored. Amplitudes no heart produces give an
    `ImplausibleAmplitudeWarning`; an `ECGRecordWarning` tells of a gain left out, gains that scale each lead to its own range
    (as LUDB's do), limb leads that contradict each other, wrong checksums, and signal files longer than the header says. Flat
    leads are in `ECG.flat_leads`.

    Args:
        path: The record's path without suffix, or its header or signal file.
        lead_order: Order of the columns, all 12 standard leads.
        root: Folder that the header and its signal files must not leave, symbolic links resolved. Without it the
            header may lie anywhere, and its signal files must lie beside it.
        nan: What to do with samples marked as missing: "raise", or "interpolate" linearly within each lead (the ends
            hold their nearest value; counts in `metadata["interpolated_samples"]`; a lead that is half missing raises).
        gain_per_mv: Stored units per mV of every lead, for headers known to be wrong; replaces gain, baseline and units.

    Returns:
        The ECG: `signal_mv` float32 (T, 12), `fs_hz`, comments, diagnoses; age in years and sex in `metadata`.

    Raises:
        ECGRecordError: The record is malformed or is no 12-lead ECG; it names file, field, value and what is allowed.
        ValueError: `lead_order`, `nan` or `gain_per_mv` is not an allowed value.

    Example:
        >>> ecg = read_record("ludb/data/1")            # doctest: +SKIP
        >>> ecg.signal_mv.shape, ecg.fs_hz, ecg.diagnoses[0]  # doctest: +SKIP
        ((5000, 12), 500.0, 'Rhythm: Sinus bradycardia.')
    """
    order = canonical_leads(lead_order)
    if nan not in ("raise", "interpolate"):
        raise ValueError(f"nan is {nan!r}; allowed: 'raise', 'interpolate'")
    if gain_per_mv is not None and not 0 < gain_per_mv < math.inf:
        raise ValueError(f"gain_per_mv is {gain_per_mv}; allowed: a positive number of stored units per mV, or None")
    header = read_header(path, root=root)
    metadata = read_person(header.comments)
    read = _read_segments if header.segments else _read_leads
    try:
        leads, fs_hz = read(header, root, gain_per_mv)
    except MemoryError as error:
        raise ECGRecordError(header.path, "n_samples", str(header.n_samples), "as many as fit into memory") from error
    derived = [name for name in DERIVED_LEADS if name not in leads]
    if derived:
        leads = derive_limb_leads(leads["I"], leads["II"]) | leads
        metadata["derived_leads"] = tuple(derived)
    signal = np.stack([leads[name] for name in order], axis=1)
    if not (np.isnan(signal) | (np.abs(signal) < LARGEST_MV)).all():
        raise ECGRecordError(header.path, "signal", "beyond the range of float32", "voltages in mV")
    signal = _fill_missing(signal, order, nan, header.path, metadata)
    ecg = ECG(signal, fs_hz, order, header.record_name, header.comments, read_diagnoses(header.comments), metadata)
    warn_about_scale(ecg, header, gain_per_mv)
    return ecg


def check_record(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Header:
    """Check all of a record that can be checked without reading samples, and return its header, its length filled in.

    Args:
        path: The record's path without suffix, or its header or signal file.
        root: Folder that the header and its signal files must not leave.

    Raises:
        ECGRecordError: As `read_record`, except for missing samples and damaged compressed data.
    """
    header = read_header(path, root=root)
    if header.segments:
        _segment_headers(header, root)
        return replace(header, n_samples=sum(length for _, length in header.segments))
    *_, n_frames = _plan(header, root)
    return replace(header, n_samples=n_frames)


def read_header(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Header:
    """Read a record's header only: sampling rate, length, leads, comments, without touching a signal file.

    Args:
        path: The record's path without suffix, or its header or signal file.
        root: Folder that the header must not leave.

    Raises:
        ECGRecordError: The header is missing, malformed or outside `root`; or the path is a folder or another kind of file.
    """
    path = _header_path(Path(path))
    if root is not None:
        path = resolve_inside(path, root)
    return parse_header(path)


def _header_path(path: Path) -> Path:
    """Path of a record's header, from its own or that of the record or its signal file."""
    if ".hea" in (suffix.lower() for suffix in path.suffixes):
        return path
    bare = path.parent / path.stem if path.suffix.lower() in (".dat", ".mat") else path
    found = [header for suffix in (".hea", ".HEA") if os.path.exists(header := f"{bare}{suffix}")]
    if not found and os.path.isdir(path):
        raise ECGRecordError(
            path, "record", "a folder", "a record in it, without suffix or by its .hea, .dat or .mat file"
        )
    if not found and bare is path and os.path.isfile(path):
        allowed = "a WFDB record, without suffix or by its .hea, .dat or .mat file"
        raise ECGRecordError(path, "record", f"a {path.suffix or 'plain'} file", allowed)
    return Path(found[0] if found else f"{bare}.hea")


def resolve_inside(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """Return `path` (relative to `root`, unless it is absolute) with links resolved, refusing what leaves `root`.

    Raises:
        ECGRecordError: The resolved path is not inside `root`.

    Example:
        >>> resolve_inside("../secret", "/data")
        Traceback (most recent call last):
        hf_evl_ecg.records.header.ECGRecordError: ../secret: path is '/secret'; allowed: a path inside /data
    """
    base = Path(root).resolve()
    try:
        inside = (base / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ECGRecordError(os.fspath(path), "path", str(error), f"a path inside {base}") from error
    if not inside.is_relative_to(base):
        raise ECGRecordError(os.fspath(path), "path", str(inside), f"a path inside {base}")
    return inside


def _signal_files(header: Header, root: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Locate the signal files, refusing any that a link takes elsewhere."""
    if root is not None:
        folders = [Path(root).resolve()]
    else:  # the header may itself be a link into a cache whose files lie side by side
        folders = [header.path.parent.resolve(), header.path.resolve().parent]
    files = {}
    for name in {line.file_name for line in header.signals}:
        try:
            target = (header.path.parent / name).resolve()
        except (OSError, RuntimeError) as error:  # links that lead to themselves
            raise ECGRecordError(header.path, "signal file name", f"{name}: {error}", "an existing file") from error
        if not any(target.is_relative_to(folder) for folder in folders):
            allowed = f"a file inside {folders[0]}"
            raise ECGRecordError(header.path, "signal file name", f"{name} (a link to {target})", allowed)
        files[name] = target
    return files


def _plan(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None = None
) -> tuple[Header, dict[str, SignalLine], dict[str, Path], int]:
    """Check one segment before any sample is read: its leads by name, signal files and number of frames."""
    if gain_per_mv is not None:
        lines = tuple(replace(line, gain=gain_per_mv, baseline=0, units="mV") for line in header.signals)
        header = replace(header, signals=lines)
    leads: dict[str, SignalLine] = {}
    for line in header.signals:
        name = canonical_lead(line.name)
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
    fs_hz = header.fs_hz * max(line.samples_per_frame for line in leads.values())
    if fs_hz > FS_RANGE_HZ[1]:
        raise ECGRecordError(header.path, "fs times samples per frame", fs_hz, f"at most {FS_RANGE_HZ[1]:g} Hz")
    files = _signal_files(header, root)
    return header, leads, files, check_sizes(header, files)


def _read_leads(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None
) -> tuple[dict[str, np.ndarray], float]:
    """Read one segment: its standard leads in mV by name, all at one rate, and that rate in Hz."""
    header, leads, files, n_frames = _plan(header, root, gain_per_mv)
    rate = max(line.samples_per_frame for line in leads.values())
    millivolts = {}
    for line, values in zip(header.signals, read_physical(header, files, n_frames), strict=True):
        name = canonical_lead(line.name)
        if name is None:
            continue
        values = values * line.mv_per_unit
        if line.samples_per_frame != rate:
            values = resample_poly(values, rate, line.samples_per_frame, padtype="line")
        millivolts[name] = values
    return millivolts, header.fs_hz * rate


def _segment_headers(header: Header, root: str | os.PathLike[str] | None) -> list[Header | int]:
    """Read the headers of a multi-segment record in order; a gap (`~`) is its length in frames."""
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
    parts: list[Header | int] = []
    for name, length in header.segments:
        if name == "~":
            parts.append(length)
        elif length:  # a segment of length 0 describes the layout only
            segment = read_header(header.path.parent / name, root=root)
            if segment.segments or segment.fs_hz != header.fs_hz or segment.n_samples != length:
                found = f"{segment.n_samples} samples at {segment.fs_hz:g} Hz, {len(segment.segments)} segments"
                allowed = f"a plain record of {length} samples at {header.fs_hz:g} Hz"
                raise ECGRecordError(segment.path, "segment", found, allowed)
            parts.append(segment)
    plans = [_plan(part, root) for part in parts if isinstance(part, Header)]
    shapes = {(frozenset(leads), max(line.samples_per_frame for line in leads.values())) for _, leads, _, _ in plans}
    if len(shapes) > 1:
        raise ECGRecordError(header.path, "segments", len(shapes), "the same leads and samples per frame in all")
    return parts


def _read_segments(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None
) -> tuple[dict[str, np.ndarray], float]:
    """Read and join the segments of a multi-segment record; a gap becomes NaN."""
    headers = _segment_headers(header, root)
    read = [part if isinstance(part, int) else _read_leads(part, root, gain_per_mv) for part in headers]
    segments = [part for part in read if not isinstance(part, int)]
    leads, fs_hz = segments[0]
    scale = round(fs_hz / header.fs_hz)
    joined = {}
    for name in leads:
        pieces = [np.full(part * scale, np.nan) if isinstance(part, int) else part[0][name] for part in read]
        joined[name] = np.concatenate(pieces)
    return joined, fs_hz


def _fill_missing(
    signal: np.ndarray, order: Sequence[str], nan: str, path: Path, metadata: dict[str, Any]
) -> np.ndarray:
    holes = np.isnan(signal)
    counts = {lead: int(n) for lead, n in zip(order, holes.sum(0), strict=True) if n}
    if not counts:
        return signal
    if nan == "raise" or max(counts.values()) > len(signal) // 2:
        allowed = "a value for every sample; nan='interpolate' fills gaps of up to half a lead"
        raise ECGRecordError(path, "missing samples per lead", counts, allowed)
    times = np.arange(len(signal))
    for column in np.flatnonzero(holes.any(0)):
        hole = holes[:, column]
        signal[hole, column] = np.interp(times[hole], times[~hole], signal[~hole, column])
    metadata["interpolated_samples"] = counts
    return signal
