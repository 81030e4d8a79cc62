"""One row per ECG: where it lies, what is known about it, which split it belongs to; and from a row back to the `ECG`.

Rows hold no samples, so a dataset of any size is a small table; loader workers read and draw on the fly.
"""

import csv
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_evl_ecg.qa.labels import unknown_labels
from hf_evl_ecg.records.reader import ECGRecordError, check_record, read_record, resolve_inside
from hf_evl_ecg.signals.ecg import ECG, crop, resample
from hf_evl_ecg.signals.simulation import simulate

from .zscored import SCALE_NOTE, restore_millivolts

__all__ = [
    "FEATURES",
    "SPLITS",
    "LoadReport",
    "collect_rows",
    "load_ecg",
    "make_row",
    "number",
    "read_table",
    "split_by_group",
    "whole_number",
]

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
STORAGES = ("wfdb", "zscored_npy", "simulated")
FEATURES = Features(
    {
        "record": Value("string"),
        "source": Value("string"),
        "storage": Value("string"),
        "root": Value("string"),
        "gain_per_mv": Value("float32"),
        "split": Value("string"),
        "patient": Value("string"),
        "age": Value("float32"),
        "sex": Value("string"),
        "labels": List(Value("string")),
        "known_labels": List(Value("string")),
        "rhythm": Value("string"),
        "axis": Value("string"),
        "diagnoses": List(Value("string")),
        "report": Value("string"),
        "heart_rate": Value("float32"),
        "pr_interval": Value("float32"),
        "qrs_duration": Value("float32"),
        "qt_interval": Value("float32"),
    }
)


@dataclass
class LoadReport:
    """What was read, what was left out and why, and what a reader of results must know.

    Attributes:
        source: Name of the dataset.
        n_rows: Records kept.
        skipped: (record, reason) of each record left out.
        notes: Facts about splits, labels or voltages that belong beside any result.
    """

    source: str
    n_rows: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.n_rows} records, {len(self.skipped)} skipped", *self.notes]
        return "\n  ".join(lines + [f"skipped {record}: {reason}" for record, reason in self.skipped])


def make_row(record: str, source: str, root: str | os.PathLike[str], split: str, **known: Any) -> dict[str, Any]:
    """Assemble a row; what is not given is None or empty, `storage` is "wfdb".

    Args:
        record: Path of the record relative to `root`, without suffix; for `.npy` files `name.npy#index`.
        source: Name of the dataset.
        root: Data folder that no path in the row may leave.
        split: One of `SPLITS`.
        known: Further columns of `FEATURES`.

    Raises:
        ValueError: Unknown split, column or label.
    """
    if split not in SPLITS:
        raise ValueError(f"record {record!r}: split is {split!r}; allowed: {SPLITS}")
    strangers = sorted(set(known) - set(FEATURES))
    if strangers:
        raise ValueError(f"unknown columns {strangers}; allowed: {list(FEATURES)}")
    unknown = unknown_labels([*known.get("labels", ()), *known.get("known_labels", ())])
    if unknown:
        raise ValueError(f"record {record!r}: unknown labels {unknown}; see hf_evl_ecg.qa.labels.LABELS")
    row: dict[str, Any] = dict.fromkeys(FEATURES)
    row.update(storage="wfdb", labels=[], known_labels=[], diagnoses=[])
    return row | known | {"record": record, "source": source, "root": os.fspath(root), "split": split}


def collect_rows(
    rows: Iterable[dict[str, Any]],
    source: str,
    *,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    notes: Sequence[str] = (),
) -> tuple[Dataset, LoadReport]:
    """Check each row's record and gather the good ones.

    Args:
        rows: Rows as `make_row` gives them.
        source: Name for the report.
        on_bad: "skip" leaves a bad record out, names it in the log and the report; "raise" stops at the first.
        check: "header" checks header and file sizes, "signal" reads every sample too, "none" trusts all.
        notes: Put into the report.

    Returns:
        The dataset with the columns of `FEATURES`, and the report.

    Raises:
        ECGRecordError: A bad record, with `on_bad="raise"`.
        ValueError: An unknown option, no good record at all, or a patient in two splits.
    """
    if on_bad not in ("skip", "raise") or check not in ("header", "signal", "none"):
        raise ValueError(
            f"on_bad={on_bad!r}, check={check!r}; allowed: 'skip' or 'raise'; 'header', 'signal' or 'none'"
        )
    report = LoadReport(source, notes=list(notes))
    good: list[dict[str, Any]] = []
    splits: dict[str, str] = {}
    for row in rows:
        try:
            _check(row, check)
        except ECGRecordError as error:
            if on_bad == "raise":
                raise
            report.skipped.append((row["record"], str(error)))
            continue
        if row["patient"] is not None and splits.setdefault(row["patient"], row["split"]) != row["split"]:
            both = f"{splits[row['patient']]} and {row['split']}"
            raise ValueError(f"{source}: patient {row['patient']} is in {both}; a patient belongs to one split")
        good.append(row)
    if report.skipped:
        names = ", ".join(record for record, _ in report.skipped[:10])
        logger.warning("%s: skipped %d bad records (%s)", source, len(report.skipped), names)
    if not good:
        raise ValueError(f"{source}: no readable record; {report}")
    report.n_rows = len(good)
    return Dataset.from_list(good, features=FEATURES), report


def load_ecg(
    row: Mapping[str, Any],
    *,
    root: str | os.PathLike[str] | None = None,
    fs_hz: float | None = None,
    duration_s: float | None = 10.0,
    nan: Literal["raise", "interpolate"] = "raise",
) -> ECG:
    """Read the ECG of a row: the transform that loader workers call.

    Args:
        row: A row with at least `record`, `storage`, `root`; `gain_per_mv` is used where it is there.
        root: Replaces the row's own data folder, for tables made on another machine.
        fs_hz: Resample to this rate (Hz).
        duration_s: Keep at most this many seconds from the start; None keeps all.
        nan: As in `read_record`.

    Raises:
        ECGRecordError: The record is malformed or would lie outside the data folder.
        ValueError: An unknown storage.
    """
    storage, base = row["storage"], root if root is not None else row["root"]
    if storage == "wfdb":
        path = resolve_inside(row["record"], base)
        ecg = read_record(path, root=base, nan=nan, gain_per_mv=row.get("gain_per_mv"))
    elif storage == "zscored_npy":
        ecg = _read_zscored(row["record"], base)
    elif storage == "simulated":
        ecg = _simulate(row["record"])
    else:
        raise ValueError(f"record {row['record']!r}: storage is {storage!r}; allowed: {STORAGES}")
    if duration_s is not None and ecg.duration_s > duration_s:
        ecg = crop(ecg, 0.0, duration_s)
    return ecg if fs_hz is None else resample(ecg, fs_hz)


def split_by_group(
    groups: Sequence[str], *, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> list[str]:
    """Assign a split to each item so that items of one group (patient) stay together.

    Groups are ordered by a hash of seed and name and cut at the fractions: the same on every machine, independent of the
    order of the items.

    Args:
        groups: The group of each item.
        fractions: Shares of groups for train, validation and test, summing to 1.
        seed: Another seed gives another split.

    Raises:
        ValueError: Fractions that are negative or do not sum to 1.

    Example:
        >>> split_by_group(["a", "b", "a"], fractions=(0.5, 0.0, 0.5))
        ['train', 'test', 'train']
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions are {fractions}; allowed: three shares for {SPLITS}, 0 or more, summing to 1")
    names = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    cuts = [round(fractions[0] * len(names)), round((fractions[0] + fractions[1]) * len(names))]
    split = {name: SPLITS[sum(i >= cut for cut in cuts)] for i, name in enumerate(names)}
    return [split[group] for group in groups]


def read_table(path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Read a CSV file with a header line, row by row; absent trailing fields are empty.

    Raises:
        ValueError: The file is missing or damaged, or lacks a needed column.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder that holds it")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no columns {missing}; it has {reader.fieldnames}")
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error


def number(text: str | None) -> float | None:
    """Return the number in a table's field, None where there is none.

    Example:
        >>> number("56.0"), number(""), number("nan")
        (56.0, None, None)
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None


def whole_number(text: str | None) -> str | None:
    """Return an identifier that a table stores as a float, as digits: "15709.0" → "15709"."""
    value = number(text)
    return None if value is None else str(int(value))


def _check(row: Mapping[str, Any], check: str) -> None:
    if check == "signal":
        load_ecg(row, duration_s=None)
    elif check == "header" and row["storage"] == "wfdb":
        check_record(resolve_inside(row["record"], row["root"]), root=row["root"])


def _read_zscored(record: str, root: str | os.PathLike[str]) -> ECG:
    """Read `name.npy#index`: int16 z-scores × 1000 at 100 Hz, shape (n, T, 12), as the filtered PTB-XL set stores them."""
    name, _, index = record.partition("#")
    path = resolve_inside(name, root)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ECGRecordError(path, "array", str(error), "an .npy file of int16") from error
    if array.ndim != 3 or array.shape[2] != 12 or array.dtype != np.int16:
        raise ECGRecordError(path, "array", f"{array.dtype} {array.shape}", "int16 of shape (n, T, 12)")
    if not index.isdecimal() or int(index) >= len(array):
        raise ECGRecordError(path, "row", index, f"0 to {len(array) - 1}")
    signal, solved = restore_millivolts(array[int(index)] / 1000.0)
    metadata = {"voltage_scale": SCALE_NOTE, "limb_ratios_from_signal": solved}
    return ECG(signal, 100.0, record_name=f"{path.stem}-{index}", comments=(SCALE_NOTE,), metadata=metadata)


def _simulate(record: str) -> ECG:
    """Simulate `label/seed`."""
    label, _, seed = record.partition("/")
    if not seed.isdecimal():
        raise ECGRecordError(record, "seed", seed, "'label/seed' with a whole number")
    return replace(simulate(label, seed=int(seed)), record_name=f"simulated-{label}-{seed}")
