"""Simulated records as rows, with the truth about their labels and intervals; never mixed up with patients."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset

from hf_evl_ecg.arguments import check_at_least, check_between, check_choice
from hf_evl_ecg.qa.labels import AXIS_LABELS, CPSC_CLASSES
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.ecg import ECG
from hf_evl_ecg.signals.simulation import simulate

from .report import LoadReport
from .table import SPLITS, collect_rows, make_row

__all__ = ["load_simulated", "read_simulated"]

RHYTHMS = ("SR", "SBRAD", "STACH", "AF")


def load_simulated(
    per_class: int, *, classes: Sequence[str] = CPSC_CLASSES, split: str = "train", seed: int = 0
) -> tuple[Dataset, LoadReport]:
    """Describe simulated records: classes, rate, PR, QRS and QT as drawn; the signal is simulated when it is loaded.

    Splits take disjoint seeds: record i of a class has seed 3 · (i + seed · 1,000,000) + the split's number.

    Args:
        per_class: Records of each class, at most 1,000,000.
        classes: Of the nine CPSC-2018 classes.
        split: Split of all rows.
        seed: Another seed gives other hearts.

    Raises:
        ValueError: An unknown class or split, or a number out of range.

    Example:
        >>> rows, report = load_simulated(2, classes=["AF"])
        >>> rows["record"][:]
        ['AF/0', 'AF/3']
    """
    check_choice("split", split, SPLITS)
    check_at_least("seed", seed, 0)
    check_between("per_class", per_class, 1, 1_000_000)  # beyond it the seeds of one call would be those of the next
    numbers = [3 * (i + seed * 1_000_000) + SPLITS.index(split) for i in range(per_class)]
    makers = [(f"{label}/{number}", partial(_row, label, number, split)) for number in numbers for label in classes]
    return collect_rows(makers, "simulated", notes=("simulated signals, not patients",))


def read_simulated(row: Mapping[str, Any], root: str | os.PathLike[str] = "", nan: str = "raise") -> ECG:
    """Simulate the record `label/seed` of a row; it has no files and misses no sample, so `root` and `nan` are without effect.

    Raises:
        ECGRecordError: The record's name is no `label/seed`.

    Example:
        >>> read_simulated({"record": "LBBB/7"}).record_name
        'simulated-LBBB-7'
    """
    label, _, seed = row["record"].partition("/")
    if not seed.isdecimal():
        raise ECGRecordError(row["record"], "seed", seed, "'label/seed' with a whole number")
    return simulate(label, seed=int(seed))


def _row(label: str, number: int, split: str) -> dict[str, Any]:
    # The truth does not depend on the sampling rate; a low one is simulated faster.
    truth = simulate(label, seed=number, fs_hz=100.0, duration_s=10.0).metadata
    axis = _axis(truth["axis_deg"])
    rhythm = "AF" if label == "AF" else _sinus(truth["heart_rate_bpm"])
    labels = [name for name in (label, axis, rhythm) if name is not None]
    return make_row(
        f"{label}/{number}",
        "simulated",
        "",
        split,
        storage="simulated",
        patient=f"simulated-{label}-{number}",
        labels=list(dict.fromkeys(labels)),
        known_labels=list(dict.fromkeys([*CPSC_CLASSES, *RHYTHMS, *AXIS_LABELS])),
        rhythm=rhythm,
        axis=axis,
        heart_rate=truth["heart_rate_bpm"],
        pr_interval=truth["pr_ms"],
        qrs_duration=truth["qrs_ms"],
        qt_interval=truth["qt_ms"],
    )


def _sinus(rate_bpm: float) -> str:
    if rate_bpm < 60:
        return "SBRAD"
    return "SR" if rate_bpm <= 100 else "STACH"


def _axis(degrees: float | None) -> str | None:
    """Label a frontal QRS axis: normal from -30 to 90 degrees, left to -90, right to 180."""
    if degrees is None:
        return None
    degrees = (degrees + 180.0) % 360.0 - 180.0
    if -30 <= degrees <= 90:
        return "AXN"
    return "LAD" if -90 <= degrees < -30 else ("RAD" if degrees > 90 else None)
