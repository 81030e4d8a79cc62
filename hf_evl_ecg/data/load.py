"""From a row of a table back to its `ECG`."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.signals.ecg import ECG, crop, resample
from hf_evl_ecg.sources.code15 import read_code15
from hf_evl_ecg.sources.simulated import read_simulated
from hf_evl_ecg.sources.sph import read_sph
from hf_evl_ecg.sources.wfdb_records import read_wfdb
from hf_evl_ecg.sources.zscored import read_zscored

__all__ = ["load_ecg"]

READERS = {"zscored_npy": read_zscored, "simulated": read_simulated, "code15": read_code15, "sph": read_sph}


def load_ecg(
    row: Mapping[str, Any],
    *,
    root: str | os.PathLike[str] | None = None,
    fs_hz: float | None = None,
    duration_s: float | None = 10.0,
    nan: Literal["raise", "interpolate"] | None = None,
) -> ECG:
    """Read the ECG of a row: the transform that loader workers call.

    Args:
        row: A row with at least `record`, `storage`, `root`; `gain_per_mv` and `missing` are used where they are there.
        root: Replaces the row's own data folder, for tables made on another machine.
        fs_hz: Resample to this rate (Hz).
        duration_s: Read at most this many seconds from the start; None reads all.
        nan: As in `read_record`; None follows the row's `missing`, which says how the data set was prepared.

    Raises:
        ECGRecordError: The record is malformed or would lie outside the data folder.
        ValueError: An unknown storage.

    Example:
        >>> load_ecg({"record": "AF/0", "storage": "simulated", "root": ""}, fs_hz=250, duration_s=5).signal_mv.shape
        (1250, 12)
    """
    check_choice(f"record {row['record']!r}: storage", row["storage"], ("wfdb", *READERS))
    policy = nan if nan is not None else row.get("missing") or "raise"
    place = row["root"] if root is None else root
    if row["storage"] == "wfdb":  # records of a day and longer: only what is used is read
        ecg = read_wfdb(row, place, policy, duration_s)
    else:
        ecg = READERS[row["storage"]](row, place, policy)
    if duration_s is not None and ecg.duration_s > duration_s:
        ecg = crop(ecg, 0.0, duration_s)
    return ecg if fs_hz is None else resample(ecg, fs_hz)
