"""What disturbs a recording at the electrodes, so that it obeys Einthoven's law as a true one does: wander, hum, muscle."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["electrode_noise"]

_LEAST_STD = 1e-9  # a record too slow for muscle noise has none; 0 / 0 must not become NaN


def electrode_noise(
    n_samples: int,
    fs_hz: float,
    rng: np.random.Generator,
    *,
    wander_mv: float,
    mains_mv: float,
    mains_hz: float,
    muscle_mv: float,
) -> tuple[np.ndarray, dict[str, float]]:
    """Disturbance of the nine electrodes' potentials, each amplitude drawn between 20 % and 100 % of what is given.

    Args:
        n_samples: T.
        fs_hz: Sampling rate (Hz).
        rng: Source of amplitudes and phases.
        wander_mv: Baseline wander below 0.5 Hz (mV, RMS).
        mains_mv: Mains hum (mV, amplitude).
        mains_hz: Mains frequency (Hz).
        muscle_mv: Muscle noise between 20 and 150 Hz (mV, RMS).

    Returns:
        The disturbance, in the order RA, LA, LL, V1–V6, shape (T, 9), mV; and the amplitudes drawn, by name.

    Example:
        >>> quiet = {"wander_mv": 0.0, "mains_mv": 0.0, "mains_hz": 50.0, "muscle_mv": 0.0}
        >>> float(np.abs(electrode_noise(1000, 500.0, np.random.default_rng(0), **quiet)[0]).max())
        0.0
    """
    wander, mains, muscle = rng.uniform(0.2, 1.0, 3) * (wander_mv, mains_mv, muscle_mv)
    times = np.arange(n_samples)[:, None] / fs_hz
    slow = np.zeros((n_samples, 9))
    for frequency in rng.uniform(0.05, 0.5, 4):
        slow += np.sin(2 * math.pi * (frequency * times + rng.uniform(0, 1, 9))) * rng.uniform(0.3, 1.0, 9)
    slow /= np.maximum(slow.std(axis=0), _LEAST_STD)
    hum = np.sin(2 * math.pi * (mains_hz * times + rng.uniform(0, 1, 9))) * rng.uniform(0.3, 1.0, 9)
    spectrum = np.fft.rfft(
        rng.standard_normal((n_samples, 9)).astype(np.float32), axis=0
    )  # half the memory; it is noise
    frequencies = np.fft.rfftfreq(n_samples, 1 / fs_hz)
    spectrum[(frequencies < 20) | (frequencies > 150)] = 0
    fast = np.fft.irfft(spectrum, n_samples, axis=0)
    fast /= np.maximum(fast.std(axis=0), _LEAST_STD)
    amplitudes = {"wander_mv": float(wander), "mains_mv": float(mains), "muscle_mv": float(muscle)}
    return wander * slow + mains * hum + muscle * fast, amplitudes
