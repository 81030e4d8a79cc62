"""WFDB signal files → arrays, each file's size checked against the header before anything is allocated.

Formats: https://physionet.org/physiotools/wag/signal-5.htm. One open per file, no second parse of the header: what was
checked is what is read. The tests compare every format with `wfdb.rdrecord`.
"""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from .wfdb_header import ECGRecordError, ECGRecordWarning, Header, SignalLine

__all__ = ["check_sizes", "read_physical"]

BYTES_PER_SAMPLE = {"8": 1, "16": 2, "24": 3, "32": 4, "61": 2, "80": 1, "160": 2}
DTYPES = {"8": "<i1", "16": "<i2", "32": "<i4", "61": ">i2", "80": "<u1", "160": "<u2"}
BLOCKS = {"212": (2, 3), "310": (3, 4), "311": (3, 4)}  # samples per block, bytes per block
PARTIAL_BYTES = {"212": (0, 2), "310": (0, 2, 4), "311": (0, 2, 3)}  # bytes that 0, 1, 2 samples of a last block need
OFFSETS = {"80": 128, "160": 32768}
SIGN_BITS = {"212": 12, "310": 10, "311": 10}
FLAC_BITS = {"508": 8, "516": 16, "524": 24}
MISSING = {
    **{"80": -(2**7), "508": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11)},
    **dict.fromkeys(("16", "61", "160", "516"), -(2**15)),
    **{"24": -(2**23), "524": -(2**23), "32": -(2**31)},
}
MAX_FLAC_EXPANSION = 256  # samples per byte; real ECGs stay below 10
DEFAULT_GAIN = 200.0


def check_sizes(header: Header, files: dict[str, Path]) -> int:
    """Check each signal file's size against the header, and return the number of frames.

    A file that holds more than the header describes gives an `ECGRecordWarning`: it may belong to another header.

    Args:
        header: A header with signal lines.
        files: Signal file name → its path.

    Returns:
        Frames per signal: the header's number, or what the files hold when the header is silent.

    Raises:
        ECGRecordError: A file is missing or too short, signals of one file disagree, or a skew is longer than the record.
    """
    capacities = []
    for lines in _groups(header):
        first, path = lines[0], files[lines[0].file_name]
        if len({(line.fmt, line.byte_offset) for line in lines}) > 1:
            allowed = f"one format and offset for all signals in {first.file_name}"
            raise ECGRecordError(header.path, "format", sorted({line.fmt for line in lines}), allowed)
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise ECGRecordError(path, "signal file", error.strerror, "an existing, readable file") from error
        if not path.is_file():
            raise ECGRecordError(path, "signal file", "not a regular file", "a binary signal file")
        if path.suffix.lower() == ".mat" and _read_bytes(path, 0, min(6, size)).tobytes() == b"MATLAB":
            allowed = "a file of MATLAB 4 (scipy.io.savemat(..., format='4')), whose samples begin at byte 24, or plain samples"
            raise ECGRecordError(path, "signal file", "a file of MATLAB 5", allowed)
        per_frame = sum(line.samples_per_frame for line in lines)
        capacity = _capacity(first.fmt, size, first.byte_offset, path, len(lines)) // per_frame
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
            warnings.warn(text, ECGRecordWarning, stacklevel=4)
        capacities.append(capacity)
    n_frames = min(capacities) if header.n_samples is None else header.n_samples
    if not n_frames:
        raise ECGRecordError(header.path, "n_samples", 0, "at least 1; the signal file holds no complete frame")
    skew = max(line.skew for line in header.signals)
    if skew >= n_frames:
        raise ECGRecordError(header.path, "skew", skew, f"less than the record's {n_frames} frames")
    return n_frames


def read_physical(header: Header, files: dict[str, Path], n_frames: int) -> list[np.ndarray]:
    """Read every signal in its physical units; call `check_sizes` first.

    Samples that do not add up to the header's checksums give an `ECGRecordWarning`. As the format says, there is no checksum
    where the length is left out; nor is there where a header's are all 0, or where a signal is skewed.

    Args:
        header: The header.
        files: Signal file name → its path.
        n_frames: Frames to read, from `check_sizes`.

    Returns:
        One float64 array per signal line, shape (n_frames · samples_per_frame,); missing samples are NaN.

    Raises:
        ECGRecordError: A file changed or cannot be decoded.
    """
    signals, wrong = [], []
    checked = header.n_samples is not None and any(line.checksum for line in header.signals)
    for lines in _groups(header):
        path, fmt = files[lines[0].file_name], lines[0].fmt
        per_frame = sum(line.samples_per_frame for line in lines)
        digital = _decode(path, lines, n_frames * per_frame).reshape(n_frames, per_frame)
        start = 0
        for line in lines:
            stop = start + line.samples_per_frame
            frames = digital[:, start:stop]
            start = stop
            if fmt == "8":
                frames = (frames.reshape(-1).cumsum(dtype=np.int64) + line.initial_value).reshape(frames.shape)
            if checked and not line.skew and line.checksum not in (None, int(frames.sum(dtype=np.int64)) % 65536):
                wrong.append(line.name)
            values = frames.astype(np.float64)
            if fmt in MISSING:
                values[frames == MISSING[fmt]] = np.nan
            values = (values - line.baseline) / (line.gain or DEFAULT_GAIN)
            if line.skew:
                values[: -line.skew] = values[line.skew :].copy()
                values[-line.skew :] = np.nan
            signals.append(values.reshape(-1))
    if wrong:
        text = (
            f"{header.path}: samples of {', '.join(wrong)} do not add up to the header's checksums; the signal file is damaged or "
            "belongs to another record"
        )
        warnings.warn(text, ECGRecordWarning, stacklevel=4)
    return signals


def _groups(header: Header) -> list[list[SignalLine]]:
    """Split signal lines into runs that share a file, as the format demands."""
    groups: list[list[SignalLine]] = []
    for line in header.signals:
        if groups and groups[-1][0].file_name == line.file_name:
            groups[-1].append(line)
        elif any(group[0].file_name == line.file_name for group in groups):
            allowed = "signals of one file on consecutive lines"
            raise ECGRecordError(header.path, "signal file name", line.file_name, allowed)
        else:
            groups.append([line])
    return groups


def _capacity(fmt: str, size: int, offset: int, path: Path, channels: int) -> int:
    """Samples of all signals together that a file of `size` bytes holds after `offset`."""
    if fmt in FLAC_BITS:
        with _flac(path, fmt, channels) as stream:
            frames = max(0, stream.frames - offset)
        return min(frames * channels, size * MAX_FLAC_EXPANSION)
    usable = max(0, size - offset)
    if fmt in BYTES_PER_SAMPLE:
        return usable // BYTES_PER_SAMPLE[fmt]
    samples, width = BLOCKS[fmt]
    blocks, rest = divmod(usable, width)
    return blocks * samples + sum(1 for need in PARTIAL_BYTES[fmt][1:] if need <= rest)


def _decode(path: Path, lines: Sequence[SignalLine], n_samples: int) -> np.ndarray:
    """Read `n_samples` digital values, frame by frame and signal by signal within a frame."""
    fmt, offset = lines[0].fmt, lines[0].byte_offset
    if fmt in FLAC_BITS:
        return _decode_flac(path, lines, n_samples)
    if fmt in BLOCKS:
        samples, width = BLOCKS[fmt]
        blocks, rest = divmod(n_samples, samples)
        raw = _read_bytes(path, offset, blocks * width + PARTIAL_BYTES[fmt][rest])
        padded = np.zeros(math.ceil(n_samples / samples) * width, dtype=np.int32)
        padded[: len(raw)] = raw
        return _unpack_blocks(padded.reshape(-1, width), fmt)[:n_samples]
    raw = _read_bytes(path, offset, n_samples * BYTES_PER_SAMPLE[fmt])
    if fmt == "24":
        low, middle, high = raw.reshape(-1, 3).astype(np.int32).T
        return _signed(low + (middle << 8) + (high << 16), 24)
    return raw.view(DTYPES[fmt]).astype(np.int32) - OFFSETS.get(fmt, 0)


def _unpack_blocks(blocks: np.ndarray, fmt: str) -> np.ndarray:
    """Unpack bytes (n, width) of formats 212, 310 and 311 into signed samples."""
    if fmt == "212":
        a, b, c = blocks.T
        packed = [a + ((b & 0x0F) << 8), c + ((b >> 4) << 8)]
    elif fmt == "310":
        a, b, c, d = blocks.T
        packed = [(a >> 1) + ((b & 0x07) << 7), (c >> 1) + ((d & 0x07) << 7), (b >> 3) + ((d >> 3) << 5)]
    else:
        a, b, c, d = blocks.T
        packed = [a + ((b & 0x03) << 8), (b >> 2) + ((c & 0x0F) << 6), (c >> 4) + ((d & 0x3F) << 4)]
    return _signed(np.stack(packed, axis=1).reshape(-1), SIGN_BITS[fmt])


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement of `bits` bits."""
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values)


def _read_bytes(path: Path, offset: int, count: int) -> np.ndarray:
    try:
        raw = np.fromfile(path, dtype=np.uint8, count=count, offset=offset)
    except OSError as error:
        raise ECGRecordError(path, "signal file", error.strerror or str(error), "a readable file") from error
    if len(raw) != count:
        raise ECGRecordError(path, "signal bytes", len(raw), f"{count}: the file became shorter while it was read")
    return raw


def _flac(path: Path, fmt: str, channels: int) -> soundfile.SoundFile:
    try:
        stream = soundfile.SoundFile(path)
    except (OSError, RuntimeError) as error:
        raise ECGRecordError(path, "FLAC stream", str(error), f"a FLAC file, as format {fmt} says") from error
    bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(stream.subtype, 99)
    if stream.format != "FLAC" or bits > FLAC_BITS[fmt] or stream.channels != channels:
        found = f"{stream.format} {stream.subtype}, {stream.channels} channels"
        stream.close()
        allowed = f"FLAC of at most {FLAC_BITS[fmt]} bits and {channels} channels"
        raise ECGRecordError(path, "FLAC stream", found, allowed)
    return stream


def _decode_flac(path: Path, lines: Sequence[SignalLine], n_samples: int) -> np.ndarray:
    """Decode a FLAC file and bring it into the order of the other formats (frame, signal, sample of the frame)."""
    per_frame = lines[0].samples_per_frame
    if any(line.samples_per_frame != per_frame for line in lines):
        raise ECGRecordError(path, "samples per frame", "different", "the same for all signals of a FLAC file")
    with _flac(path, lines[0].fmt, len(lines)) as stream:
        shift = 32 - {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}[stream.subtype]
        try:
            stream.seek(lines[0].byte_offset)
            data = stream.read(n_samples // len(lines), dtype="int32", always_2d=True) >> shift
        except (OSError, RuntimeError) as error:
            raise ECGRecordError(path, "FLAC stream", str(error), "an undamaged FLAC file") from error
    if data.size != n_samples:
        raise ECGRecordError(path, "FLAC samples", int(data.size), f"{n_samples}, as the header says")
    return data.reshape(-1, per_frame, len(lines)).transpose(0, 2, 1).reshape(-1)
