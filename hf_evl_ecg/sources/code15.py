"""CODE-15 % (Ribeiro et al., Nat Commun 11:1760, 2020; doi 10.5281/zenodo.4916206): exams of Brazilian telehealth, in HDF5.

Recordings of 7 or 10 s at 400 Hz are padded with zeros to 4,096 samples, in arrays of thousands; the padding is cut off when one is read.
There is no official split; `patient_id` keeps patients together.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.clinical.libraries import library
from hf_evl_ecg.qa.labels import main_rhythm
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.plausibility import refuse_flat
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

from .csv_fields import flag, number, read_table, row_error, whole_number
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group

__all__ = ["load_code15", "read_code15"]

COLUMNS = {"1dAVb": "I-AVB", "RBBB": "RBBB", "LBBB": "LBBB", "SB": "SBRAD", "ST": "STACH", "AF": "AF"}
NORMAL = "normal_ecg"
FS_HZ = 400.0
NOTES = (
    "split by patient (CODE-15 has no official split)",
    "labels of the telehealth service's reports, of six findings only; nothing is known of others",
    "voltages: taken as mV, as the 2025 Challenge's conversion takes them (the data set's own page contradicts itself)",
)


def load_code15(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
) -> tuple[Dataset, LoadReport]:
    """Read CODE-15's table into rows; exams whose part was not downloaded are left out, and counted.

    Args:
        root: Folder with `exams.csv` and any of `exams_part0.hdf5` to `exams_part17.hdf5`.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: "header" and "none" trust the arrays once an exam is found in them, "signal" reads every exam.

    Raises:
        ValueError: The table is missing or lacks a column, or no part is there.
        ECGRecordError: A bad exam, with `on_bad="raise"`; a part that is no such file, or h5py is missing.
    """
    check_choice("check", check, ("header", "signal", "none"))
    root = Path(root).resolve()
    path = root / "exams.csv"
    table = list(enumerate(read_table(path, ("exam_id", "patient_id", "trace_file", *COLUMNS)), 1))
    parts = {name: _places(root, name) for name in sorted({entry["trace_file"].strip() for _, entry in table})}
    there = [(i, entry) for i, entry in table if parts[entry["trace_file"].strip()] is not None]
    if not there:
        raise ValueError(f"{root}: none of {', '.join(parts)} is there (unpack at least one part beside exams.csv)")
    splits = split_by_group([_group(entry) for _, entry in there], fractions=fractions, seed=seed)
    makers = [
        (f"exam {entry['exam_id']}", partial(_row, root, path, i, entry, split, parts, check))
        for (i, entry), split in zip(there, splits, strict=True)
    ]
    rows, report = collect_rows(makers, "code-15", on_bad=on_bad, notes=NOTES, read=read_code15)
    if len(there) < len(table):
        report.notes.append(f"{len(table) - len(there)} of {len(table)} exams lie in parts that are not there")
    return rows, report


def read_code15(
    row: Mapping[str, Any], root: str | os.PathLike[str], nan: Literal["raise", "interpolate"] = "raise"
) -> ECG:
    """Read a row of CODE-15, without the zeros that it is padded with.

    Raises:
        ECGRecordError: The part is missing, damaged or outside of the data folder, or holds no such exam.
    """
    name, _, index = row["record"].partition("#")
    if not index.isdecimal():
        raise ECGRecordError(name, "exam", index, "its number in the part, as in exams_part0.hdf5#17")
    described = ArrayDescription(FS_HZ, "mV", STANDARD_LEADS, "tracings", int(index))
    return refuse_flat(read_record(name, root=root, nan=nan, description=described), row["record"])


def _places(root: Path, name: str) -> dict[int, int] | None:
    """Exam → its number in a part; None where the part is not there. Two places of an exam are none."""
    path = resolve_inside(name, root)
    if not path.is_file():
        return None
    h5py = library(path, "HDF5", "h5py")
    try:
        with h5py.File(path, "r") as file:
            exams = [int(exam) for exam in file["exam_id"][...]]
    except (OSError, KeyError, ValueError, TypeError) as error:
        found = f"damaged ({type(error).__name__})"
        raise ECGRecordError(path, "HDF5 content", found, "a part of CODE-15, with exam_id and tracings") from None
    return {exam: i for i, exam in enumerate(exams) if exam}  # the last place of a part is empty, with number 0


def _group(entry: Mapping[str, str]) -> str:
    patient = whole_number(entry["patient_id"])
    return f"patient {patient}" if patient else f"exam {entry['exam_id']}"


def _row(
    root: Path,
    path: Path,
    i: int,
    entry: Mapping[str, str],
    split: str,
    parts: Mapping[str, dict[int, int] | None],
    check: Literal["header", "signal", "none"],
) -> dict[str, Any]:
    name, exam = entry["trace_file"].strip(), whole_number(entry["exam_id"])
    place = (parts[name] or {}).get(int(exam)) if exam else None
    if place is None:
        raise row_error(path, i, "exam_id", entry["exam_id"], f"an exam of {name}")
    try:
        stated = {label: flag(entry[column]) for column, label in COLUMNS.items()}
        normal, male = flag(entry.get(NORMAL)), flag(entry.get("is_male"))
    except ValueError as error:
        raise row_error(path, i, "a label", str(error), "True or False in each column of labels") from error
    if normal is not None:
        stated["NORM"] = normal
    labels = [label for label, there in stated.items() if there]
    made = make_row(
        f"{name}#{place}",
        "code-15",
        root,
        split,
        storage="code15",
        recording=f"code-15 {exam}",
        patient=whole_number(entry["patient_id"]),
        age=number(entry.get("age")),
        sex=None if male is None else "male" if male else "female",
        labels=labels,
        known_labels=[label for label, there in stated.items() if there is not None],
        rhythm=main_rhythm(labels),
    )
    if check == "signal":
        made["duration_s"] = read_code15(made, root).duration_s
    return made
