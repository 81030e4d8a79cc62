"""Rows whose ECG is a WFDB record: how a loader checks one, how it is read when its row is used, and which rows name the same."""

import hashlib
import os
import re
from collections.abc import Hashable, Mapping
from typing import Any, Literal

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.records.header import MAX_HEADER_BYTES, ECGRecordError, Header
from hf_evl_ecg.records.paths import find_header
from hf_evl_ecg.records.plausibility import refuse_flat
from hf_evl_ecg.records.reader import check_record, read_header, read_record
from hf_evl_ecg.records.warned import gather_warnings, say_once
from hf_evl_ecg.signals.ecg import ECG

__all__ = ["DRAWN_S", "check_wfdb", "read_wfdb", "recording_keys"]

DRAWN_S = 10.0  # of a record that are drawn
WHOLE_S = 120.0  # up to here records are read whole when they are checked
# A signal line with a checksum that is not 0: such a header is of one recording only.
_SUMMED = re.compile(rb"^\S+ +\S+ +\S+ +\S+ +\S+ +[-+]?\d+ +[-+]?0*[1-9]", re.MULTILINE)


def check_wfdb(
    record: str,
    root: str | os.PathLike[str],
    check: Literal["header", "signal", "none"],
    gain_per_mv: float | None = None,
    nan: Literal["raise", "interpolate"] = "raise",
) -> Header:
    """Check a record as far as a loader was asked to, and return its header, with its length unless nothing was checked.

    Args:
        record: Path relative to `root`, without suffix.
        root: The data folder; nothing outside it is read.
        check: "header" checks header and file sizes, "signal" reads every sample too (of records of more than `WHOLE_S` seconds the
            first `DRAWN_S`), "none" reads the header only.
        gain_per_mv: As in `read_record`.
        nan: As in `read_record`.

    Raises:
        ECGRecordError: The record is malformed, as far as it was looked at, or would lie outside the data folder.
        ValueError: Another kind of check.
    """
    check_choice("check", check, ("header", "signal", "none"))
    if check == "none":
        return read_header(record, root=root)
    header = check_record(record, root=root)
    if check == "signal":
        long = (header.n_samples or 0) > WHOLE_S * header.fs_hz
        limit = DRAWN_S if long else None
        refuse_flat(read_record(record, root=root, gain_per_mv=gain_per_mv, nan=nan, duration_s=limit), record)
    return header


def read_wfdb(
    row: Mapping[str, Any],
    root: str | os.PathLike[str],
    nan: Literal["raise", "interpolate"] = "raise",
    duration_s: float | None = None,
) -> ECG:
    """Read the record that a row names; `gain_per_mv` is used where the row has it.

    Of what looks wrong it is warned once for each kind and data folder.

    Raises:
        ECGRecordError: As `read_record`.
    """
    with gather_warnings() as warned:
        ecg = read_record(row["record"], root=root, nan=nan, gain_per_mv=row.get("gain_per_mv"), duration_s=duration_s)
    say_once(warned, os.fspath(root))
    return refuse_flat(ecg, row["record"])


def recording_keys(record: str, root: str | os.PathLike[str]) -> list[Hashable]:
    """What two names of one recording have in common, whatever their spelling: `a`, `./a`, `a.hea`, a link, a copy of its files.

    Args:
        record: Path relative to `root`, with or without suffix.
        root: The data folder.

    Returns:
        Keys of the header file and of its text (where that holds checksums); of the path alone where there is no such file.

    Example:
        >>> recording_keys("af", "records") == recording_keys("./af.hea", "records")
        True
    """
    try:
        header = find_header(record, root)
        status = os.stat(header)
        text = header.read_bytes() if status.st_size < MAX_HEADER_BYTES else b""
    except (ECGRecordError, OSError, ValueError):
        return [os.path.normpath(os.path.join(root, record))]
    keys: list[Hashable] = [(status.st_dev, status.st_ino)]
    return [*keys, hashlib.sha256(text).hexdigest()] if _SUMMED.search(text) else keys
