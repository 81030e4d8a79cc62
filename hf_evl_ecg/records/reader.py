"""A recording on disk → `ECG` in millivolts, or one typed error that says what is wrong with it.

WFDB records are read here, other formats are recognised by their content and read by `hf_evl_ecg.clinical`. Lead names of any usual spelling and order, units of any size, any sampling rate, one or several signal files and
segments. A record's header and the names inside it are not trusted: sizes are checked before memory is taken, and no
name can lead out of the record's folder.
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.clinical.archive import ZIP, unzipped
from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.clinical.content import READ, WAY_OUT, recognise
from hf_evl_ecg.clinical.reading import read_clinical
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS, canonical_leads

from .comments import OVER_89, age_in_years, read_comments
from .header import ECGRecordError, ECGRecordWarning, Header, parse_header
from .missing import describe_spans, is_digitised, treat_gaps
from .paths import find_file, find_header
from .plausibility import warn_about_scale, warn_about_voltages
from .segments import count_frames, read_leads

__all__ = ["check_record", "read_header", "read_record"]

LARGEST_MV = 3.4e38  # float32; beyond it a voltage would silently become infinite


def read_record(
    path: str | os.PathLike[str],
    lead_order: Sequence[str] = STANDARD_LEADS,
    *,
    root: str | os.PathLike[str] | None = None,
    nan: Literal["raise", "interpolate"] = "raise",
    gain_per_mv: float | None = None,
    duration_s: float | None = None,
    start_s: float = 0.0,
    description: ArrayDescription | None = None,
    keep_identity: bool = False,
) -> ECG:
    """Read a WFDB record, or a file as hospitals keep them, as a 12-lead ECG in millivolts.

    All formats of the WFDB library, several signal files, segments, several samples per frame, skew and byte offsets
    are understood. DICOM waveforms, HL7 aECG, GE MUSE and Philips Sierra XML, SCP-ECG and EDF(+) are recognised by their
    content (extra ``clinical``), CSV, HDF5 and NumPy files with a description of them, and zip archives with one ECG.
    III, aVR, aVL and aVF are computed from I and II where they are absent (named in `metadata["derived_leads"]`); other channels
    are ignored. Amplitudes no heart produces give an
    `ImplausibleAmplitudeWarning`; an `ECGRecordWarning` tells of a gain left out, gains that scale each lead to its own range
    (as LUDB's do), limb leads that contradict each other, wrong checksums, and signal files longer than the header says. Flat
    leads are in `ECG.flat_leads`.

    Args:
        path: The record's path without suffix, or its header or signal file, or a file of another format; relative to `root` where
            there is one.
        lead_order: Order of the columns, all 12 standard leads.
        root: Folder that the header and its signal files must not leave, symbolic links resolved. Without it the
            header may lie anywhere, and its signal files must lie beside it.
        nan: What to do with samples marked as missing: "raise", or "interpolate" linearly within each lead (the ends
            hold their nearest value; counts in `metadata["interpolated_samples"]`; a lead that is half missing raises). Neither concerns
            digitised paper, of which most leads hold one stretch of at most half the time: what lies outside of the stretches stays NaN
            (`ECG.allow_missing`), with an `ECGRecordWarning`.
        gain_per_mv: Stored units per mV of every lead, for headers known to be wrong; replaces gain, baseline and units, and
            stands in the metadata. Of WFDB only.
        duration_s: Read so many seconds only, and nothing of what follows (checksums, which are of all samples, are not compared
            then); the whole length is in `metadata["recorded_s"]`. None reads all.
        start_s: Where to begin, and nothing of what comes before is read; it stands in the metadata.
        description: What the numbers of a CSV, HDF5 or NumPy file are; None: the file with ``.json`` behind its name says so.
        keep_identity: Keep the patient's name and number, the birth date and free text of a clinical file in
            `metadata["identity"]`; else they are dropped when it is read.

    Returns:
        The ECG: `signal_mv` float32 (T, 12), `fs_hz`, comments, diagnoses; age in years (90 may mean "over 89": `age_note`) and sex in
            `metadata`, and the `format` of what is not WFDB.

    Raises:
        ECGRecordError: The record is malformed or is no 12-lead ECG; it names file, field, value and what is allowed.
        ValueError: `lead_order`, `nan`, `gain_per_mv` or `duration_s` is not an allowed value, or not one for this format.

    Example:
        >>> ecg = read_record("records/af")
        >>> ecg.signal_mv.shape, ecg.fs_hz, ecg.diagnoses
        ((5000, 12), 500.0, ('Rhythm: Atrial fibrillation.',))
    """
    order = canonical_leads(lead_order)
    check_choice("nan", nan, ("raise", "interpolate"))
    if gain_per_mv is not None and not 0 < gain_per_mv < math.inf:
        raise ValueError(f"gain_per_mv={gain_per_mv}: allowed is a positive number of stored units per mV, or None")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise ValueError(f"duration_s={duration_s}: allowed is a positive number of seconds, or None for all")
    if not 0 <= start_s < math.inf:
        raise ValueError(f"start_s={start_s}: allowed is 0 or a positive number of seconds")
    file = find_file(path, root)
    kind = None if file is None else _kind(file)
    if file is not None and kind == ZIP:
        with unzipped(file) as inside:
            return read_record(
                inside, order, root=inside.parent, nan=nan, gain_per_mv=gain_per_mv, duration_s=duration_s, start_s=start_s,
                description=description, keep_identity=keep_identity,
            )  # fmt: skip
    if file is not None and kind is not None:
        if gain_per_mv is not None:
            raise ValueError(f"gain_per_mv={gain_per_mv}: {file.name} is {kind}, which states its own (leave it out)")
        return _read_clinical(file, kind, order, nan, (start_s, duration_s), description, keep_identity)
    if description is not None and file is not None:
        raise ECGRecordError(file, "format", "not recognised", "CSV, HDF5 or NumPy, as a description is given")
    if description is not None:
        raise ValueError("description: is for CSV, HDF5 and NumPy files (leave it out for WFDB)")
    header = read_header(path, root=root)
    notes = read_comments(header.comments)
    metadata = _about(notes.age, notes.sex)
    if gain_per_mv is not None:
        metadata["gain_per_mv"] = float(gain_per_mv)
    try:
        read = read_leads(header, root, gain_per_mv, duration_s, start_s)
    except MemoryError as error:
        raise ECGRecordError(header.path, "n_samples", str(header.n_samples), "as many as fit into memory") from error
    if read.derived:
        metadata["derived_leads"] = read.derived
    signal = np.stack([read.millivolts[name] for name in order], axis=1)
    if len(signal) < round(read.recorded_s * read.fs_hz):
        metadata |= _stretch(read.recorded_s, start_s)
    signal, digitised = _without_gaps(signal, read.fs_hz, order, nan, header.path, metadata)
    ecg = ECG(signal, read.fs_hz, order, header.record_name, header.comments, notes.diagnoses, metadata, digitised)
    warn_about_scale(ecg, header, gain_per_mv, read.parts)
    return ecg


def check_record(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Header:
    """Check all of a record that can be checked without reading samples, and return its header, its length filled in.

    Args:
        path: The record's path without suffix, or its header or signal file; relative to `root` where there is one.
        root: Folder that the header and its signal files must not leave.

    Raises:
        ECGRecordError: As `read_record`, except for missing samples and damaged compressed data.

    Example:
        >>> check_record("records/af").n_samples
        5000
    """
    header = read_header(path, root=root)
    return replace(header, n_samples=count_frames(header, root))


def read_header(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Header:
    """Read a record's header only: sampling rate, length, leads, comments, without touching a signal file.

    Args:
        path: The record's path without suffix, or its header or signal file; relative to `root` where there is one.
        root: Folder that the header must not leave.

    Raises:
        ECGRecordError: The header is missing, malformed or outside `root`; or the path is a folder or another kind of file.

    Example:
        >>> [line.lead for line in read_header("records/af").signals][:3]
        ['I', 'II', 'III']
    """
    return parse_header(find_header(path, root))


def _kind(file: Path) -> str | None:
    """A format of `READ`, or "zip"; None for what is left to WFDB."""
    try:
        kind = recognise(file)
    except OSError as error:
        raise ECGRecordError(file, "file", error.strerror, "a readable file") from error
    if kind in WAY_OUT:
        raise ECGRecordError(file, "format", kind, WAY_OUT[kind])
    return kind


def _read_clinical(
    file: Path,
    kind: str,
    order: tuple[str, ...],
    nan: str,
    stretch_s: tuple[float, float | None],
    description: ArrayDescription | None,
    keep_identity: bool,
) -> ECG:
    assert kind in READ
    start_s, duration_s = stretch_s
    found = read_clinical(file, kind, description, start_s, duration_s)
    metadata = _about(age_in_years(found.age), found.sex) | {"format": kind}
    if found.derived:
        metadata["derived_leads"] = found.derived
    if keep_identity:
        metadata["identity"] = dict(found.identity)
    signal = np.stack([found.millivolts[name] for name in order], axis=1)
    begin = round(start_s * found.fs_hz) - round(found.start_s * found.fs_hz)
    length = found.recorded_s or len(signal) / found.fs_hz
    if begin >= len(signal):
        raise ECGRecordError(file, "start_s", start_s, f"less than the record's {length:g} s")
    whole = len(signal)
    signal = signal[begin:][: None if duration_s is None else max(1, round(duration_s * found.fs_hz))]
    if found.recorded_s or len(signal) < whole:
        metadata |= _stretch(length, start_s)
    signal, digitised = _without_gaps(signal, found.fs_hz, order, nan, file, metadata)
    ecg = ECG(signal, found.fs_hz, order, file.stem, metadata=metadata, allow_missing=digitised)
    for note in found.notes:
        warnings.warn(f"{file}: {note}", ECGRecordWarning, stacklevel=3)
    warn_about_voltages(ecg, file, found.gains)
    return ecg


def _stretch(recorded_s: float, start_s: float) -> dict[str, float]:
    """What the metadata of a part of a record say of where it lies."""
    return {"recorded_s": recorded_s} | ({"start_s": float(start_s)} if start_s else {})


def _about(age: float | None, sex: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"age": age, "sex": sex}
    return metadata | {"age_note": "over 89, or 90"} if age == OVER_89 else metadata


def _without_gaps(
    signal: np.ndarray, fs_hz: float, order: Sequence[str], nan: str, path: Path, metadata: dict[str, Any]
) -> tuple[np.ndarray, bool]:
    """Samples that fit into float32, gaps treated as asked for; and whether it is digitised paper, which is blank in between."""
    peak = np.abs(signal).max()
    if peak < LARGEST_MV:  # and no value is missing: NaN is no less than anything
        return signal, False
    if not (np.isnan(signal) | (np.abs(signal) < LARGEST_MV)).all():
        raise ECGRecordError(path, "signal", "beyond the range of float32", "voltages in mV")
    digitised = is_digitised(signal, fs_hz)
    signal, filled = treat_gaps(signal, order, nan, path, digitised=digitised)
    if filled:
        metadata["interpolated_samples"] = filled
    if digitised:
        spans = describe_spans(signal, order, fs_hz)
        text = f"{path}: each lead holds a stretch of its own, as digitised paper does, and is blank elsewhere: {spans}"
        warnings.warn(text, ECGRecordWarning, stacklevel=3)
    return signal, digitised
