"""MIMIC-IV-ECG (Gow et al., PhysioNet 2023; doi 10.13026/4nqg-sb35): WFDB records with a machine's statements and measurements.

What is known of a record is what the electrocardiograph said, not a cardiologist: what it hedges is taken for unknown. There is no
official split; `subject_id` keeps patients together.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.qa.labels import AXIS_LABELS, main_axis, main_rhythm
from hf_evl_ecg.qa.prompts import MEASUREMENTS
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside

from .csv_fields import number, read_table, row_error, whole_number
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group
from .wfdb_records import check_wfdb

__all__ = ["load_mimic_iv_ecg", "statement_labels"]

# Statements of electrocardiographs (GE, AHA) in lower case → label.
_PATTERNS = (
    (r"^(sinus rhythm\W*)?normal ecg\b", "NORM"),
    (r"\binfarct", "MI"),
    (r"\batrial fibrillation", "AF"),
    (r"\batrial flutter", "AFLT"),
    (r"\bsinus rhythm", "SR"),
    (r"\bsinus bradycardia", "SBRAD"),
    (r"\bsinus tachycardia", "STACH"),
    (r"\bsinus arrhythmia", "SARRH"),
    (r"\bsupraventricular tachycardia", "SVTAC"),
    (r"\b(paced|pacing|pacemaker)\b", "PACE"),
    (r"\b(1st|first)[- ]degree|prolonged pr interval|pr prolongation", "I-AVB"),
    (r"\b(2nd|second)[- ]degree|mobitz|wenckebach|\b2:1 a-?v block", "II-AVB"),
    (r"\b(3rd|third)[- ]degree|complete (heart|a-?v) block", "III-AVB"),
    (r"\bincomplete left bundle", "ILBBB"),
    (r"\bincomplete right bundle", "IRBBB"),
    (r"(?<!incomplete )\bleft bundle[- ]branch block", "LBBB"),
    (r"(?<!incomplete )\bright bundle[- ]branch block", "RBBB"),
    (r"\bleft anterior (fascicular|hemi)", "LAFB"),
    (r"\bleft posterior (fascicular|hemi)", "LPFB"),
    (r"\bintraventricular conduction (delay|defect|disturbance)", "IVCD"),
    (r"\bpre-?excitation|wolff", "WPW"),
    (r"\batrial premature|premature atrial|\bpacs?\b|supraventricular (extrasystole|ectopic|premature)", "PAC"),
    (
        r"(?<!supra)\bventricular premature|premature ventricular|\bpvcs?\b|(?<!supra)\bventricular (extrasystole|ectopic)",
        "PVC",
    ),
    (r"\bst[- ](segment )?depression", "STD"),
    (r"\bst[- ](segment )?elevation", "STE"),
    (r"\bt[- ]wave inversion|inverted t", "TINV"),
    (r"\bt[- ]wave (abnormalit|change)", "TAB"),
    (r"\bleft ventricular hypertrophy|\blvh\b", "LVH"),
    (r"\bright ventricular hypertrophy|\brvh\b", "RVH"),
    (r"\bleft atrial (enlargement|abnormality|hypertrophy)", "LAE"),
    (r"\bright atrial (enlargement|abnormality|hypertrophy)", "RAE"),
    (r"\blow (qrs )?voltage|low[- ]qrs voltage", "LVOLT"),
    (r"\b(prolonged|long) qt|\bqt (interval )?prolong", "LQT"),
    (r"\bleft[- ]axis deviation", "LAD"),
    (r"\bright[- ]axis deviation", "RAD"),
)
STATEMENTS = tuple((re.compile(pattern), label) for pattern, label in _PATTERNS)
_HEDGED = re.compile(
    r"\b(possible|possibly|probable|probably|consider|cannot (be )?rule|may be|could be|suggest|borderline|questionable|versus|vs)\b"
)
_DENIED = re.compile(r"\b(no|not|without|absent|except)\b")
_UNREADABLE = re.compile(
    r"poor data quality|not suitable|unsuitable|uninterpretable|all 12 leads are missing|lead.* missing|artifact"
)
MISSING_MS = 29_999.0
REPORTS = tuple(f"report_{i}" for i in range(18))
NOTES = (
    "split by patient (MIMIC-IV-ECG has no official split)",
    "labels of the electrocardiograph's own statements, not of cardiologists; what it hedges (possible, consider …) is unknown",
    "intervals of the electrocardiograph's median beat",
)


def load_mimic_iv_ecg(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    missing: Literal["raise", "interpolate"] = "raise",
) -> tuple[Dataset, LoadReport]:
    """Read MIMIC-IV-ECG's tables into rows; records of the list that were not downloaded are left out, and counted.

    Args:
        root: Folder with `record_list.csv`, `machine_measurements.csv` and `files/`.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: As in `check_wfdb`.
        missing: What is done with missing samples, as `nan` of `read_record`; kept in the rows.

    Raises:
        ValueError: A table or column is missing, a study stands in a table twice, or no record is there.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    root = Path(root).resolve()
    path = root / "record_list.csv"
    table = list(enumerate(read_table(path, ("subject_id", "study_id", "path")), 1))
    there = [(i, entry) for i, entry in table if _is_there(root, entry["path"].strip())]
    if not there:
        raise ValueError(f"{path}: none of its {len(table)} records is there (give the folder that holds files/, too)")
    wanted = {entry["study_id"].strip() for _, entry in there}
    machine: dict[str, dict[str, str]] = {}
    for i, entry in enumerate(
        read_table(root / "machine_measurements.csv", ("study_id", "rr_interval", "report_0")), 1
    ):
        study = entry["study_id"].strip()
        if study in machine:
            raise ValueError(f"{root / 'machine_measurements.csv'}, row {i}: study {study} stands there twice")
        if study in wanted:
            machine[study] = entry
    splits = split_by_group([entry["subject_id"].strip() for _, entry in there], fractions=fractions, seed=seed)
    makers = [
        (entry["path"].strip(), partial(_row, root, path, i, entry, split, machine, check, missing))
        for (i, entry), split in zip(there, splits, strict=True)
    ]
    rows, report = collect_rows(makers, "mimic-iv-ecg", on_bad=on_bad, notes=NOTES, check=check)
    if len(there) < len(table):
        report.notes.append(f"{len(table) - len(there)} of {len(table)} records of the list are not there")
    return rows, report


def statement_labels(statements: Iterable[str]) -> tuple[list[str], list[str]]:
    """What a machine's statements say: labels that are there, and labels of which it is known whether they are.

    A statement that hedges or denies makes its labels unknown, unless another one states them. Where the machine says that it could not
    read the record, nothing is known but what it states.

    Example:
        >>> there, known = statement_labels(["Atrial fibrillation", "Possible left ventricular hypertrophy"])
        >>> there, "RBBB" in known, "LVH" in known
        (['AF'], True, False)
    """
    stated: dict[str, None] = {}
    hedged: set[str] = set()
    texts = [text.strip().lower() for text in statements if text.strip()]
    for text in texts:
        found = [label for pattern, label in STATEMENTS if pattern.search(text)]
        if _HEDGED.search(text) or _DENIED.search(text):
            hedged.update(found)
        else:
            stated.update(dict.fromkeys(found))
    readable = texts and not any(_UNREADABLE.search(text) for text in texts)
    everything = dict.fromkeys(label for _, label in STATEMENTS) if readable else stated
    axis = {label for label in AXIS_LABELS if label in stated}
    known = [label for label in everything if label not in hedged - stated.keys()]
    # No statement about the axis is none that it is normal.
    return list(stated), [label for label in known if label not in AXIS_LABELS or label in axis]


def _is_there(root: Path, record: str) -> bool:
    try:
        return bool(record) and resolve_inside(f"{record}.hea", root).is_file()
    except ECGRecordError:
        return True  # its row says what is wrong with it


def _row(
    root: Path,
    path: Path,
    i: int,
    entry: Mapping[str, str],
    split: str,
    machine: Mapping[str, Mapping[str, str]],
    check: Literal["header", "signal", "none"],
    missing: Literal["raise", "interpolate"],
) -> dict[str, Any]:
    record, study = entry["path"].strip(), entry["study_id"].strip()
    subject = whole_number(entry["subject_id"])
    if subject is None:
        raise row_error(path, i, "subject_id", entry["subject_id"], "a number")
    header = check_wfdb(record, root, check, nan=missing)
    said = machine.get(study, {})
    statements = [text.strip() for name in REPORTS if (text := said.get(name) or "").strip()]
    labels, known = statement_labels(statements)
    return make_row(
        record,
        "mimic-iv-ecg",
        root,
        split,
        missing=missing,
        duration_s=header.duration_s,
        patient=subject,
        labels=labels,
        known_labels=known,
        rhythm=main_rhythm(labels),
        axis=main_axis(labels),
        diagnoses=statements,
        report=". ".join(text.rstrip(".") for text in statements) + "." if statements else None,
        **_measured(said, labels),
    )


def _measured(said: Mapping[str, str], labels: Iterable[str]) -> dict[str, float | None]:
    """Heart rate and intervals of the machine; None where it measured none or what no heart has."""
    stated = {name: number(said.get(name)) for name in ("rr_interval", "p_onset", "qrs_onset", "qrs_end", "t_end")}
    at = {name: value for name, value in stated.items() if value is not None and 0 < value < MISSING_MS}

    def between(start: str, end: str) -> float | None:
        return at[end] - at[start] if start in at and end in at else None

    values = {
        "heart_rate": 60_000 / at["rr_interval"] if "rr_interval" in at else None,
        # Of fibrillation and flutter what is marked as P is no P wave.
        "pr_interval": None if {"AF", "AFLT"} & set(labels) else between("p_onset", "qrs_onset"),
        "qrs_duration": between("qrs_onset", "qrs_end"),
        "qt_interval": between("qrs_onset", "t_end"),
    }
    ranges = {name: MEASUREMENTS[name].plausible for name in values}
    return {
        name: v if v is not None and ranges[name][0] <= v <= ranges[name][1] else None for name, v in values.items()
    }
