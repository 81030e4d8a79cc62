"""When a simulated heart beats: onsets of QRS and their kind, for sinus rhythm, atrial fibrillation and premature beats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Event", "beat_events", "fibrillatory_waves"]

_BEYOND_S = 1.0  # past the record's end, so that the P wave of the first beat after it is there
_FIBRILLATION_DIRECTION = np.array([-0.30, 0.28, -0.80])  # the right atrium lies in front: V1 sees it best


@dataclass(frozen=True)
class Event:
    """One heartbeat in time: when its QRS begins (s), and N (as conducted), A (atrial) or V (ventricular premature)."""

    onset_s: float
    kind: str


def beat_events(label: str, rr_s: float, duration_s: float, qt_s: float, rng: np.random.Generator) -> list[Event]:
    """Heartbeats in order of time, from shortly before the record to shortly after it.

    Args:
        label: One of the labels of `hf_evl_ecg.signals.simulation`; those without a rhythm of their own have sinus rhythm.
        rr_s: Mean interval between beats (s).
        duration_s: Length of the record (s).
        qt_s: QT interval; a premature beat comes after the T wave before it (s).
        rng: Source of every variation.

    Example:
        >>> [event.kind for event in beat_events("NORM", 0.8, 3.0, 0.4, np.random.default_rng(0))]
        ['N', 'N', 'N', 'N', 'N', 'N']
    """
    if label == "AF":
        return _fibrillating(rr_s, duration_s, rng)
    if label in ("PAC", "PVC"):
        return _with_premature("A" if label == "PAC" else "V", rr_s, duration_s, qt_s, rng)
    return _sinus(rr_s, duration_s, rng)


def fibrillatory_waves(n_samples: int, fs_hz: float, rng: np.random.Generator) -> np.ndarray:
    """What fibrillating atria add to the heart vector: 5–8 Hz with wandering frequency and size, largest in V1.

    Args:
        n_samples: T.
        fs_hz: Sampling rate (Hz).
        rng: Source of frequency, size and phase.

    Returns:
        Shape: (T, 3), mV.
    """
    amplitude, rate = rng.uniform(0.05, 0.11), rng.uniform(5.0, 8.0)
    times = np.arange(n_samples) / fs_hz
    knots = np.arange(0.0, times[-1] + 1.0, 0.5)
    frequency = np.interp(times, knots, rate * (1 + 0.08 * rng.standard_normal(len(knots))))
    size = np.interp(times, knots, amplitude * np.clip(1 + 0.3 * rng.standard_normal(len(knots)), 0.4, 1.6))
    phase = 2 * math.pi * np.cumsum(frequency) / fs_hz + rng.uniform(0, 2 * math.pi)
    wave = size * (np.sin(phase) + 0.3 * np.sin(2 * phase + rng.uniform(0, 2 * math.pi)))
    return wave[:, None] * _FIBRILLATION_DIRECTION


def _sinus(rr_s: float, duration_s: float, rng: np.random.Generator) -> list[Event]:
    """Respiratory sinus arrhythmia of 1–4 % and 0.7 % beat-to-beat jitter."""
    depth, breath, phase = rng.uniform(0.01, 0.04), rng.uniform(0.15, 0.3), rng.uniform(0, 2 * math.pi)
    time = -rng.uniform(0.5, 1.5) * rr_s
    events = []
    while time < duration_s + _BEYOND_S:
        events.append(Event(time, "N"))
        time += rr_s * (1 + depth * math.sin(2 * math.pi * breath * time + phase) + 0.007 * rng.standard_normal())
    return events


def _fibrillating(rr_s: float, duration_s: float, rng: np.random.Generator) -> list[Event]:
    """Independent gamma-distributed intervals with a coefficient of variation of 0.18–0.28 above the refractory time."""
    spread = rng.uniform(0.18, 0.28)
    refractory = min(0.34, 0.75 * rr_s)
    shape = ((rr_s - refractory) / (spread * rr_s)) ** 2
    time = -rng.uniform(0.5, 1.5) * rr_s
    events = []
    while time < duration_s + _BEYOND_S:
        events.append(Event(time, "N"))
        time += refractory + rng.gamma(shape, (rr_s - refractory) / shape)
    return events


def _with_premature(kind: str, rr_s: float, duration_s: float, qt_s: float, rng: np.random.Generator) -> list[Event]:
    """Sinus rhythm with premature beats, at least two sinus beats apart, the first of them well inside the record.

    An atrial one resets the sinus node, so the pause is not compensatory; a ventricular one does not, and the sinus beat it
    blocks is missing: its two intervals add up to two sinus intervals.
    """
    sinus = [event.onset_s for event in _sinus(rr_s, duration_s * 1.5 + 5.0, rng)]
    every = int(rng.integers(3, 7))
    first = int(rng.integers(2, 4))
    coupling = max(rng.uniform(0.58, 0.72) * rr_s, qt_s + 0.06)
    events, shift = [], 0.0
    for number, time in enumerate(sinus):
        premature = number >= first and (number - first) % every == 0
        if not premature:
            events.append(Event(time + shift, "N"))
            continue
        onset = events[-1].onset_s + coupling
        events.append(Event(onset, kind))
        if kind == "A":
            shift = onset + rng.uniform(0.0, 0.12) * rr_s - time
    return [event for event in events if event.onset_s < duration_s + _BEYOND_S]
