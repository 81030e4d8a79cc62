"""A WFDB record on disk → `ECG` in millivolts, or one typed error that says what is wrong with it.

Lead names of any usual spelling and order, units of any size, any sampling rate, one or several signal files and
segments. A record's header and the names inside it are not trusted: sizes are checked before memory is taken, and no
name can lead out of the record's folder.
"""

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.signal import resample_poly

from .signals import DERIVED_LEADS, ECG, FS_RANGE_HZ, STANDARD_LEADS, canonical_lead, canonical_leads, derive_limb_leads
from .wfdb_header import ECGRecordError, Header, SignalLine, parse_header
from .wfdb_samples import DEFAULT_GAIN, check_sizes, read_physical

__all__ = [
    "ECGRecordError",
    "ECGRecordWarning",
    "ImplausibleAmplitudeWarning",
    "amplitude_mv",
    "read_header",
    "read_record",
    "resolve_inside",
]

PLAUSIBLE_AMPLITUDE_MV = (0.5, 8.0)
UNITS_IN_MV = {
    "mv": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,
    "μv": 1e-3,
    "nv": 1e-6,
    "v": 1e3,
    "millivolt": 1.0,
    "microvolt": 1e-3,
    "volt": 1e3,
}
USUAL_GAINS = (1000.0, 200.0, 4880.0, 2000.0)
LARGEST_MV = 3.4e38  # float32

_AGE_SEX = re.compile(r"^<?(age|sex)>?\s*:\s*(.*)$", re.IGNORECASE)
_DIAGNOSIS = re.compile(r"^(dx|reason for admission|additional diagnoses)\s*:\s*(.*)$", re.IGNORECASE)


class ECGRecordWarning(UserWarning):
    """A record that can be read, with something about it that a user should know."""


class ImplausibleAmplitudeWarning(ECGRecordWarning):
    """Voltages that no heart produces: most likely a wrong gain in the header."""


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
    `ImplausibleAmplitudeWarning`; a gain left out, or gains that scale each lead to its own range (as LUDB's do), an
    `ECGRecordWarning`. Flat leads are in `ECG.flat_leads`.

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
    metadata = _person(header.comments)
    read = _read_segments if header.segments else _read_leads
    leads, fs_hz = read(header, root, gain_per_mv)
    derived = [name for name in DERIVED_LEADS if name not in leads]
    missing = [name for name in STANDARD_LEADS if name not in leads and name not in derived]
    if missing:
        found = ", ".join(line.name for line in header.signals) or "those of its segments"
        raise ECGRecordError(header.path, "leads", found, f"the 12 standard leads or I, II, V1-V6; missing: {missing}")
    if derived:
        leads = derive_limb_leads(leads["I"], leads["II"]) | leads
        metadata["derived_leads"] = tuple(derived)
    signal = np.stack([leads[name] for name in order], axis=1)
    if not (np.isnan(signal) | (np.abs(signal) < LARGEST_MV)).all():
        raise ECGRecordError(header.path, "signal", "beyond the range of float32", "voltages in mV")
    signal = _fill_missing(signal, order, nan, header.path, metadata)
    ecg = ECG(signal, fs_hz, order, header.record_name, header.comments, _diagnoses(header.comments), metadata)
    _warn_about_scale(ecg, header, gain_per_mv)
    return ecg


def read_header(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Header:
    """Read a record's header only: sampling rate, length, leads, comments, without touching a signal file.

    Args:
        path: The record's path without suffix, or its header or signal file.
        root: Folder that the header must not leave.

    Raises:
        ECGRecordError: The header is missing, malformed or outside `root`.
    """
    path = Path(path)
    if path.suffix in (".dat", ".mat"):
        path = path.with_suffix(".hea")
    elif ".hea" not in path.suffixes:
        path = path.parent / (path.name + ".hea")
    if root is not None:
        path = resolve_inside(path, root)
    return parse_header(path)


def resolve_inside(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """Return `path` (relative to `root`, unless it is absolute) with links resolved, refusing what leaves `root`.

    Raises:
        ECGRecordError: The resolved path is not inside `root`.

    Example:
        >>> resolve_inside("../secret", "/data")
        Traceback (most recent call last):
        hf_evl_ecg.wfdb_header.ECGRecordError: ../secret: path is '/secret'; allowed: a path inside /data
    """
    base = Path(root).resolve()
    try:
        inside = (base / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ECGRecordError(os.fspath(path), "path", str(error), f"a path inside {base}") from error
    if not inside.is_relative_to(base):
        raise ECGRecordError(os.fspath(path), "path", str(inside), f"a path inside {base}")
    return inside


def amplitude_mv(signal_mv: np.ndarray, fs_hz: float) -> float:
    """Return the height of the tallest lead's waves in mV: the median over 2 s windows of its peak-to-peak range.

    Every window of 2 s holds a beat at 30/min or more; the median ignores baseline steps and short artefacts.

    Args:
        signal_mv: Shape (T, leads), in mV.
        fs_hz: Sampling rate in Hz.
    """
    window = max(1, min(len(signal_mv), round(2 * fs_hz)))
    count = len(signal_mv) // window
    windows = signal_mv[: count * window].reshape(count, window, -1)
    return float(np.median(np.ptp(windows, axis=1), axis=0).max())


def _signal_files(header: Header, root: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Locate the signal files, refusing any that a link takes elsewhere."""
    if root is not None:
        folders = [Path(root).resolve()]
    else:  # the header may itself be a link into a cache whose files lie side by side
        folders = [header.path.parent.resolve(), header.path.resolve().parent]
    files = {}
    for name in {line.file_name for line in header.signals}:
        target = (header.path.parent / name).resolve()
        if not any(target.is_relative_to(folder) for folder in folders):
            allowed = f"a file inside {folders[0]}"
            raise ECGRecordError(header.path, "signal file name", f"{name} (a link to {target})", allowed)
        files[name] = target
    return files


def _read_leads(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None
) -> tuple[dict[str, np.ndarray], float]:
    """Read one segment: its standard leads in mV by name, all at one rate, and that rate in Hz."""
    if gain_per_mv is not None:
        lines = tuple(replace(line, gain=gain_per_mv, baseline=0, units="mV") for line in header.signals)
        header = replace(header, signals=lines)
    names = [canonical_lead(line.name) for line in header.signals]
    standard = [name for name in names if name is not None]
    doubled = sorted({name for name in standard if standard.count(name) > 1})
    if doubled:
        raise ECGRecordError(header.path, "leads", doubled, "each lead once; these are given twice")
    if not standard:
        found = [line.name for line in header.signals]
        raise ECGRecordError(header.path, "leads", found, f"the 12 standard leads {', '.join(STANDARD_LEADS)}")
    used = {name: line for name, line in zip(names, header.signals, strict=True) if name is not None}
    for name, line in used.items():
        if line.units.lower().rstrip("s") not in UNITS_IN_MV:
            raise ECGRecordError(header.path, f"units of lead {name}", line.units, "mV, uV, nV or V")
    rate = max(line.samples_per_frame for line in used.values())
    fs_hz = header.fs_hz * rate
    if fs_hz > FS_RANGE_HZ[1]:
        raise ECGRecordError(header.path, "fs times samples per frame", fs_hz, f"at most {FS_RANGE_HZ[1]:g} Hz")
    files = _signal_files(header, root)
    physical = read_physical(header, files, check_sizes(header, files))
    leads = {}
    for lead, line, values in zip(names, header.signals, physical, strict=True):
        if lead is None:
            continue
        values = values * UNITS_IN_MV[line.units.lower().rstrip("s")]
        if line.samples_per_frame != rate:
            values = resample_poly(values, rate, line.samples_per_frame, padtype="line")
        leads[lead] = values
    return leads, fs_hz


def _read_segments(
    header: Header, root: str | os.PathLike[str] | None, gain_per_mv: float | None
) -> tuple[dict[str, np.ndarray], float]:
    """Read and join the segments of a multi-segment record; a gap (`~`) becomes NaN."""
    total = sum(length for _, length in header.segments)
    if header.n_samples is not None and header.n_samples != total:
        raise ECGRecordError(header.path, "n_samples", header.n_samples, f"the segments' sum, {total}")
    gaps = sum(length for name, length in header.segments if name == "~")
    if gaps > total - gaps:
        raise ECGRecordError(header.path, "length of gaps", gaps, f"at most half of the record's {total} samples")
    parts: list[dict[str, np.ndarray] | int] = []
    fs_hz = header.fs_hz
    for name, length in header.segments:
        if not length:  # layout segment, or an empty one
            continue
        if name == "~":
            parts.append(length)
            continue
        segment = read_header(header.path.parent / name, root=root)
        if segment.segments or segment.fs_hz != header.fs_hz or segment.n_samples != length:
            found = f"{segment.n_samples} samples at {segment.fs_hz:g} Hz in {len(segment.segments)} segments"
            allowed = f"a plain record of {length} samples at {header.fs_hz:g} Hz"
            raise ECGRecordError(segment.path, "segment", found, allowed)
        leads, fs_hz = _read_leads(segment, root, gain_per_mv)
        parts.append(leads)
    full = [part for part in parts if not isinstance(part, int)]
    if not full or any(part.keys() != full[0].keys() or not len(part.get("I", ())) for part in full):
        raise ECGRecordError(header.path, "segments", len(full), "segments with samples and the same leads, I included")
    scale = round(fs_hz / header.fs_hz)
    joined = {
        name: np.concatenate([np.full(p * scale, np.nan) if isinstance(p, int) else p[name] for p in parts])
        for name in full[0]
    }
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


def _person(comments: Sequence[str]) -> dict[str, Any]:
    """Age in years and sex as the comments give them; None where unknown."""
    found: dict[str, Any] = {"age": None, "sex": None}
    for comment in comments:
        match = _AGE_SEX.match(comment)
        if not match:
            continue
        key, text = match[1].lower(), match[2].strip()
        if key == "age" and re.fullmatch(r"\d{1,3}(\.\d+)?", text):
            found["age"] = float(text)
        elif key == "sex":
            found["sex"] = {"m": "male", "f": "female"}.get(text[:1].lower())
    return found


def _diagnoses(comments: Sequence[str]) -> tuple[str, ...]:
    """Statements after LUDB's `<diagnoses>:`, codes after the Challenge's `Dx:`, PTB's diagnosis lines."""
    found: list[str] = []
    listing = False
    for comment in comments:
        if comment.lower().startswith("<diagnoses>"):
            listing = True
        elif listing and comment:
            found.append(comment)
        elif match := _DIAGNOSIS.match(comment):
            parts = match[2].split(",") if match[1].lower() == "dx" else [match[2]]
            found += [part.strip() for part in parts if part.strip().lower() not in ("", "unknown", "n/a", "no")]
    return tuple(dict.fromkeys(found))


def _warn_about_scale(ecg: ECG, header: Header, gain_per_mv: float | None) -> None:
    low, high = PLAUSIBLE_AMPLITUDE_MV
    amplitude = amplitude_mv(ecg.signal_mv, ecg.fs_hz)
    lines = {canonical_lead(line.name): line for line in header.signals}
    if gain_per_mv is None:
        silent = [line.name for line in lines.values() if line.gain is None]
        if silent:
            text = f"{header.path}: no gain for {silent}; WFDB's default of 200 per mV was used, voltages may be wrong"
            warnings.warn(text, ECGRecordWarning, stacklevel=3)
        if _scaled_lead_by_lead(ecg, lines):
            text = (
                f"{header.path}: III = II - I holds for the stored numbers and not for the voltages, so the header's gains "
                "scale each lead by itself and the leads cannot be compared; if the stored unit is 1 uV, as in LUDB, read "
                "with gain_per_mv=1000"
            )
            warnings.warn(text, ECGRecordWarning, stacklevel=3)
    if low <= amplitude <= high or amplitude == 0:
        return
    gains = {line.gain or DEFAULT_GAIN for line in lines.values()} if gain_per_mv is None else {gain_per_mv}
    cause = "the gain or the units in the header are wrong"
    if len(gains) == 1:
        gain = gains.pop()
        better = [g for g in USUAL_GAINS if low <= amplitude * gain / g <= high]
        if better:
            corrected = amplitude * gain / better[0]
            cause = f"the gain of {gain:g} per mV is wrong (with {better[0]:g} it would be {corrected:.2g} mV)"
    tallest = f"the tallest waves are {amplitude:.2g} mV, hearts produce {low:g} to {high:g} mV"
    warnings.warn(f"{header.path}: {tallest}; most likely {cause}", ImplausibleAmplitudeWarning, stacklevel=3)


def _scaled_lead_by_lead(ecg: ECG, lines: Mapping[str | None, SignalLine]) -> bool:
    """Tell whether Einthoven's law holds for the stored numbers of I, II, III within rounding, and not for their mV."""
    limb = [lines.get(name) for name in ("I", "II", "III")]
    gains = [line.gain for line in limb if line is not None and line.gain is not None]
    if len(gains) < 3 or len(set(gains)) == 1:
        return False
    millivolts = np.stack([ecg.lead(name) for name in ("I", "II", "III")]).astype(np.float64)
    baselines = [line.baseline for line in limb if line is not None]
    stored = millivolts * np.array(gains)[:, None] + np.array(baselines)[:, None]
    errors = [float(np.abs(x[2] - (x[1] - x[0])).max() / np.ptp(x)) for x in (stored, millivolts)]
    return errors[0] < 0.005 and errors[1] > 0.05
