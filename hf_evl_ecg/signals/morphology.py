"""Shapes of one heartbeat per diagnosis: P, QRS, ST and T as heart vectors, with exact intervals.

QRS templates are in units of the QRS duration and are fitted to it, so the intervals a beat is built with are true by
construction. Directions follow the vectorcardiographic descriptions in Macfarlane et al. (eds.), "Comprehensive
Electrocardiology", 2nd ed., Springer 2010: left bundle branch block loses the septal vector and turns to the left and back,
right bundle branch block ends in a slow vector to the right and front, ST shifts point to (or, in subendocardial ischaemia,
away from) the injured wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .heart_vector import EDGE, Wave, add_plateau, add_waves, fit_to_span, frontal_axis_deg

__all__ = ["Beat", "Intervals", "ectopic_beat", "sinus_beat"]

Vector = tuple[float, float, float]

_REACH = math.sqrt(-2.0 * math.log(EDGE))
"""Standard deviations from a Gaussian's peak to where it falls to `EDGE`."""


def _template(*rows: tuple[float, float, Vector]) -> tuple[Wave, ...]:
    return tuple(Wave(centre, width, width, vector) for centre, width, vector in rows)


_NARROW = _template(
    (0.22, 0.08, (-0.12, 0.02, -0.28)),
    (0.48, 0.11, (1.20, 0.80, 0.32)),
    (0.70, 0.09, (0.12, 0.05, 0.65)),
    (0.86, 0.06, (-0.18, -0.10, 0.22)),
)
_LEFT_BLOCK = _template(
    (0.20, 0.10, (0.30, 0.15, 0.40)),
    (0.40, 0.11, (0.86, 0.30, 0.98)),
    (0.685, 0.11, (0.92, 0.10, 0.90)),
)
_RIGHT_BLOCK = _template(
    (0.14, 0.055, (-0.12, 0.02, -0.28)),
    (0.32, 0.08, (1.10, 0.75, 0.08)),
    (0.46, 0.06, (0.10, 0.05, 0.36)),
    (0.74, 0.13, (-0.52, -0.05, -0.60)),
)
_QRS = {"LBBB": _LEFT_BLOCK, "RBBB": _RIGHT_BLOCK}
_T = {"LBBB": (-0.36, -0.05, -0.34), "RBBB": (0.34, 0.22, 0.14)}
_T_NORMAL: Vector = (0.32, 0.24, -0.12)
_P: tuple[tuple[float, float, Vector], ...] = ((0.38, 0.16, (0.03, 0.09, -0.05)), (0.64, 0.16, (0.07, 0.07, 0.05)))
_P_ECTOPIC: tuple[tuple[float, float, Vector], ...] = (
    (0.40, 0.17, (0.08, -0.03, 0.06)),
    (0.62, 0.15, (0.04, -0.05, -0.04)),
)
_ELEVATION: dict[str, Vector] = {
    "inferior": (-0.03, 0.24, 0.02),
    "anterior": (0.06, 0.00, -0.20),
    "lateral": (0.26, -0.14, 0.02),
}
_DEPRESSION: dict[str, Vector] = {"subendocardial": (-0.19, -0.12, 0.04), "lateral": (-0.22, -0.06, 0.02)}
_ST_BLOCK: dict[str, Vector] = {"LBBB": (-0.07, 0.0, -0.09), "RBBB": (0.0, 0.0, 0.03)}
_ECTOPIC_ORIGIN: dict[str, Vector] = {
    "right_outflow": (0.35, 1.30, 1.05),
    "right_apex": (0.95, -0.85, 0.80),
    "left_lateral": (-1.10, 0.70, -0.85),
    "left_inferior": (-0.60, -1.00, -0.75),
}


@dataclass(frozen=True)
class Intervals:
    """Durations of one beat: P onset to QRS onset (``None`` without a P wave), QRS, and QRS onset to T end (s)."""

    pr_s: float | None
    qrs_s: float
    qt_s: float


@dataclass(frozen=True)
class Beat:
    """One beat's waves, with time 0 at the onset of QRS.

    Attributes:
        intervals: Its durations.
        p: P wave, empty without one.
        qrs: QRS complex.
        t: T wave.
        st_mv: Vector of the ST segment's shift (mV).
        territory: Wall of the ST shift, or origin of an ectopic beat; empty otherwise.
    """

    intervals: Intervals
    p: tuple[Wave, ...]
    qrs: tuple[Wave, ...]
    t: tuple[Wave, ...]
    st_mv: Vector
    territory: str = ""

    def add_to(self, vcg_mv: np.ndarray, fs_hz: float, onset_s: float) -> None:
        """Add the beat to a vectorcardiogram (T, 3) in mV, in place, its QRS beginning at a time (s)."""
        add_waves(vcg_mv, fs_hz, self.p + self.qrs + self.t, onset_s)
        if any(self.st_mv):
            peak = self.t[0].centre_s
            add_plateau(vcg_mv, fs_hz, onset_s + self.intervals.qrs_s, onset_s + peak, self.st_mv)

    @property
    def axis_deg(self) -> float:
        """Frontal electrical axis of the QRS complex (degrees)."""
        return frontal_axis_deg(self.qrs)


def sinus_beat(
    label: str, intervals: Intervals, rng: np.random.Generator, *, turn_deg: float, size: float, ectopic_p: bool = False
) -> Beat:
    """A beat conducted from the atria, with the QRS, ST and T of a diagnosis.

    Args:
        label: One of the labels of `hf_evl_ecg.signals.simulation`; rhythm labels have the shape of ``"NORM"``.
        intervals: Durations to build in.
        rng: Source of the individual variation of each wave (about 10 %).
        turn_deg: Rotation of QRS, and by half of P and T, in the frontal plane towards the feet (degrees).
        size: Factor on all vectors.
        ectopic_p: Give the P wave the direction of a low atrial origin.

    Example:
        >>> beat = sinus_beat("LBBB", Intervals(0.16, 0.14, 0.42), np.random.default_rng(0), turn_deg=0.0, size=1.0)
        >>> len(beat.p), len(beat.qrs), beat.intervals.qrs_s
        (2, 3, 0.14)
    """
    qrs = _vary(_QRS.get(label, _NARROW), rng, turn_deg, size)
    p: tuple[Wave, ...] = ()
    if intervals.pr_s is not None:
        p_duration = min(rng.uniform(0.085, 0.11), intervals.pr_s - 0.03)
        shape = _vary(_template(*(_P_ECTOPIC if ectopic_p else _P)), rng, turn_deg / 2, size)
        p = fit_to_span(shape, -intervals.pr_s, -intervals.pr_s + p_duration)
    st, territory = _st_shift(label, rng, size)
    t_vector = np.asarray(_T.get(label, _T_NORMAL)) * rng.uniform(0.8, 1.3) * size
    if label == "STE":
        t_vector = 0.6 * t_vector + 1.2 * np.asarray(st)
    elif label == "STD":
        t_vector = rng.uniform(0.2, 0.7) * t_vector
    t = _t_wave(_turned(t_vector, turn_deg / 2), intervals, rng.uniform(0.42, 0.5))
    return Beat(intervals, p, fit_to_span(qrs, 0.0, intervals.qrs_s), t, st, territory)


def ectopic_beat(intervals: Intervals, rng: np.random.Generator, *, size: float) -> Beat:
    """A ventricular beat: no P, wide QRS away from its origin, ST and T opposite to QRS.

    Args:
        intervals: Durations to build in; ``pr_s`` must be ``None``.
        rng: Source of the origin and of the individual variation.
        size: Factor on all vectors.
    """
    origin = str(rng.choice(sorted(_ECTOPIC_ORIGIN)))
    main = np.asarray(_ECTOPIC_ORIGIN[origin])
    side = main * 0.55 + rng.normal(0.0, 0.12, 3)
    qrs = _vary(_template((0.34, 0.13, _vector(main)), (0.70, 0.12, _vector(side))), rng, 0.0, size)
    t = _t_wave(-0.42 * main * size, intervals, 0.5)
    return Beat(intervals, (), fit_to_span(qrs, 0.0, intervals.qrs_s), t, _vector(-0.08 * main * size), origin)


def _t_wave(vector: np.ndarray, intervals: Intervals, share_of_qt: float) -> tuple[Wave, ...]:
    """A T wave that ends with the QT interval: 60 % of its duration rises, 40 % falls."""
    duration = min(share_of_qt * intervals.qt_s, intervals.qt_s - intervals.qrs_s)
    fall = 0.4 * duration
    return (Wave(intervals.qt_s - fall, 0.6 * duration / _REACH, fall / _REACH, _vector(vector)),)


def _st_shift(label: str, rng: np.random.Generator, size: float) -> tuple[Vector, str]:
    if label in ("STE", "STD"):
        walls = _ELEVATION if label == "STE" else _DEPRESSION
        wall = str(rng.choice(sorted(walls)))
        return _vector(np.asarray(walls[wall]) * rng.uniform(0.8, 1.5)), wall
    return _vector(np.asarray(_ST_BLOCK.get(label, (0.0, 0.0, 0.0))) * size), ""


def _vary(waves: tuple[Wave, ...], rng: np.random.Generator, turn_deg: float, size: float) -> tuple[Wave, ...]:
    return tuple(
        replace(wave, vector_mv=_vector(_turned(np.asarray(wave.vector_mv) * rng.normal(1.0, 0.1, 3) * size, turn_deg)))
        for wave in waves
    )


def _turned(vector: np.ndarray, turn_deg: float) -> np.ndarray:
    """Rotate about the z axis, from the left (x) towards the feet (y)."""
    angle = math.radians(turn_deg)
    x, y, z = vector
    return np.array([x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle), z])


def _vector(values: np.ndarray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
