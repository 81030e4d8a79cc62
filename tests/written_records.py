"""WFDB records that the tests write, and their files changed."""

import os
import warnings
from pathlib import Path

import numpy as np
import wfdb

from hf_evl_ecg.records.header import ECGRecordWarning
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS, derive_limb_leads
from hf_evl_ecg.signals.simulation import simulate

FS = 500
GAIN = 200.0
DAY_S = 24 * 3600


def beats(n_samples: int = 1000, fs_hz: float = FS) -> np.ndarray:
    """Twelve consistent leads (mV) with narrow waves once a second; shape (n, 12)."""
    t = np.arange(n_samples) / fs_hz
    wave = np.exp(-(((t % 1.0) - 0.4) ** 2) / (2 * 0.012**2)) + 0.2 * np.exp(-(((t % 1.0) - 0.7) ** 2) / (2 * 0.04**2))
    free = {name: (0.5 + 0.1 * i) * np.roll(wave, i) for i, name in enumerate(INDEPENDENT_LEADS)}
    leads = free | derive_limb_leads(free["I"], free["II"])
    return np.stack([leads[name] for name in STANDARD_LEADS], axis=1)


def write(folder: Path, name: str = "r", signal: np.ndarray | None = None, fmt: str = "16", **options) -> Path:
    signal = beats() if signal is None else signal
    names = options.pop("sig_name", list(STANDARD_LEADS[: signal.shape[1]]))
    n = signal.shape[1]
    settings = {"fs": FS, "units": ["mV"] * n, "adc_gain": [GAIN] * n, "baseline": [0] * n} | options
    wfdb.wrsamp(name, sig_name=names, p_signal=signal, fmt=[fmt] * n, write_dir=str(folder), **settings)
    return folder / name


def edit(record: Path, old: str, new: str, count: int = 1) -> None:
    path = record.with_suffix(".hea")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def header_line(record: Path, index: int) -> str:
    return record.with_suffix(".hea").read_text().splitlines()[index]


def write_two_rates(folder: Path, name: str, signal: np.ndarray) -> Path:
    """A record of 250 frames/s whose limb leads hold two samples per frame; shape (n, 12), n even."""
    write(folder, "fast", signal=signal[:, :6], sig_name=list(STANDARD_LEADS[:6]))
    write(folder, "slow", signal=signal[::2, 6:], sig_name=list(STANDARD_LEADS[6:]), fs=250)
    lines = [(folder / f"{part}.hea").read_text().splitlines()[1:7] for part in ("fast", "slow")]
    fast = [line.replace(" 16 ", " 16x2 ", 1) for line in lines[0]]
    count = len(signal) // 2
    (folder / f"{name}.hea").write_text("\n".join([f"{name} 12 250 {count}", *fast, *lines[1]]))
    digital = np.fromfile(folder / "fast.dat", "<i2").reshape(count, 2, 6).transpose(0, 2, 1)
    digital.astype("<i2").tofile(folder / "fast.dat")
    return folder / name


def day(folder: Path, comments=()) -> Path:
    """A record of 24 h whose signal file is ten true seconds and holes; it takes no room on disk."""
    record = write(folder, signal=beats(10 * FS), comments=list(comments))
    edit(record, f"r 12 {FS} {10 * FS}", f"r 12 {FS} {DAY_S * FS}")
    os.truncate(folder / "r.dat", DAY_S * FS * 24)
    return record


def read(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ECGRecordWarning)
        return read_record(*args, **options)


def write_normal(path: Path, seed: int = 0, comments=(), fs: int = 100) -> None:
    """A simulated normal ECG of 5 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = simulate("NORM", seed=seed, fs_hz=fs, duration_s=5).signal_mv.astype(np.float64)
    options = {"fs": fs, "units": ["mV"] * 12, "sig_name": list(STANDARD_LEADS), "fmt": ["16"] * 12}
    gains = {"adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp(path.name, p_signal=signal, write_dir=str(path.parent), comments=list(comments), **options, **gains)
