"""PTB-XL (Wagner et al., Sci Data 7:154, 2020; doi 10.13026/kfzx-aw45).

Folds 1-8 train, 9 validation, 10 test, by patient, as its authors recommend.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.qa.labels import AXIS_LABELS, PTBXL_SUPERCLASSES, main_rhythm

from .csv_fields import number, read_table, row_error, whole_number
from .report import LoadReport
from .table import collect_rows, make_row
from .wfdb_records import check_wfdb

__all__ = ["SCP_LABELS", "fold_split", "load_ptbxl", "parse_scp_codes", "ptbxl_superclasses", "scp_codes_of_row"]

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
# One statement as Python, JSON or numpy write it; a likelihood that is not stated counts as 0.
_QUOTED = r"""(?:'([^'"]{1,20})'|"([^'"]{1,20})")"""
_LIKELIHOOD = r"""["']?((?:\d{1,3}(?:\.\d*)?)(?:[eE][-+]?\d{1,2})?|None|null|nan|NaN)["']?"""
_STATEMENT = re.compile(
    rf"\s*{_QUOTED}\s*:\s*(?:(?:np|numpy)\.\w{{1,20}}\(\s*{_LIKELIHOOD}\s*\)|{_LIKELIHOOD})\s*(?:,|$)"
)
_SCP_ALLOWED = "codes with likelihoods of 0 to 100, such as {'NORM': 100.0, 'SR': 0.0}"


def load_ptbxl(
    root: str | os.PathLike[str],
    *,
    sampling_rate: Literal[500, 100] = 500,
    min_likelihood: float = 0.0,
    on_bad: Literal["skip", "raise"] = "skip",
    check: Literal["header", "signal", "none"] = "header",
    missing: Literal["raise", "interpolate"] = "raise",
) -> tuple[Dataset, LoadReport]:
    """Read PTB-XL's tables into rows: superclasses, statements, rhythm, axis, report, official folds.

    Args:
        root: Folder with `ptbxl_database.csv`, `scp_statements.csv` and the records.
        sampling_rate: 500 Hz (`filename_hr`) or 100 Hz (`filename_lr`) records.
        min_likelihood: Leave out diagnostic statements less likely than this (0 to 100); 0 keeps all, as the
            benchmark of Strodthoff et al. (IEEE JBHI 2021) does.
        on_bad: As in `collect_rows`.
        check: As in `check_wfdb`.
        missing: What is done with missing samples, as `nan` of `read_record`; kept in the rows.

    Raises:
        ValueError: A table or column is missing, or an option is unknown.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    check_choice("sampling_rate", sampling_rate, (500, 100))
    root = Path(root).resolve()
    statements = _statements(root / "scp_statements.csv")
    path = root / "ptbxl_database.csv"
    column = "filename_hr" if sampling_rate == 500 else "filename_lr"
    unknown: Counter[str] = Counter()
    row = partial(
        _row,
        root,
        path,
        statements=statements,
        min_likelihood=min_likelihood,
        column=column,
        check=check,
        missing=missing,
    )
    table = enumerate(read_table(path, ("ecg_id", "scp_codes", "strat_fold", column)), 1)
    makers = ((entry[column] or f"row {i}", partial(row, i, entry, unknown=unknown)) for i, entry in table)
    notes = ("official folds: 1-8 train, 9 validation, 10 test, by patient",)
    rows, report = collect_rows(makers, "ptb-xl", on_bad=on_bad, notes=notes, check=check)
    if unknown:
        counts = ", ".join(f"{code} {n}" for code, n in unknown.most_common())
        report.notes.append(f"codes that stand in no row of scp_statements.csv, and are no labels: {counts}")
    return rows, report


def parse_scp_codes(text: str) -> dict[str, float]:
    """Parse PTB-XL's `scp_codes` column, code → likelihood in percent (0: not stated), without evaluating it.

    Tables that were saved again hold the same dictionary as JSON or with numpy's numbers; a field that is not understood as a whole is
    refused, as what was lost from it would read as a finding that is not there.

    Raises:
        ValueError: The field is not empty and no dictionary of codes and likelihoods.

    Example:
        >>> parse_scp_codes("{'NORM': 100.0, 'SR': np.float64(0.0)}"), parse_scp_codes('{"LAO/LAE": 50}'), parse_scp_codes("")
        ({'NORM': 100.0, 'SR': 0.0}, {'LAO/LAE': 50.0}, {})
    """
    text = text.strip()
    if not text or text.lower() == "nan":
        return {}
    codes: dict[str, float] = {}
    body, at = text[1:-1].strip(), 0
    while text[0] + text[-1] == "{}" and at < len(body) and (match := _STATEMENT.match(body, at)):
        value = match[3] or match[4]
        codes[(match[1] or match[2]).strip()] = float(value) if value[0].isdigit() else 0.0
        at = match.end()
    if not codes or at < len(body) or max(codes.values()) > 100:
        raise ValueError(f"scp_codes={text[:200]!r}: allowed are {_SCP_ALLOWED}")
    return codes


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
    path: Path,
    row: int,
    entry: Mapping[str, str],
    *,
    statements: Mapping[str, str],
    min_likelihood: float,
    column: str,
    check: Literal["header", "signal", "none"],
    missing: Literal["raise", "interpolate"],
    unknown: Counter[str],
) -> dict[str, Any]:
    record = entry[column].strip()
    if not record:
        raise row_error(path, row, column, record, "the record's path relative to the folder")
    split = fold_split(entry["strat_fold"])
    if split is None:
        raise row_error(path, row, "strat_fold", entry["strat_fold"], "1 to 10")
    codes = scp_codes_of_row(path, row, entry["scp_codes"])
    duration_s = None
    if check != "none":  # the tables say all there is to know
        duration_s = check_wfdb(record, root, check, nan=missing).duration_s
    classes = {code: name for code, name in statements.items() if name}
    strange = [code for code in codes if code not in statements and code not in SCP_LABELS]
    unknown.update(strange)
    kept = {code: p for code, p in codes.items() if code not in classes or p >= min_likelihood}
    labels = [*ptbxl_superclasses(kept, classes), *(SCP_LABELS[code] for code in kept if code in SCP_LABELS)]
    labels = list(dict.fromkeys(labels))
    # Of a record without a single statement nothing is known, least of all that nothing is there.
    known = list(dict.fromkeys((*PTBXL_SUPERCLASSES, *SCP_LABELS.values()))) if codes else []
    if strange:  # it may be of any class
        known = [label for label in known if label in labels or label not in PTBXL_SUPERCLASSES]
    axis = AXES.get(entry.get("heart_axis", ""))
    return make_row(
        record,
        "ptb-xl",
        root,
        split,
        missing=missing,
        duration_s=duration_s,
        patient=whole_number(entry.get("patient_id")),
        age=number(entry.get("age")),
        sex={"0": "male", "1": "female"}.get(whole_number(entry.get("sex")) or ""),
        labels=[*labels, axis] if axis else labels,
        known_labels=[*known, *AXIS_LABELS] if axis else known,
        rhythm=main_rhythm(labels),
        axis=axis,
        diagnoses=list(codes),
        report=entry.get("report") or None,
    )


def scp_codes_of_row(path: Path, row: int, text: str) -> dict[str, float]:
    """`parse_scp_codes` of one row of a table.

    Raises:
        ECGRecordError: It names file, row and text.
    """
    try:
        return parse_scp_codes(text)
    except ValueError as error:
        raise row_error(path, row, "scp_codes", text, _SCP_ALLOWED) from error


def _statements(path: Path) -> dict[str, str]:
    """Every statement with its superclass, empty where it has none."""
    entries = list(read_table(path, ("diagnostic_class",)))
    # The column of codes has no name in the published file, and another place in one that was saved again.
    columns = [
        name
        for name in (entries[0] if entries else ())
        if name is not None and any(entry[name] == "NORM" for entry in entries)
    ]
    columns = [name for name in columns if name not in ("diagnostic_class", "diagnostic_subclass")]
    if not columns:
        raise ValueError(f"{path}: no column holds the statements, such as NORM")
    found = {entry[columns[0]].strip(): entry["diagnostic_class"].strip() for entry in entries}
    if other := sorted({name for name in found.values() if name and name not in PTBXL_SUPERCLASSES}):
        raise ValueError(f"{path}: diagnostic_class {other}: allowed are {', '.join(PTBXL_SUPERCLASSES)}")
    return found


def fold_split(text: str) -> str | None:
    """The split of a fold; None where it is none of the ten."""
    fold = number(text)
    if fold is None or fold not in range(1, 11):
        return None
    return "train" if fold <= 8 else ("validation" if fold == 9 else "test")
