"""Vectorcardiogram: heart vectors as sums of Gaussian waves, and their projection to the 12 leads.

Frank's coordinates: x to the patient's left, y to the feet, z to the back; vectors in mV, times in s. The dynamical Gaussian
model of the heart vector follows Sameni et al., "Multichannel ECG and Noise Modeling", EURASIP J. Adv. Signal Process. 2007,
043407; the projection is Dower's: Dower, Machado, Osborne, "On deriving the electrocardiogram from vectorcardiographic
leads", Clin. Cardiol. 3:87–95, 1980.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from .ecg import INDEPENDENT_LEADS, STANDARD_LEADS, derive_limb_leads

__all__ = [
    "DOWER",
    "EDGE",
    "Wave",
    "add_plateau",
    "add_waves",
    "fit_to_span",
    "frontal_axis_deg",
    "leads_from_vcg",
    "span",
]

DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
"""Dower's matrix: rows I, II, V1–V6 (the independent leads), columns x, y, z."""
DOWER.setflags(write=False)

EDGE = 0.05
"""A wave begins and ends where its vector's length crosses this fraction of its maximum."""

_GRID = np.linspace(-1.0, 2.0, 3001)  # a template spans about [0, 1]; a thousandth of a QRS complex is 0.1 ms


@dataclass(frozen=True)
class Wave:
    """A Gaussian of time along one direction, with its own width before and after the peak.

    Attributes:
        centre_s: Time of the peak (s).
        rise_s: Standard deviation before the peak (s).
        fall_s: Standard deviation after the peak (s).
        vector_mv: Heart vector at the peak (mV), (x, y, z).
    """

    centre_s: float
    rise_s: float
    fall_s: float
    vector_mv: tuple[float, float, float]

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """The wave's vector (mV) at some times. Shape: (T,) → (T, 3)."""
        offset = times_s - self.centre_s
        width = np.where(offset < 0, self.rise_s, self.fall_s)
        return np.exp(-0.5 * (offset / width) ** 2)[:, None] * np.asarray(self.vector_mv)


def span(waves: tuple[Wave, ...]) -> tuple[float, float]:
    """First and last time in [−1, 2] at which the summed vector is longer than `EDGE` of its maximum.

    Example:
        >>> begin, end = span((Wave(0.5, 0.1, 0.1, (1.0, 0.0, 0.0)),))
        >>> round(begin, 3), round(end, 3)
        (0.255, 0.745)
    """
    length = np.linalg.norm(sum(wave.at(_GRID) for wave in waves), axis=1)
    level = EDGE * length.max()
    inside = np.flatnonzero(length > level)
    first, last = int(inside[0]), int(inside[-1])
    if first == 0 or last == len(_GRID) - 1:
        raise ValueError("waves: they reach beyond [-1, 2] (give them in units of their common duration)")
    begin = np.interp(level, length[first - 1 : first + 1], _GRID[first - 1 : first + 1])
    end = np.interp(-level, -length[last : last + 2], _GRID[last : last + 2])
    return float(begin), float(end)


def fit_to_span(waves: tuple[Wave, ...], begin_s: float, end_s: float) -> tuple[Wave, ...]:
    """Shift and stretch waves in time so that their `span` is exactly [begin_s, end_s].

    Example:
        >>> fitted = fit_to_span((Wave(0.5, 0.1, 0.1, (1.0, 0.0, 0.0)),), 0.1, 0.3)
        >>> round(fitted[0].centre_s, 6)
        0.2
    """
    first, last = span(waves)
    stretch = (end_s - begin_s) / (last - first)
    return tuple(
        replace(
            wave,
            centre_s=begin_s + (wave.centre_s - first) * stretch,
            rise_s=wave.rise_s * stretch,
            fall_s=wave.fall_s * stretch,
        )
        for wave in waves
    )


def add_waves(vcg_mv: np.ndarray, fs_hz: float, waves: tuple[Wave, ...], shift_s: float = 0.0) -> None:
    """Add waves to a vectorcardiogram in place, each within six standard deviations.

    Args:
        vcg_mv: Heart vector. Shape: (T, 3), mV.
        fs_hz: Sampling rate (Hz).
        waves: The waves.
        shift_s: Delay added to every wave (s).
    """
    for wave in waves:
        moved = replace(wave, centre_s=wave.centre_s + shift_s)
        begin = max(0, int(np.ceil((moved.centre_s - 6 * moved.rise_s) * fs_hz)))
        end = min(len(vcg_mv), int(np.floor((moved.centre_s + 6 * moved.fall_s) * fs_hz)) + 1)
        if begin < end:
            vcg_mv[begin:end] += moved.at(np.arange(begin, end) / fs_hz)


def add_plateau(
    vcg_mv: np.ndarray,
    fs_hz: float,
    begin_s: float,
    end_s: float,
    vector_mv: tuple[float, float, float],
    *,
    rise_s: float = 0.01,
    fall_s: float = 0.035,
) -> None:
    """Add a constant vector between two times in place, with Gaussian-smoothed edges: an injury current in the ST segment.

    Args:
        vcg_mv: Heart vector. Shape: (T, 3), mV.
        fs_hz: Sampling rate (Hz).
        begin_s: Middle of the rising edge (s).
        end_s: Middle of the falling edge (s).
        vector_mv: Vector of the plateau (mV).
        rise_s: Standard deviation of the rising edge (s).
        fall_s: Standard deviation of the falling edge (s).
    """
    first = max(0, int(np.ceil((begin_s - 6 * rise_s) * fs_hz)))
    last = min(len(vcg_mv), int(np.floor((end_s + 6 * fall_s) * fs_hz)) + 1)
    if first < last:
        times = np.arange(first, last) / fs_hz
        shape = ndtr((times - begin_s) / rise_s) * ndtr((end_s - times) / fall_s)
        vcg_mv[first:last] += shape[:, None] * np.asarray(vector_mv)


def leads_from_vcg(vcg_mv: np.ndarray, electrodes_mv: np.ndarray | None = None) -> np.ndarray:
    """Project a heart vector to the 12 leads; III, aVR, aVL, aVF follow from the float32 values of I and II exactly.

    Args:
        vcg_mv: Heart vector. Shape: (T, 3), mV.
        electrodes_mv: Disturbance of each electrode's potential, in the order RA, LA, LL, V1–V6 (mV). Shape: (T, 9).
            Limb leads see its differences and chest leads see it against Wilson's central terminal.

    Returns:
        Shape: (T, 12), float32, mV, in the order of `STANDARD_LEADS`.

    Example:
        >>> leads = leads_from_vcg(np.array([[1.0, 0.0, 0.0]]))
        >>> [round(float(value), 3) for value in leads[0, :3]]
        [0.632, 0.235, -0.397]
    """
    independent = vcg_mv @ DOWER.T
    if electrodes_mv is not None:
        terminal = electrodes_mv[:, :3].mean(axis=1, keepdims=True)
        independent[:, 0] += electrodes_mv[:, 1] - electrodes_mv[:, 0]
        independent[:, 1] += electrodes_mv[:, 2] - electrodes_mv[:, 0]
        independent[:, 2:] += electrodes_mv[:, 3:] - terminal
    columns = dict(zip(INDEPENDENT_LEADS, independent.astype(np.float32).T, strict=True))
    columns |= derive_limb_leads(columns["I"], columns["II"])
    return np.stack([columns[lead] for lead in STANDARD_LEADS], axis=1)


def frontal_axis_deg(waves: tuple[Wave, ...]) -> float:
    """Electrical axis in the frontal plane from the waves' areas in I and aVF (degrees, 0 = left, 90 = feet).

    The axis is atan2(2/√3 · aVF, I): augmented leads are √3/2 as long as bipolar ones in Einthoven's triangle.

    Example:
        >>> round(frontal_axis_deg((Wave(0.0, 1.0, 1.0, (0.0, 1.0, 0.0)),)), 1)
        99.8
    """
    area = sum(np.asarray(wave.vector_mv) * (wave.rise_s + wave.fall_s) for wave in waves)
    lead_i, lead_ii = (DOWER[:2] @ area).tolist()
    return float(np.degrees(np.arctan2((lead_ii - lead_i / 2) * 2 / np.sqrt(3.0), lead_i)))
