"""WFDB header text → checked fields. Strict where a lenient parser would silently read a wrong number.

Grammar: https://physionet.org/physiotools/wag/header-5.htm. Nothing here opens a signal file or allocates by a number
that the header states.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hf_evl_ecg.signals.ecg import FS_RANGE_HZ, canonical_lead
from hf_evl_ecg.signals.errors import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.signals.units import mv_per_unit

from .header_text import decode_header

__all__ = ["ECGRecordError", "ECGRecordWarning", "Header", "SignalLine", "parse_header", "parse_header_text"]

# Far beyond any ECG: a header is text from anywhere, and memory is taken by what it says.
MAX_HEADER_BYTES = 1 << 20
MAX_SIGNALS = 1024
MAX_SAMPLES_PER_FRAME = 1024
FORMATS = ("8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")

_NAME = re.compile(r"[-\w]+")
_SIGNAL_FILE = re.compile(r"[-\w][-\w.+ ]*")
_FS = re.compile(r"(\d+\.?\d*|\.\d+)(/[^\s]*)?", re.ASCII)
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", re.ASCII)
_GAIN = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\(([-+]?\d+)\))?(?:/(\S+))?", re.ASCII)


@dataclass(frozen=True)
class SignalLine:
    """One signal line of a header.

    Attributes:
        file_name: Bare name of the signal file, in the header's folder.
        fmt: WFDB storage format, one of `FORMATS`.
        samples_per_frame: Samples of this signal in each frame.
        skew: Frames by which this signal lags in the file.
        byte_offset: Bytes (samples for the FLAC formats) before the first sample; 24 in the Challenge's `.mat` files.
        gain: Digital units per physical unit; None when the header is silent (200 by the standard), 0 when it says that the
            signal is not calibrated.
        baseline: Digital value of 0 physical units.
        units: Physical units, `mV` when the header is silent.
        initial_value: First sample, used by the difference format 8.
        checksum: Sum of the signal's samples modulo 65,536; None when the header is silent.
        name: Description field: the lead's name as the record spells it.
        lead: Its standard spelling; None for a channel that is none of the 12 leads.
    """

    file_name: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float | None
    baseline: int
    units: str
    initial_value: int
    checksum: int | None
    name: str
    lead: str | None

    @property
    def mv_per_unit(self) -> float | None:
        """Millivolts in one physical unit; None where the unit is no voltage."""
        return mv_per_unit(self.units)


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        path: The header file.
        record_name: Name on the record line.
        fs_hz: Frames per second.
        n_samples: Frames per signal, or None when the header is silent or says 0, which means the same.
        signals: Signal lines; empty for a multi-segment record.
        segments: (name, frames) of each segment; empty for a plain record.
        comments: Comment lines without `#`.
    """

    path: Path
    record_name: str
    fs_hz: float
    n_samples: int | None
    signals: tuple[SignalLine, ...]
    segments: tuple[tuple[str, int], ...]
    comments: tuple[str, ...]

    @property
    def duration_s(self) -> float | None:
        """Length in seconds, or None when the header is silent."""
        return None if self.n_samples is None else self.n_samples / self.fs_hz


def parse_header(path: Path) -> Header:
    """Read and check a header file.

    Args:
        path: The header file itself, suffix included.

    Raises:
        ECGRecordError: The file is missing, too large or empty, or a field is malformed or out of range.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ECGRecordError(path, "header file", "not a regular file", "a text file ending in .hea")
        if size > MAX_HEADER_BYTES:
            raise ECGRecordError(path, "header size", size, f"at most {MAX_HEADER_BYTES} bytes")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ECGRecordError):
            raise
        reason = "missing" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise ECGRecordError(path, "header file", reason, "an existing, readable file") from error
    try:
        text = decode_header(raw)
    except ValueError as error:
        raise ECGRecordError(path, "header file", str(error), "the text of a WFDB header") from error
    return parse_header_text(text, path)


def parse_header_text(text: str, path: Path) -> Header:
    r"""Parse a header's text; `path` is used in messages and kept in the result.

    Raises:
        ECGRecordError: A field is malformed or out of range.

    Example:
        >>> parse_header_text("r 1 500 10\nr.dat 16 1000/mV 16 0 0 0 0 II", Path("r.hea")).signals[0].gain
        1000.0
    """
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    body = [line for line in lines if line and not line.startswith("#")]
    if not body:
        raise ECGRecordError(
            path, "record line", "missing (empty header)", "'name n_sig fs n_samples' on the first line"
        )
    folder, name, n_segments, n_sig, fs_hz, n_samples = _record_line(body[0], path)
    rest, kind, count = body[1:], "n_sig", n_sig
    if n_segments is not None:
        kind, count = "n_seg", n_segments
    if len(rest) != count:
        raise ECGRecordError(path, kind, count, f"the number of lines that follow it, {len(rest)}")
    segments: tuple[tuple[str, int], ...] = ()
    signals: tuple[SignalLine, ...] = ()
    if n_segments is not None:
        segments = tuple(_segment_line(line, path) for line in rest)
    else:
        signals = tuple(_signal_line(line, path, folder) for line in rest)
        fastest = fs_hz * max(line.samples_per_frame for line in signals)
        if fastest < FS_RANGE_HZ[0]:
            allowed = f"{FS_RANGE_HZ[0]:g} to {FS_RANGE_HZ[1]:g} Hz, times samples per frame"
            raise ECGRecordError(path, "fs", f"{fastest:g}", allowed)
    return Header(path, name, fs_hz, n_samples, signals, segments, comments)


def _record_line(line: str, path: Path) -> tuple[str, str, int | None, int, float, int | None]:
    fields = line.split()
    folder, name, segments = _split_name(fields[0], path)
    if not _NAME.fullmatch(name):
        raise ECGRecordError(path, "record name", name, "letters, digits, '_' and '-' (no extension, no folder)")
    n_segments = None if segments is None else _integer(path, "n_seg", segments, 1, MAX_HEADER_BYTES)
    if len(fields) < 3:
        allowed = f"'name n_sig fs n_samples', fs from {FS_RANGE_HZ[0]:g} to {FS_RANGE_HZ[1]:g} Hz"
        raise ECGRecordError(path, "record line", line, allowed)
    n_sig = _integer(path, "n_sig", fields[1], 1, MAX_SIGNALS)
    match = _FS.fullmatch(fields[2])
    fs_hz = float(match[1]) if match else math.nan
    if not 0 < fs_hz <= FS_RANGE_HZ[1]:
        raise ECGRecordError(path, "fs", fields[2], f"{FS_RANGE_HZ[0]:g} to {FS_RANGE_HZ[1]:g} Hz")
    n_samples = _integer(path, "n_samples", fields[3], 0, None) or None if len(fields) > 3 else None
    return folder, name, n_segments, n_sig, fs_hz, n_samples


def _split_name(text: str, path: Path) -> tuple[str, str, str | None]:
    """Folder, name and number of segments of ``folder/name/n``.

    The standard knows no folder; wfdb writes one where a record was written with it, as PTB-XL+ has in its median beats.
    """
    folders, segments = text.replace("\\", "/").split("/"), None
    # "a/00001" is 1 segment where the file is called a, and the record 00001 of a folder where that is the file's name.
    if len(folders) > 1 and folders[-1].isdecimal() and (folders[-1] != path.stem or folders[-2] == path.stem):
        segments = folders.pop()
    name = folders.pop()
    if not all(_NAME.fullmatch(folder) for folder in folders):
        raise ECGRecordError(path, "record name", text, "letters, digits, '_' and '-' (no extension)")
    return "".join(f"{folder}/" for folder in folders), name, segments


def _segment_line(line: str, path: Path) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not (fields[0] == "~" or _NAME.fullmatch(fields[0])):
        raise ECGRecordError(path, "segment line", line, "'name n_samples', the name without folder or extension")
    return fields[0], _integer(path, "segment length", fields[1], 0, None)


def _signal_line(line: str, path: Path, folder: str) -> SignalLine:
    fields = line.split(maxsplit=8)
    if len(fields) < 2:
        raise ECGRecordError(path, "signal line", line, "'file format gain(baseline)/units ... description'")
    file_name = fields[0].replace("\\", "/").removeprefix(folder)  # the record's own folder, where its line has one
    if not _SIGNAL_FILE.fullmatch(file_name) or ".." in file_name:
        raise ECGRecordError(path, "signal file name", file_name, "a bare file name in the header's own folder")
    match = _FORMAT.fullmatch(fields[1])
    if not match or match[1] not in FORMATS:
        raise ECGRecordError(path, "format", fields[1], f"one of {', '.join(FORMATS)}")
    gain, baseline, units = _gain(fields[2], path) if len(fields) > 2 else (None, None, "mV")
    numbers = [_integer(path, "ADC field", text, -(2**31), 2**32) for text in fields[3:8]]
    adc_zero = numbers[1] if len(numbers) > 1 else 0
    name = fields[8].strip() if len(fields) > 8 else ""
    return SignalLine(
        file_name=file_name,
        fmt=match[1],
        samples_per_frame=_integer(path, "samples per frame", match[2] or "1", 1, MAX_SAMPLES_PER_FRAME),
        skew=_integer(path, "skew", match[3] or "0", 0, None),
        byte_offset=_integer(path, "byte offset", match[4] or "0", 0, None),
        gain=gain,
        baseline=adc_zero if baseline is None else baseline,
        units=units,
        initial_value=numbers[2] if len(numbers) > 2 else 0,
        # Written as a signed number of 16 bits by some, as an unsigned one by others.
        checksum=numbers[3] % 65536 if len(numbers) > 3 else None,
        name=name,
        lead=canonical_lead(name),
    )


def _gain(text: str, path: Path) -> tuple[float, int | None, str]:
    match = _GAIN.fullmatch(text)
    value = float(match[1]) if match else math.nan
    if not match or not 0 <= value < math.inf:
        allowed = "a positive number of digital units per physical unit, as in 1000(0)/mV"
        raise ECGRecordError(path, "gain", text, allowed)
    baseline = _integer(path, "baseline", match[2], -(2**31), 2**31) if match[2] else None
    return value, baseline, match[3] or "mV"


def _integer(path: Path, field: str, text: str, low: int, high: int | None) -> int:
    """Parse plain decimal digits within bounds; long digit strings are refused before conversion."""
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        value = int(text)
        if low <= value and (high is None or value <= high):
            return value
    _refuse_integer(path, field, text, low, high)


def _refuse_integer(path: Path, field: str, text: str, low: int, high: int | None) -> NoReturn:
    limit = f"{low} to {high}" if high is not None else f"{low} or more, of at most 18 digits"
    raise ECGRecordError(path, field, text, f"a whole number, {limit}")
