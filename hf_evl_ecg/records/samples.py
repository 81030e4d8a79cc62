"""WFDB signal files → arrays, read by `wfdb.rdrecord` once each file's size has been checked against the header.

`wfdb` believes a header: it allocates what a length asks for and opens what a name points to. It is therefore given a
header of its own, written from the fields that were checked, beside links to the files that were checked.
Formats: https://physionet.org/physiotools/wag/signal-5.htm.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import soundfile
import wfdb

from .header import ECGRecordError, ECGRecordWarning, Header, SignalLine
from .matlab import check_matlab

__all__ = ["DEFAULT_GAIN", "check_sizes", "read_physical"]

BLOCKS = {  # bytes needed by 0, 1, ... samples, up to a whole block
    **{"8": (0, 1), "80": (0, 1), "16": (0, 2), "61": (0, 2), "160": (0, 2), "24": (0, 3), "32": (0, 4)},
    **{"212": (0, 2, 3), "310": (0, 2, 4, 4), "311": (0, 2, 3, 4)},
}
FLAC_BITS = {"508": 8, "516": 16, "524": 24}
SUBTYPE_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_CALLER = 6  # stack frames up to the caller of read_record or check_record
MAX_FLAC_EXPANSION = 256  # samples per byte; real ECGs stay below 10
DEFAULT_GAIN = 200.0  # stored units per mV where a header is silent (WFDB_DEFGAIN)


def check_sizes(header: Header, files: dict[str, Path]) -> int:
    """Check each signal file's size against the header, and return the number of frames.

    A file that holds more than the header describes gives an `ECGRecordWarning`: it may belong to another header.

    Args:
        header: A header with signal lines.
        files: Name → path of the signal files that are needed; others need not be there.

    Returns:
        Frames per signal: the header's number, or what the files hold when the header is silent.

    Raises:
        ECGRecordError: A file is missing or too short, signals of one file disagree, or a skew is longer than the record.
    """
    capacities = []
    for lines in _groups(header, files):
        first, path = lines[0], files[lines[0].file_name]
        if len({(line.fmt, line.byte_offset) for line in lines}) > 1:
            allowed = f"one format and offset for all signals in {first.file_name}"
            raise ECGRecordError(header.path, "format", sorted({line.fmt for line in lines}), allowed)
        size = _file_size(path, lines, header)
        per_frame = sum(line.samples_per_frame for line in lines)
        capacity = _capacity(lines, size, path) // per_frame
        if header.n_samples is not None and header.n_samples > capacity:
            needed = f"{header.n_samples} frames of {per_frame} samples in format {first.fmt}"
            raise ECGRecordError(
                header.path,
                "n_samples",
                header.n_samples,
                f"1 to {capacity}: {path.name} has {size} bytes, too few for {needed} after offset {first.byte_offset}",
            )
        if header.n_samples is not None and header.n_samples < capacity:
            text = (
                f"{header.path}: the header describes {header.n_samples} frames of {per_frame} samples in format {first.fmt}, "
                f"and {path.name} holds {capacity}; header and signal file may not belong together"
            )
            warnings.warn(text, ECGRecordWarning, stacklevel=_CALLER)
        capacities.append(capacity)
    n_frames = min(capacities) if header.n_samples is None else header.n_samples
    if not n_frames:
        raise ECGRecordError(header.path, "n_samples", 0, "at least 1; the signal file holds no complete frame")
    skew = max(line.skew for line in header.signals if line.file_name in files)
    if skew >= n_frames:
        raise ECGRecordError(header.path, "skew", skew, f"less than the record's {n_frames} frames")
    return n_frames


def read_physical(header: Header, files: dict[str, Path], n_frames: int, start: int = 0) -> list[np.ndarray | None]:
    """Read the signals of some files in their physical units; call `check_sizes` first.

    Samples of a record that is read to its end and that do not add up to the header's checksums give an `ECGRecordWarning`. As the format says, there is no checksum
    where the length is left out; nor is there where a header's are all 0, or where a signal is skewed.

    Args:
        header: The header.
        files: Name → path of the signal files that are read.
        n_frames: Frames to read; nothing of what follows them is read.
        start: Frames that are passed over before; together with ``n_frames`` at most those of `check_sizes`.

    Returns:
        One float64 array per signal line, shape (n_frames · samples_per_frame,), None for those of other files; missing samples are NaN.

    Raises:
        ECGRecordError: A file changed or cannot be decoded.
    """
    signals: dict[int, np.ndarray] = {}
    wrong: list[str] = []
    checked = header.n_samples == n_frames and any(line.checksum for line in header.signals)
    for lines in _groups(header, files):
        record = _read_file(files[lines[0].file_name], lines, n_frames, start)
        sums = record.calc_checksum(expanded=True)
        for line, total, values in zip(lines, sums, record.dac(expanded=True), strict=True):
            if checked and not line.skew and line.checksum not in (None, total):
                wrong.append(line.name)
            if shift := line.skew * line.samples_per_frame:
                values = np.concatenate([values[shift:], np.full(shift, np.nan)])
            signals[id(line)] = values
    if wrong:
        text = (
            f"{header.path}: samples of {', '.join(wrong)} do not add up to the header's checksums; the signal file is damaged or "
            "belongs to another record"
        )
        warnings.warn(text, ECGRecordWarning, stacklevel=_CALLER)
    return [signals.get(id(line)) for line in header.signals]


def _groups(header: Header, files: Collection[str]) -> list[list[SignalLine]]:
    """Split signal lines into runs that share a file, as the format demands, and keep those of the given files."""
    groups: list[list[SignalLine]] = []
    for line in header.signals:
        if groups and groups[-1][0].file_name == line.file_name:
            groups[-1].append(line)
        elif any(group[0].file_name == line.file_name for group in groups):
            allowed = "signals of one file on consecutive lines"
            raise ECGRecordError(header.path, "signal file name", line.file_name, allowed)
        else:
            groups.append([line])
    return [group for group in groups if group[0].file_name in files]


def _file_size(path: Path, lines: list[SignalLine], header: Header) -> int:
    """Size in bytes of a readable, regular file whose samples lie where a header can say."""
    try:
        size = os.stat(path).st_size
        if not path.is_file():
            raise ECGRecordError(path, "signal file", "not a regular file", "a binary signal file")
        if path.suffix.lower() == ".mat":
            check_matlab(path, lines, header.n_samples)
    except OSError as error:
        allowed = f"an existing, readable file, as {header.path.name} names it"
        raise ECGRecordError(path, "signal file", error.strerror, allowed) from error
    return size


def _capacity(lines: list[SignalLine], size: int, path: Path) -> int:
    """Samples of all signals together that a file of `size` bytes holds after its offset."""
    fmt, offset = lines[0].fmt, lines[0].byte_offset
    if fmt in FLAC_BITS:
        frames = max(0, _flac_frames(path, lines) - offset)
        return min(frames * len(lines), size * MAX_FLAC_EXPANSION)
    needs = BLOCKS[fmt]
    blocks, rest = divmod(max(0, size - offset), needs[-1])
    return blocks * (len(needs) - 1) + sum(need <= rest for need in needs[1:])


def _flac_frames(path: Path, lines: list[SignalLine]) -> int:
    """Samples per channel that a FLAC file declares, if its kind is what the header says."""
    fmt = lines[0].fmt
    try:
        info = soundfile.info(path)
    except (OSError, RuntimeError) as error:
        raise ECGRecordError(path, "FLAC stream", str(error), f"a FLAC file, as format {fmt} says") from error
    if info.format != "FLAC" or SUBTYPE_BITS.get(info.subtype, 99) > FLAC_BITS[fmt] or info.channels != len(lines):
        found = f"{info.format} {info.subtype}, {info.channels} channels"
        allowed = f"FLAC of at most {FLAC_BITS[fmt]} bits and {len(lines)} channels"
        raise ECGRecordError(path, "FLAC stream", found, allowed)
    if len({line.samples_per_frame for line in lines}) > 1:
        raise ECGRecordError(path, "samples per frame", "different", "the same for all signals of a FLAC file")
    return info.frames


def _read_file(path: Path, lines: list[SignalLine], n_frames: int, start: int) -> wfdb.Record:
    """Read the digital samples of one signal file, not yet shifted by their skew, ``n_frames`` from ``start``.

    Skew is left to the caller: wfdb 4.3.1 fails on skewed signals of formats 8 and 508 to 524, and marks too few samples as
    missing where a frame holds several.
    """
    fmt = lines[0].fmt
    stop = start + n_frames
    begin = 0 if fmt == "8" else start  # differences have to be added up from the first
    # Samples of all signals take turns in a file, so it reads the same as one signal of many samples a frame; wfdb 4.3.1 takes half a
    # millisecond for each line of a header. Not where a signal's samples belong together: differences, and the channels of FLAC.
    as_one = fmt != "8" and fmt not in FLAC_BITS
    per_frame = [line.samples_per_frame for line in lines]
    layouts = [sum(per_frame)] if as_one else per_frame
    text = [f"record {len(layouts)} 1 {stop}"]
    for line, samples in zip(lines, layouts, strict=False):
        layout = f"{fmt}x{samples}+{line.byte_offset}"
        text.append(f"signals.dat {layout} 1(0)/mV 16 0 {line.initial_value} 0 0")
    # wfdb opens what a header names: it gets this one, beside a link to the one file that was checked, and nothing else.
    with tempfile.TemporaryDirectory(prefix="wfdb_") as folder:
        record_path = os.path.join(folder, "record")
        Path(f"{record_path}.hea").write_text("\n".join(text), encoding="ascii")
        try:
            _link(path, Path(folder, "signals.dat"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about wfdb 4.3.1's own calls
                own = {"physical": fmt == "61", "smooth_frames": False, "ignore_skew": True}
                record = wfdb.rdrecord(record_path, sampfrom=begin, sampto=stop, **own)
        except MemoryError:
            raise
        except Exception as error:  # whatever wfdb stumbles over in damaged bytes
            field = "FLAC stream" if fmt in FLAC_BITS else "signal bytes"
            allowed = f"{n_frames} frames of {len(lines)} signals in format {fmt}, readable by wfdb"
            raise ECGRecordError(path, field, f"{type(error).__name__}: {error}", allowed) from error
    if fmt == "61":  # of the big-endian format, wfdb 4.3.1 gives no integers
        record.adc(expanded=True, inplace=True)
    if fmt == "311":  # of a block's two unused bits, wfdb 4.3.1 reads one as part of the third sample
        record.e_d_signal = [(samples + 512) % 1024 - 512 for samples in record.e_d_signal]
    if as_one:
        frames = record.e_d_signal[0].reshape(-1, sum(per_frame))
        ends = np.cumsum(per_frame)
        record.e_d_signal = [frames[:, end - n : end].ravel() for end, n in zip(ends, per_frame, strict=True)]
        record.n_sig, record.fmt, record.samps_per_frame = len(lines), [fmt] * len(lines), per_frame
    if begin < start:
        record.e_d_signal = [
            samples[start * line.samples_per_frame :] for line, samples in zip(lines, record.e_d_signal, strict=True)
        ]
    record.adc_gain = [line.gain or DEFAULT_GAIN for line in lines]
    record.baseline = [line.baseline for line in lines]
    return record


def _link(source: Path, target: Path) -> None:
    """Let `target` be `source`: a link, or a copy on a system without links or without the right to make them."""
    try:
        os.symlink(source.resolve(), target)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)
