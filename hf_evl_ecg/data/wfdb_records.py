"""Rows whose ECG is a WFDB record: how a loader checks one, and how it is read when its row is used."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.records.header import Header
from hf_evl_ecg.records.reader import check_record, read_header, read_record
from hf_evl_ecg.signals.ecg import ECG

__all__ = ["check_wfdb", "read_wfdb"]


def check_wfdb(
    record: str,
    root: str | os.PathLike[str],
    check: Literal["header", "signal", "none"],
    gain_per_mv: float | None = None,
) -> Header:
    """Check a record as far as a loader was asked to, and return its header.

    Args:
        record: Path relative to `root`, without suffix.
        root: The data folder; nothing outside it is read.
        check: "header" checks header and file sizes, "signal" reads every sample too, "none" reads the header only.
        gain_per_mv: As in `read_record`.

    Raises:
        ECGRecordError: The record is malformed, as far as it was looked at, or would lie outside the data folder.
        ValueError: Another kind of check.
    """
    check_choice("check", check, ("header", "signal", "none"))
    if check == "header":
        return check_record(record, root=root)
    if check == "signal":
        read_record(record, root=root, gain_per_mv=gain_per_mv)
    return read_header(record, root=root)


def read_wfdb(
    row: Mapping[str, Any], root: str | os.PathLike[str], nan: Literal["raise", "interpolate"] = "raise"
) -> ECG:
    """Read the record that a row names; `gain_per_mv` is used where the row has it.

    Raises:
        ECGRecordError: As `read_record`.
    """
    return read_record(row["record"], root=root, nan=nan, gain_per_mv=row.get("gain_per_mv"))
