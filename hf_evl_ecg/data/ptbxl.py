"""PTB-XL (Wagner et al., Sci Data 7:154, 2020; doi 10.13026/kfzx-aw45) and its filtered, z-scored subset.

Folds 1-8 train, 9 validation, 10 test, by patient, as its authors recommend.
"""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.qa.labels import AXIS_LABELS, PTBXL_SUPERCLASSES, main_axis, main_rhythm

from .csv_fields import number, read_table, whole_number
from .table import LoadReport, collect_rows, make_row, split_by_group
from .wfdb_records import check_wfdb
from .zscored import read_zscored

__all__ = ["SCP_LABELS", "load_ptbxl", "load_ptbxl_filtered", "parse_scp_codes", "ptbxl_superclasses"]

SCP_LABELS = {
    **{
        "NORM": "NORM",
        "AFIB": "AF",
        "1AVB": "I-AVB",
        "2AVB": "II-AVB",
        "3AVB": "III-AVB",
        "CLBBB": "LBBB",
        "CRBBB": "RBBB",
    },
    **{code: code for code in ("ILBBB", "IRBBB", "LAFB", "LPFB", "IVCD", "WPW")},
    **{"PAC": "PAC", "PVC": "PVC", "STD_": "STD", "STE_": "STE", "TAB_": "TAB", "NT_": "TAB", "INVT": "TINV"},
    **{"LVH": "LVH", "RVH": "RVH", "LAO/LAE": "LAE", "RAO/RAE": "RAE", "LVOLT": "LVOLT", "LNGQT": "LQT", "SR": "SR"},
    **{"SBRAD": "SBRAD", "STACH": "STACH", "SARRH": "SARRH", "AFLT": "AFLT", "SVTAC": "SVTAC", "PSVT": "SVTAC"},
    "PACE": "PACE",
}
AXES = {"MID": "AXN", "LAD": "LAD", "ALAD": "LAD", "RAD": "RAD", "ARAD": "RAD"}
FILTERED_COLUMNS = {
    **{"sinus_rhythm": "SR", "sinus_bradycardia": "SBRAD", "sinus_tachycardia": "STACH", "sinus_arrhythmia": "SARRH"},
    **{"atrial_fibrillation": "AF", "atrial_flutter": "AFLT", "premature_atrial_contraction": "PAC"},
    **{"first_degree_av_block": "I-AVB", "left_bundle_branch_block": "LBBB", "incomplete_rbbb": "IRBBB"},
    **{"left_anterior_fascicular_block": "LAFB", "left_axis_deviation": "LAD", "right_axis_deviation": "RAD"},
    **{"t_wave_abnormal": "TAB", "t_wave_inversion": "TINV"},
}
FILTERED_NOTES = (
    "voltages are estimated (the source is z-scored per lead): no question on hypertrophy or low voltage can be asked",
    "patients are kept together where they are known, other records are split by record: a patient may be in two splits",
)

_SCP = re.compile(r"'([^']{1,20})':\s*([0-9]+(?:\.[0-9]+)?)")


def load_ptbxl(
    root: str | os.PathLike[str],
    *,
    sampling_rate: Literal[500, 100] = 500,
    min_likelihood: float = 0.0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
) -> tuple[Dataset, LoadReport]:
    """Read PTB-XL's tables into rows: superclasses, statements, rhythm, axis, report, official folds.

    Args:
        root: Folder with `ptbxl_database.csv`, `scp_statements.csv` and the records.
        sampling_rate: 500 Hz (`filename_hr`) or 100 Hz (`filename_lr`) records.
        min_likelihood: Leave out diagnostic statements less likely than this (0 to 100); 0 keeps all, as the
            benchmark of Strodthoff et al. (IEEE JBHI 2021) does.
        on_bad: As in `collect_rows`.
        check: As in `collect_rows`.

    Raises:
        ValueError: A table or column is missing, or an option is unknown.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    check_choice("sampling_rate", sampling_rate, (500, 100))
    root = Path(root).resolve()
    classes = _diagnostic_classes(root / "scp_statements.csv")
    column = "filename_hr" if sampling_rate == 500 else "filename_lr"
    row = partial(_row, root, classes=classes, min_likelihood=min_likelihood, column=column, check=check)
    table = read_table(root / "ptbxl_database.csv", ("ecg_id", "scp_codes", "strat_fold", "filename_hr"))
    makers = ((entry[column], partial(row, entry)) for entry in table)
    notes = ("official folds: 1-8 train, 9 validation, 10 test, by patient",)
    return collect_rows(makers, "ptb-xl", on_bad=on_bad, notes=notes)


def load_ptbxl_filtered(
    root: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["signal", "none"] = "none",
) -> tuple[Dataset, LoadReport]:
    """Read the filtered PTB-XL subset: `x100hz_int16.npy` (z × 1000) with `labels.csv`.

    It holds PTB-XL's folds 1-8 but for a record or two, which keep their official split. Patients are kept together where they are known;
    other records are split by record, and the report says so. Records whose limb leads contradict each other
    (`qc_flag`) are skipped.

    Args:
        root: Folder of the subset.
        fractions: Shares of train, validation and test.
        seed: Seed of the split.
        on_bad: As in `collect_rows`.
        check: "signal" reads every record, "none" trusts the array.

    Raises:
        ValueError: A table or column is missing.
    """
    root = Path(root).resolve()
    entries = list(read_table(root / "labels.csv", ("row", "ecg_id", "labels18_known", *FILTERED_COLUMNS)))
    flagged = [entry for entry in entries if entry.get("qc_flag")]
    entries = [entry for entry in entries if not entry.get("qc_flag")]
    groups = [
        f"patient {p}" if (p := whole_number(entry.get("patient_id"))) else f"record {entry['ecg_id']}"
        for entry in entries
    ]
    splits = split_by_group(groups, fractions=fractions, seed=seed)
    folds = [number(entry.get("strat_fold")) for entry in entries]
    # Folds 9 and 10 keep their official split: what is tested on PTB-XL must not have been trained on here.
    splits = [_fold_split(f"{fold}") if (fold or 0) > 8 else split for fold, split in zip(folds, splits, strict=True)]

    makers = [
        (_array_record(entry), partial(_filtered_row, root, entry, split, check))
        for entry, split in zip(entries, splits, strict=True)
    ]
    dataset, report = collect_rows(makers, "ptb-xl-filtered", on_bad=on_bad, notes=FILTERED_NOTES)
    report.skipped += [(_array_record(entry), entry["qc_flag"]) for entry in flagged]
    return dataset, report


def parse_scp_codes(text: str) -> dict[str, float]:
    """Parse PTB-XL's `scp_codes` column, code → likelihood in percent (0: not stated), without evaluating it.

    Example:
        >>> parse_scp_codes("{'NORM': 100.0, 'SR': 0.0}")
        {'NORM': 100.0, 'SR': 0.0}
    """
    return {code: float(value) for code, value in _SCP.findall(text)}


def ptbxl_superclasses(codes: Mapping[str, float], classes: Mapping[str, str]) -> list[str]:
    """Return the diagnostic superclasses of the statements, in the order of `PTBXL_SUPERCLASSES`.

    Args:
        codes: Statement → likelihood.
        classes: Statement → superclass, from `scp_statements.csv`.

    Example:
        >>> ptbxl_superclasses({"IMI": 35.0, "SR": 0.0}, {"IMI": "MI"})
        ['MI']
    """
    found = {classes[code] for code in codes if code in classes}
    return [name for name in PTBXL_SUPERCLASSES if name in found]


def _row(
    root: Path,
    entry: Mapping[str, str],
    *,
    classes: Mapping[str, str],
    min_likelihood: float,
    column: str,
    check: Literal["header", "signal", "none"],
) -> dict[str, Any]:
    record = entry[column]
    if check != "none":  # the tables say all there is to know
        check_wfdb(record, root, check)
    codes = parse_scp_codes(entry["scp_codes"])
    kept = {code: p for code, p in codes.items() if code not in classes or p >= min_likelihood}
    labels = [*ptbxl_superclasses(kept, classes), *(SCP_LABELS[code] for code in kept if code in SCP_LABELS)]
    labels = list(dict.fromkeys(labels))
    known = list(dict.fromkeys((*PTBXL_SUPERCLASSES, *SCP_LABELS.values())))
    axis = AXES.get(entry.get("heart_axis", ""))
    return make_row(
        record,
        "ptb-xl",
        root,
        _fold_split(entry["strat_fold"]),
        patient=whole_number(entry.get("patient_id")),
        age=number(entry.get("age")),
        sex={"0": "male", "1": "female"}.get(entry.get("sex", "")),
        labels=[*labels, axis] if axis else labels,
        known_labels=[*known, *AXIS_LABELS] if axis else known,
        rhythm=main_rhythm(labels),
        axis=axis,
        diagnoses=list(codes),
        report=entry.get("report") or None,
    )


def _filtered_row(root: Path, entry: Mapping[str, str], split: str, check: Literal["signal", "none"]) -> dict[str, Any]:
    known = entry["labels18_known"] == "1"
    found = [label for column, label in FILTERED_COLUMNS.items() if known and (number(entry[column]) or 0) > 0]
    superclasses = [c for c in (entry.get("superclass") or "").split("|") if c in PTBXL_SUPERCLASSES]
    labels_known = [*FILTERED_COLUMNS.values()] if known else []
    row = make_row(
        _array_record(entry),
        "ptb-xl-filtered",
        root,
        split,
        storage="zscored_npy",
        patient=whole_number(entry.get("patient_id")),
        age=number(entry.get("age")),
        sex=(entry.get("sex") or "").lower() or None,
        labels=[*superclasses, *found],
        known_labels=[*(PTBXL_SUPERCLASSES if superclasses else ()), *labels_known],
        rhythm=main_rhythm(found),
        axis=main_axis(found),
        diagnoses=list(parse_scp_codes(entry.get("scp_codes") or "")),
        report=entry.get("report") or None,
    )
    if check == "signal":
        read_zscored(row, root)
    return row


def _array_record(entry: Mapping[str, str]) -> str:
    return f"x100hz_int16.npy#{entry['row']}"


def _diagnostic_classes(path: Path) -> dict[str, str]:
    entries = list(read_table(path, ("diagnostic_class",)))
    if not entries:
        raise ValueError(f"{path}: no rows")
    code = next(iter(entries[0]))  # the first column has no name in the published file
    return {entry[code]: entry["diagnostic_class"] for entry in entries if entry["diagnostic_class"]}


def _fold_split(text: str) -> str:
    fold = number(text)
    if fold is None or not 1 <= fold <= 10:
        raise ValueError(f"strat_fold={text!r}: allowed are 1 to 10")
    return "train" if fold <= 8 else ("validation" if fold == 9 else "test")
