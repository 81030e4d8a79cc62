"""An `ECG` → a WFDB record, whole or not there."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import wfdb

from hf_evl_ecg.signals.ecg import ECG

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_destination", "write_record"]

UNITS_PER_MV = 1000.0  # steps of 1 uV, finer than converters of electrocardiographs
_LARGEST_16 = 32_767 / UNITS_PER_MV  # mV
_SUFFIXES = (".dat", ".png", ".hea")  # the header last: with it the record is there
_NAME = re.compile(r"[-\w]+", re.ASCII)


def check_destination(destination: str | os.PathLike[str]) -> Path:
    """Check that a record may be written there: a name that WFDB allows, and no file of it yet.

    Raises:
        ValueError: Another name, or a file that is there already.

    Example:
        >>> check_destination("records/new").name
        'new'
    """
    path = Path(destination)
    if not _NAME.fullmatch(path.name):
        raise ValueError(f"destination={path.name!r}: allowed are letters, digits, '_' and '-', without suffix")
    if there := [f"{path}{suffix}" for suffix in _SUFFIXES if os.path.lexists(f"{path}{suffix}")]:
        raise ValueError(f"destination={str(path)!r}: {', '.join(there)} exists (choose another name, or remove it)")
    return path


def write_record(ecg: ECG, destination: str | os.PathLike[str], picture: Image.Image | None = None) -> Path:
    """Write a recording as 16-bit samples of 1 uV (32 bits beyond 32 mV), age and sex as comments, and a picture beside it.

    Nothing else of `ECG.metadata` and `ECG.comments` is written, so nothing of who the patient is.

    Args:
        ecg: The recording; NaN is written as WFDB's mark of a missing sample.
        destination: Path of the record, without suffix; its folder is made.
        picture: Is saved as `.png`; None: no picture.

    Returns:
        The header file.

    Raises:
        ValueError: As `check_destination`.

    Example:
        >>> from hf_evl_ecg.records import read_record
        >>> write_record(ECG(np.ones((500, 12)), 500, metadata={"age": 61}), "out/one").as_posix()
        'out/one.hea'
        >>> read_record("out/one").metadata["age"]
        61.0
    """
    path = check_destination(destination)
    path.parent.mkdir(parents=True, exist_ok=True)
    largest = float(np.nanmax(np.abs(ecg.signal_mv), initial=0.0))
    age, sex = ecg.metadata.get("age"), ecg.metadata.get("sex")
    comments = [f"Age: {age:g}"] if age is not None else []
    comments += [f"Sex: {sex.capitalize()}"] if sex else []
    count = len(ecg.leads)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about wfdb 4.3.1's own calls
            wfdb.wrsamp(
                path.name,
                fs=ecg.fs_hz,
                units=["mV"] * count,
                sig_name=list(ecg.leads),
                p_signal=ecg.signal_mv.astype(np.float64),
                fmt=["16" if largest < _LARGEST_16 else "32"] * count,
                adc_gain=[UNITS_PER_MV] * count,
                baseline=[0] * count,
                comments=comments,
                write_dir=folder,
            )
        if picture is not None:
            picture.save(Path(folder, f"{path.name}.png"))
        for suffix in _SUFFIXES:
            if suffix != ".png" or picture is not None:
                os.replace(Path(folder, path.name + suffix), f"{path}{suffix}")
    return Path(f"{path}.hea")
