"""The table of a data set: one row per ECG that says where it lies, what is known about it and which split it belongs to.

Rows hold no samples, so a dataset of any size is a small table; loader workers read and draw on the fly.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset, Features, List, Value
from tqdm.auto import tqdm

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.records.comments import OVER_89, age_in_years
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG

from .report import LoadReport, RecordWarnings
from .wfdb_records import DRAWN_S, recording_keys

__all__ = [
    "FEATURES",
    "SPLITS",
    "SplitCheck",
    "collect_rows",
    "make_row",
    "split_by_group",
    "with_missing",
]

logger = logging.getLogger(__name__)

SAMPLE = 24  # records of which samples are read where headers are checked: seconds at most, and a wrong gain concerns most records
BAR_AFTER_S = 3.0  # no bar for what is done by then
SPLITS = ("train", "validation", "test")
FEATURES = Features(
    {
        "record": Value("string"),
        "recording": Value("string"),
        "source": Value("string"),
        "storage": Value("string"),
        "root": Value("string"),
        "gain_per_mv": Value("float32"),
        "missing": Value("string"),
        "duration_s": Value("float32"),
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

# PTB-XL's records under its own names and the Challenge's.
_PTBXL_NAME = re.compile(r"(?:^|/)(?:HR(\d{5})|(\d{5})_[hl]r)(?:\.\w+)?$", re.IGNORECASE)


class SplitCheck:
    """Refuses a patient, or a recording under any spelling of its name, that is in two splits.

    Example:
        >>> check = SplitCheck()
        >>> check.add(make_row("af", "mine", "records", "train"))
        >>> check.add(make_row("./af.hea", "others", "records", "test"))
        Traceback (most recent call last):
        ValueError: others: record ./af.hea is in test and, as af of mine, in train: a recording belongs to one split
    """

    def __init__(self) -> None:
        self._patients: dict[tuple[str, str], str] = {}
        self._records: dict[Hashable, Mapping[str, Any]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one more row.

        Raises:
            ValueError: Its patient or recording is in another split.
        """
        source, split = row["source"], row["split"]
        if row["patient"] is not None:
            # Patients' numbers are those of the database, which a subset of it shares.
            before = self._patients.setdefault((source.removesuffix("-filtered"), row["patient"]), split)
            if before != split:
                text = f"{source}: patient {row['patient']} is in {before} and {split}: a patient belongs to one split"
                raise ValueError(text)
        wfdb = row["storage"] == "wfdb"
        keys = recording_keys(row["record"], row["root"]) if wfdb else [(row["root"], row["record"])]
        if row["recording"] is not None:
            keys.append(row["recording"])
        for key in keys:
            first = self._records.setdefault(key, row)
            if first["split"] != split:
                other = f"as {first['record']} of {first['source']}, in {first['split']}"
                raise ValueError(
                    f"{source}: record {row['record']} is in {split} and, {other}: a recording belongs to one split"
                )


def make_row(record: str, source: str, root: str | os.PathLike[str], split: str, **known: Any) -> dict[str, Any]:
    """Assemble a row; what is not given is None or empty, `storage` is "wfdb".

    `missing` says what is done with missing samples (`nan` of `read_record`), `duration_s` is the length of the whole record in seconds.
    `recording` is what a record is called in its database where other data sets hold it under other names: that of PTB-XL is known from
    its files' names.

    Args:
        record: Path of the record relative to `root`, without suffix; for `.npy` files `name.npy#index`.
        source: Name of the dataset.
        root: Data folder that no path in the row may leave.
        split: One of `SPLITS`.
        known: Further columns of `FEATURES`.

    Raises:
        ValueError: Unknown split, column or label.

    Example:
        >>> row = make_row("r1", "mine", "/data", "train", labels=["AF"])
        >>> row["labels"], row["storage"], row["age"]
        (['AF'], 'wfdb', None)
    """
    check_choice(f"record {record!r}: split", split, SPLITS)
    surplus = sorted(set(known) - set(FEATURES))
    if surplus:
        raise ValueError(f"unknown columns {surplus}: allowed are {list(FEATURES)}")
    for label in (*known.get("labels", ()), *known.get("known_labels", ())):
        try:
            label_text(label)
        except ValueError as error:
            raise ValueError(f"record {record!r}: {error}") from error
    if "age" in known:
        known["age"] = age_in_years(known["age"])
    row: dict[str, Any] = dict.fromkeys(FEATURES)
    row.update(storage="wfdb", labels=[], known_labels=[], diagnoses=[])
    if match := _PTBXL_NAME.search(record):
        row["recording"] = f"ptb-xl {int(match[1] or match[2])}"
    return row | known | {"record": record, "source": source, "root": os.fspath(root), "split": split}


def with_missing(rows: Dataset, missing: Sequence[str | None]) -> Dataset:
    """The rows with a column `missing`, where any of them departs from the rule that a missing sample is an error.

    Example:
        >>> with_missing(Dataset.from_dict({"record": ["a"]}), ["interpolate"]).column_names
        ['record', 'missing']
    """
    if not set(missing) - {None, "raise"}:
        return rows
    return rows.add_column("missing", list(missing), feature=FEATURES["missing"])


def collect_rows(
    makers: Iterable[tuple[str, Callable[[], dict[str, Any]]]],
    source: str,
    *,
    on_bad: Literal["skip", "raise"] = "skip",
    notes: Sequence[str] = (),
    check: Literal["header", "signal", "none"] | None = None,
    read: Callable[..., ECG] | None = None,
) -> tuple[Dataset, LoadReport]:
    """Make each record's row and gather the good ones.

    Args:
        makers: For each record its name, and a function that checks it and returns its row, or raises `ECGRecordError`.
        source: Name for the report.
        on_bad: "skip" leaves a bad record out, names it in the log and the report; "raise" stops at the first.
        notes: Put into the report.
        check: How far the makers check records. After "header", `SAMPLE` of them are read, so that the report says what looks wrong with
            their voltages.
        read: Reads a row whose storage is not WFDB, from the row, its data folder and ``nan``; then, too, `SAMPLE` are read.

    Returns:
        The dataset with the columns of `FEATURES`, and the report, which counts records that were warned of, by kind.

    Raises:
        ECGRecordError: A bad record, with `on_bad="raise"`.
        ValueError: An unknown option, no good record at all, or a patient or recording in two splits.
    """
    check_choice("on_bad", on_bad, ("skip", "raise"))
    report = LoadReport(source, notes=list(notes))
    good: list[dict[str, Any]] = []
    splits, warned = SplitCheck(), RecordWarnings()
    for record, make in tqdm(makers, desc=source, unit=" records", delay=BAR_AFTER_S, leave=False):
        try:
            with warned.of(record):
                row = make()
        except ECGRecordError as error:
            if on_bad == "raise":
                raise
            report.skipped.append((record, str(error)))
            continue
        splits.add(row)
        good.append(row)
    if report.skipped:
        names = ", ".join(record for record, _ in report.skipped[:10])
        logger.warning("%s: skipped %d bad records (%s)", source, len(report.skipped), names)
    if not good:
        raise ValueError(f"{source}: no readable record, {report}")
    report.n_rows = len(good)
    report.notes += warned.notes(len(good))
    if check == "header" or read is not None:
        report.notes += _read_some(good, read or _read_drawn)
    if lengths := [row["duration_s"] for row in good if (row["duration_s"] or 0) > DRAWN_S]:
        text = f"{len(lengths)} records last more than the {DRAWN_S:g} s that are drawn, up to {max(lengths):g} s"
        report.notes.append(f"{text}: their labels are of the whole record")
    if old := sum(row["age"] == OVER_89 for row in good):
        report.notes.append(f'{old} records of age {OVER_89:g}: so is "over 89" read, which PTB-XL writes as 300')
    return Dataset.from_list(good, features=FEATURES), report


def _read_drawn(row: Mapping[str, Any], root: str, nan: Literal["raise", "interpolate"]) -> ECG:
    return read_record(row["record"], root=root, nan=nan, gain_per_mv=row["gain_per_mv"], duration_s=DRAWN_S)


def _read_some(rows: Sequence[dict[str, Any]], read: Callable[..., ECG]) -> list[str]:
    """What looks wrong with the samples of some records, evenly taken."""
    some = [rows[i * len(rows) // SAMPLE] for i in range(SAMPLE)] if len(rows) > SAMPLE else rows
    warned = RecordWarnings()
    for row in some:
        try:
            with warned.of(row["record"]):
                read(row, row["root"], row["missing"] or "raise")
        except ECGRecordError as error:
            warned.add(
                row["record"], f"cannot be read: {error} (check='signal', --check signal, finds all such records)"
            )
    return warned.notes(len(some), " whose samples were read")


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
        raise ValueError(f"fractions={fractions}: three shares for {SPLITS} are needed, 0 or more, summing to 1")
    # A hash, not a shuffle: a record that is added or left out moves hardly any other into another split.
    names = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    cuts = [round(fractions[0] * len(names)), round((fractions[0] + fractions[1]) * len(names))]
    split = {name: SPLITS[sum(i >= cut for cut in cuts)] for i, name in enumerate(names)}
    return [split[group] for group in groups]
