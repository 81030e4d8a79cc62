"""SPH, Shandong Provincial Hospital (Liu et al., Sci Data 9:272, 2022; doi 10.6084/m9.figshare.c.5779802): AHA statements, HDF5.

Recordings of 10 to 60 s at 500 Hz, one file each, in mV as numbers of 16 bits. There is no official split; `Patient_ID` keeps patients
together.
"""

import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.qa.labels import main_axis, main_rhythm
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.plausibility import refuse_flat
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

from .csv_fields import number, read_table, row_error
from .mimic import statement_labels
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group

__all__ = ["load_sph", "read_sph"]

FS_HZ = 500.0
NOTES = (
    "split by patient (SPH has no official split)",
    "labels of cardiologists' AHA statements, by their wording in code.csv; what a modifier hedges is unknown",
)


def load_sph(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
) -> tuple[Dataset, LoadReport]:
    """Read SPH's tables into rows.

    Args:
        root: Folder with `metadata.csv`, `code.csv` and `records/*.h5`.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: "header" looks whether each file is there, "signal" reads every one, "none" trusts the table.

    Raises:
        ValueError: A table or column is missing.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    check_choice("check", check, ("header", "signal", "none"))
    root = Path(root).resolve()
    path = root / "metadata.csv"
    codes = {
        entry["Code"].strip(): entry["Description"].strip()
        for entry in read_table(root / "code.csv", ("Code", "Description"))
    }
    table = list(enumerate(read_table(path, ("ECG_ID", "AHA_Code", "Patient_ID", "N")), 1))
    groups = [entry["Patient_ID"].strip() or f"record {entry['ECG_ID']}" for _, entry in table]
    unknown: Counter[str] = Counter()
    makers = [
        (entry["ECG_ID"], partial(_row, root, path, i, entry, split, codes, unknown, check))
        for (i, entry), split in zip(table, split_by_group(groups, fractions=fractions, seed=seed), strict=True)
    ]
    read = None if check == "none" else read_sph
    rows, report = collect_rows(makers, "sph", on_bad=on_bad, notes=NOTES, read=read)
    if unknown:
        counts = ", ".join(f"{code} {n}" for code, n in unknown.most_common())
        report.notes.append(f"codes that stand in no row of code.csv, and are no labels: {counts}")
    return rows, report


def read_sph(
    row: Mapping[str, Any], root: str | os.PathLike[str], nan: Literal["raise", "interpolate"] = "raise"
) -> ECG:
    """Read a row of SPH.

    Raises:
        ECGRecordError: The file is missing, damaged or outside of the data folder.
    """
    described = ArrayDescription(FS_HZ, "mV", STANDARD_LEADS, "ecg")
    return refuse_flat(read_record(row["record"], root=root, nan=nan, description=described), row["record"])


def _row(
    root: Path,
    path: Path,
    i: int,
    entry: Mapping[str, str],
    split: str,
    codes: Mapping[str, str],
    unknown: Counter[str],
    check: Literal["header", "signal", "none"],
) -> dict[str, Any]:
    record = f"records/{entry['ECG_ID'].strip()}.h5"
    length = number(entry["N"])
    if not length:
        raise row_error(path, i, "N", entry["N"], "the number of samples")
    if check != "none" and not resolve_inside(record, root).is_file():
        raise ECGRecordError(root / record, "file", "missing", "an existing, readable file")
    statements = []
    for statement in filter(None, map(str.strip, entry["AHA_Code"].split(";"))):
        primary, *modifiers = statement.split("+")  # 60+310: a statement and what modifies it
        unknown.update(code for code in (primary, *modifiers) if code not in codes)
        words = [codes[code] for code in modifiers if code in codes]
        statements.append(", ".join([codes.get(primary, ""), *words]).strip(", "))
    labels, known = statement_labels(statements)
    if any(code not in codes for code in _primaries(entry["AHA_Code"])):
        known = labels  # an unknown statement may be of any label
    made = make_row(
        record,
        "sph",
        root,
        split,
        storage="sph",
        recording=f"sph {entry['ECG_ID'].strip()}",
        duration_s=length / FS_HZ,
        patient=entry["Patient_ID"].strip() or None,
        age=number(entry.get("Age")),
        sex={"m": "male", "f": "female"}.get((entry.get("Sex") or "").strip().lower()[:1]),
        labels=labels,
        known_labels=known,
        rhythm=main_rhythm(labels),
        axis=main_axis(labels),
        diagnoses=statements,
        report=". ".join(statements) + "." if statements else None,
    )
    if check == "signal":
        made["duration_s"] = read_sph(made, root).duration_s
    return made


def _primaries(field: str) -> list[str]:
    return [statement.split("+")[0].strip() for statement in field.split(";") if statement.strip()]
