"""My own folder: WFDB records and a CSV that says what they show."""

import os
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.qa.labels import main_axis, main_rhythm
from hf_evl_ecg.qa.prompts import MEASUREMENTS

from .csv_fields import number, read_table
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group
from .wfdb_records import check_wfdb, recording_keys

__all__ = ["load_folder"]

SEPARATORS = ";|"
COLUMNS = ("record", "patient", "split", "labels", "report", "age", "sex", *MEASUREMENTS)


def load_folder(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    *,
    known_labels: list[str] | None = None,
    gain_per_mv: float | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    missing: Literal["raise", "interpolate"] = "raise",
) -> tuple[Dataset, LoadReport]:
    """Read a folder of WFDB records with a table.

    The table needs the column `record` (path relative to the folder, without suffix). It may have `patient`, `split`
    (train, validation, test), `labels` (codes of `hf_evl_ecg.qa.labels.LABELS`, separated by `;` or `|`), `report`, `age`,
    `sex`, and the measurements `heart_rate` (beats per minute), `pr_interval`, `qrs_duration`, `qt_interval` (ms). Where
    no split is given, patients are kept together; where no patient is given either, records are split one by one and
    the report says so, as it names columns that are not used. Rows that name one recording in several spellings (`a`, `./a.hea`, a link, a copy) share its split.

    Args:
        root: The data folder; nothing outside it is read for a record.
        table: The CSV, by its path as it is or relative to the folder; None: the folder's `records.csv`.
        known_labels: Labels whose absence means "not there", for yes/no questions; None takes all that occur.
        gain_per_mv: As in `read_record`, for all records.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: As in `check_wfdb`.
        missing: What is done with missing samples, as `nan` of `read_record`; kept in the rows.

    Raises:
        ValueError: The table is missing, names an unknown label or split, or gives splits for some records only; a patient or
            recording is in two splits, or a recording has two patients.
        ECGRecordError: A bad record, with `on_bad="raise"`.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"record": ["af"], "patient": ["7"], "labels": ["AF"]})
        >>> table.to_csv("records/records.csv")
        >>> rows, report = load_folder("records")
        >>> print(report)
        records: 1 records, 0 skipped
          split by patient
    """
    root = Path(root).resolve()
    path = _find_table(root, table)
    entries = list(read_table(path, ("record",)))
    if not entries:
        raise ValueError(f"{path}: no rows")
    if empty := [i for i, entry in enumerate(entries, 1) if not entry["record"].strip()]:
        raise ValueError(f"{path}, row {empty[0]}: record='': must be the record's path relative to the folder")
    if longer := [i for i, entry in enumerate(entries, 1) if None in entry]:
        raise ValueError(f"{path}, row {longer[0]}: has more fields than the header has names (join labels by ; or |)")
    labels = [_labels(entry) for entry in entries]
    known = known_labels if known_labels is not None else []
    try:
        splits, notes = _splits(root, entries, fractions, seed)
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error
    if unused := [name for name in entries[0] if name and name not in COLUMNS]:
        notes.append(f"{path.name}: columns {', '.join(unused)} are not used; those that are: {', '.join(COLUMNS)}")

    # All rows before the first file: a fault of the table should not show after minutes of reading headers.
    rows = []
    for i, (entry, found, split) in enumerate(zip(entries, labels, splits, strict=True), 1):
        try:
            rows.append(_row(root, entry, found, split, known, gain_per_mv, missing))
        except ValueError as error:
            raise ValueError(f"{path}, row {i}: {error}") from error
    if known_labels is None:
        known = list(dict.fromkeys(label for found in labels for label in found))
        rows = [row | {"known_labels": known} for row in rows]
    makers = ((row["record"], partial(_checked, row, check)) for row in rows)
    return collect_rows(makers, root.name, on_bad=on_bad, notes=notes, check=check)


def _find_table(root: Path, table: str | os.PathLike[str] | None) -> Path:
    """The table by its path as it is given, as other programs take it, else in the data folder."""
    if table is None:
        return root / "records.csv"
    places = [Path(table), root / table]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ValueError(f"table={os.fspath(table)!r}: there is no such file, neither here nor in {root}")
    return found


def _checked(row: dict[str, Any], check: Literal["header", "signal", "none"]) -> dict[str, Any]:
    if check == "none":
        return row
    header = check_wfdb(row["record"], row["root"], check, row["gain_per_mv"], row["missing"])
    return row | {"duration_s": header.duration_s}


def _row(
    root: Path,
    entry: dict[str, str],
    labels: list[str],
    split: str,
    known: list[str],
    gain_per_mv: float | None,
    missing: Literal["raise", "interpolate"],
) -> dict[str, Any]:
    return make_row(
        entry["record"].strip(),
        root.name,
        root,
        split,
        gain_per_mv=gain_per_mv,
        missing=missing,
        patient=(entry.get("patient") or "").strip() or None,
        age=number(entry.get("age")),
        sex={"m": "male", "f": "female"}.get((entry.get("sex") or "").strip()[:1].lower()),
        labels=labels,
        known_labels=known,
        rhythm=main_rhythm(labels),
        axis=main_axis(labels),
        report=(entry.get("report") or "").strip() or None,
        **{name: number(entry.get(name)) for name in MEASUREMENTS},
    )


def _labels(entry: dict[str, str]) -> list[str]:
    text = entry.get("labels") or ""
    for separator in SEPARATORS[1:]:
        text = text.replace(separator, SEPARATORS[0])
    return list(dict.fromkeys(part.strip() for part in text.split(SEPARATORS[0]) if part.strip()))


def _splits(
    root: Path, entries: list[dict[str, str]], fractions: tuple[float, float, float], seed: int
) -> tuple[list[str], list[str]]:
    given = [(entry.get("split") or "").strip() for entry in entries]
    if all(given):
        return given, ["splits as the table gives them", *_same_recordings(root, entries)[1]]
    if any(given):
        raise ValueError(f"{sum(map(bool, given))} of {len(given)} records have a split: all must have one, or none")
    same, notes = _same_recordings(root, entries)
    patients = _patients(entries, same)
    groups = [f"patient {p}" if p else f"record {entries[i]['record']}" for p, i in zip(patients, same, strict=True)]
    unknown = patients.count("")
    note = "split by patient"
    if unknown == len(entries):
        note = "split by record, as no record names a patient: one who has several may be in two splits"
    elif unknown:
        note += f"; {unknown} of {len(entries)} records name no patient and are split by record"
    return split_by_group(groups, fractions=fractions, seed=seed), [note, *notes]


def _same_recordings(root: Path, entries: list[dict[str, str]]) -> tuple[list[int], list[str]]:
    """For each row the first one that names the same recording, under any spelling; and a note where that is another."""
    first: dict[Hashable, int] = {}
    same = []
    for i, entry in enumerate(entries):
        keys = recording_keys(entry["record"].strip(), root)
        same.append(next((first[key] for key in keys if key in first), i))
        first.update(dict.fromkeys(keys, same[-1]))
    again = [
        f"{entries[i]['record']} (row {i + 1}) is {entries[s]['record']} (row {s + 1})"
        for i, s in enumerate(same)
        if s < i
    ]
    shown = "; ".join(again[:5]) + ("; …" if len(again) > 5 else "")
    return same, [f"{len(again)} rows name a recording again: {shown}"] if again else []


def _patients(entries: list[dict[str, str]], same: list[int]) -> list[str]:
    """The patient of each row; one that is named in any row of a recording is that of all its rows."""
    named: dict[int, tuple[str, int]] = {}
    for i, entry in enumerate(entries):
        if patient := (entry.get("patient") or "").strip():
            before, row = named.setdefault(same[i], (patient, i + 1))
            if before != patient:
                where = f"row {i + 1}: record {entry['record']!r} is that of row {row}"
                raise ValueError(
                    f"{where}, with patient {patient!r} instead of {before!r}: a recording has one patient"
                )
    return [named[first][0] if first in named else "" for first in same]
