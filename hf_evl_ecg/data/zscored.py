"""Z-scored leads → plausible millivolts for drawing: limb ratios from the signal itself, the rest from typical hearts."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

__all__ = ["SCALE_NOTE", "TYPICAL_STD_MV", "read_zscored", "restore_millivolts"]

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
    except (OSError, ValueError) as error:
        raise ECGRecordError(path, "array", str(error), "an .npy file of int16") from error
    if array.ndim != 3 or array.shape[2] != 12 or array.dtype != np.int16:
        raise ECGRecordError(path, "array", f"{array.dtype} {array.shape}", "int16 of shape (n, T, 12)")
    if not index.isdecimal() or int(index) >= len(array):
        raise ECGRecordError(path, "row", index, f"0 to {len(array) - 1}")
    signal, solved = restore_millivolts(array[int(index)] / 1000.0)
    metadata = {"voltage_scale": SCALE_NOTE, "limb_ratios_from_signal": solved}
    return ECG(signal, 100.0, record_name=f"{path.stem}-{index}", comments=(SCALE_NOTE,), metadata=metadata)
