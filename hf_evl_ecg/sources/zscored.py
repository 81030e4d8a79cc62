"""The filtered, z-scored subset of PTB-XL (Wagner et al., Sci Data 7:154, 2020): its table → rows, its array → an ECG.

Z-scored leads become plausible millivolts for drawing: limb ratios from the signal itself, the rest from typical hearts.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from hf_evl_ecg.qa.labels import PTBXL_SUPERCLASSES, main_axis, main_rhythm
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.plausibility import refuse_flat
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

from .csv_fields import flag, number, read_table, row_error, whole_number
from .ptbxl import fold_split, scp_codes_of_row
from .report import LoadReport
from .table import collect_rows, make_row, split_by_group

__all__ = ["SCALE_NOTE", "TYPICAL_STD_MV", "load_ptbxl_filtered", "read_zscored", "restore_millivolts"]

# Median over 251 real records (160 LUDB, 91 of the 2020/21 Challenge) of each lead's standard deviation in mV after a
# 0.5-40 Hz band pass; single records scatter by a factor of 1.5 to 1.9 around it.
TYPICAL_STD_MV = (0.119, 0.140, 0.101, 0.120, 0.085, 0.108, 0.159, 0.237, 0.235, 0.250, 0.221, 0.181)
SCALE_NOTE = (
    "voltages estimated from z-scored leads: wave shapes and limb-lead ratios are real, absolute voltage is not"
)

# Rows: III, aVR, aVL and aVF minus what I and II imply; columns: I, II, III, aVR, aVL, aVF. All are 0 in true voltages.
_LIMB_LAWS = np.array(
    [
        [1.0, -1.0, 1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 1.0, 0.0, 0.0],
        [-1.0, 0.5, 0.0, 0.0, 1.0, 0.0],
        [0.5, -1.0, 0.0, 0.0, 0.0, 1.0],
    ]
)


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
    needed = ("row", "ecg_id", "labels18_known", *FILTERED_COLUMNS)
    table = list(enumerate(read_table(root / "labels.csv", needed), 1))
    flagged = [entry for _, entry in table if entry.get("qc_flag")]
    table = [(i, entry) for i, entry in table if not entry.get("qc_flag")]
    entries = [entry for _, entry in table]
    groups = [
        f"patient {p}" if (p := whole_number(entry.get("patient_id"))) else f"record {entry['ecg_id']}"
        for entry in entries
    ]
    splits = split_by_group(groups, fractions=fractions, seed=seed)
    folds = [number(entry.get("strat_fold")) for entry in entries]
    # Folds 9 and 10 keep their official split: what is tested on PTB-XL must not have been trained on here.
    official = [fold_split(f"{fold}") if (fold or 0) > 8 else None for fold in folds]
    splits = [fixed or split for fixed, split in zip(official, splits, strict=True)]

    makers = [
        (_array_record(entry), partial(_row, root, i, entry, split, check))
        for (i, entry), split in zip(table, splits, strict=True)
    ]
    dataset, report = collect_rows(makers, "ptb-xl-filtered", on_bad=on_bad, notes=FILTERED_NOTES)
    report.skipped += [(_array_record(entry), entry["qc_flag"]) for entry in flagged]
    return dataset, report


def restore_millivolts(z: np.ndarray) -> tuple[np.ndarray, bool]:
    """Give z-scored leads a plausible voltage scale.

    Each limb lead is an unknown positive scale times its z-score, and Einthoven's and Goldberger's laws must hold, which
    fixes the six scales but for one factor: the eigenvector with the smallest eigenvalue of a 6 × 6 matrix built from the
    leads' correlations. The factor makes the six scales typical on geometric average. The chest leads take their typical
    scale. Where the laws give no positive solution (flat, swapped or separately filtered leads), the limb leads do too.

    Args:
        z: Shape (T, 12), leads in standard order, each of zero mean and unit variance.

    Returns:
        The signal in mV, float32, shape (T, 12), and whether the limb leads' ratios come from the signal.

    Raises:
        ValueError: The shape is wrong.

    Example:
        >>> restore_millivolts(np.zeros((10, 12)))[1]
        False
    """
    if z.ndim != 2 or z.shape[1] != len(STANDARD_LEADS) or not len(z):
        raise ValueError(f"z of shape {z.shape}: (T, 12) is needed")
    z = z.astype(np.float64)
    typical = np.array(TYPICAL_STD_MV)
    limb = z[:, :6]
    moments = limb.T @ limb / len(z)
    values, vectors = np.linalg.eigh((_LIMB_LAWS.T @ _LIMB_LAWS) * moments)
    scales = vectors[:, 0] * np.sign(vectors[:, 0].sum())
    # All six scales positive, and the laws met by them and by no second set.
    solved = bool(scales.min() > 0.01 and values[1] > 1e-6 and values[0] < 0.01 * values[1])
    if solved:
        scale = typical.copy()
        scale[:6] = scales * np.exp(np.mean(np.log(typical[:6]) - np.log(scales)))
    else:
        scale = typical
    return (z * scale).astype(np.float32), solved


def read_zscored(row: Mapping[str, Any], root: str | os.PathLike[str], nan: str = "raise") -> ECG:
    """Read a row of an array: int16 z-scores × 1000 at 100 Hz, shape (n, T, 12), as the filtered PTB-XL set stores them.

    Args:
        row: Its record is `name.npy#index`.
        root: The data folder; nothing outside it is read.
        nan: Without effect: whole numbers are never missing.

    Raises:
        ECGRecordError: The file is no such array, lies outside the data folder, or has no such row.
    """
    name, _, index = row["record"].partition("#")
    path = resolve_inside(name, root)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # one row of a file of gigabytes is read
    except Exception as error:  # whatever numpy stumbles over in a damaged header
        raise ECGRecordError(path, "array", str(error), "an .npy file of int16") from error
    if array.ndim != 3 or array.shape[2] != 12 or not array.shape[1] or array.dtype != np.int16:
        raise ECGRecordError(path, "array", f"{array.dtype} {array.shape}", "int16 of shape (n, T, 12)")
    if not index.isdecimal() or int(index) >= len(array):
        raise ECGRecordError(path, "row", index, f"0 to {len(array) - 1}")
    signal, solved = restore_millivolts(array[int(index)] / 1000.0)
    metadata = {"voltage_scale": SCALE_NOTE, "limb_ratios_from_signal": solved}
    ecg = ECG(signal, 100.0, record_name=f"{path.stem}-{index}", comments=(SCALE_NOTE,), metadata=metadata)
    return refuse_flat(ecg, row["record"])


def _row(
    root: Path, row: int, entry: Mapping[str, str], split: str, check: Literal["signal", "none"]
) -> dict[str, Any]:
    path = root / "labels.csv"
    try:
        known = bool(flag(entry["labels18_known"]))
        found = [label for column, label in FILTERED_COLUMNS.items() if known and flag(entry[column])]
    except ValueError as error:
        raise row_error(path, row, "a label", str(error), "1 or 0 in each column of labels") from error
    superclasses = [c for c in (entry.get("superclass") or "").split("|") if c in PTBXL_SUPERCLASSES]
    labels_known = [*FILTERED_COLUMNS.values()] if known else []
    made = make_row(
        _array_record(entry),
        "ptb-xl-filtered",
        root,
        split,
        storage="zscored_npy",
        recording=f"ptb-xl {whole_number(entry['ecg_id'])}",
        patient=whole_number(entry.get("patient_id")),
        age=number(entry.get("age")),
        sex=(entry.get("sex") or "").lower() or None,
        labels=[*superclasses, *found],
        known_labels=[*(PTBXL_SUPERCLASSES if superclasses else ()), *labels_known],
        rhythm=main_rhythm(found),
        axis=main_axis(found),
        diagnoses=list(scp_codes_of_row(path, row, entry.get("scp_codes") or "")),
        report=entry.get("report") or None,
    )
    if check == "signal":
        read_zscored(made, root)
    return made


def _array_record(entry: Mapping[str, str]) -> str:
    return f"x100hz_int16.npy#{entry['row']}"
