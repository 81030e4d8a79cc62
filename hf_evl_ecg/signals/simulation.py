"""Simulated 12-lead ECGs of the nine CPSC-2018 classes, with the truth about their rhythm and intervals.

A heart vector (`hf_evl_ecg.signals.heart_vector`, `hf_evl_ecg.signals.morphology`) beats in the rhythm of a class, is projected to the leads by Dower's
matrix, and is disturbed at the electrodes, so that III = II − I and the augmented leads hold exactly. The signals teach the
grammar of an ECG and test programs; they are not patients, and every record says ``simulated=True`` in its metadata.
Classes: Liu et al., "An Open Access Database for Evaluating the Algorithms of Electrocardiogram Rhythm and Morphology
Abnormality Detection", J. Med. Imaging Health Inform. 8:1368–1373, 2018.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from hf_evl_ecg.arguments import check_at_least, check_between, check_choice, plain_fields

from .ecg import ECG
from .heart_vector import leads_from_vcg
from .morphology import Beat, Intervals, ectopic_beat, sinus_beat
from .noise import electrode_noise
from .rhythms import Event, beat_events, fibrillatory_waves

__all__ = ["LABELS", "SimulationConfig", "simulate"]

LABELS = ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
"""Normal, atrial fibrillation, first-degree AV block, left and right bundle branch block, premature atrial and ventricular
contractions, ST depression, ST elevation."""

# Ranges of adults at rest; AF without a slowed AV node is faster, a long PR interval and premature beats need room.
_RATES_BPM = {"AF": (65.0, 140.0), "I-AVB": (50.0, 82.0), "PAC": (55.0, 85.0), "PVC": (55.0, 85.0)}
_RATE_BPM = (55.0, 100.0)
# Complete bundle branch block begins at 120 ms (Surawicz et al., Circulation 119:e235-e240, 2009); see `_intervals` for the rest.
_QRS_S = {"LBBB": (0.125, 0.165), "RBBB": (0.122, 0.155)}


@dataclass(frozen=True)
class SimulationConfig:
    """What varies between simulated hearts, and how much noise they carry.

    Each record draws its noise amplitudes uniformly between 20 % and 100 % of the values given here. Zero turns a noise off
    without changing the heart.

    Args:
        heart_rate_bpm: Lowest and highest mean rate (beats per minute); ``None`` takes the class's own range.
        axis_spread_deg: Largest rotation of the heart in the frontal plane, either way (degrees).
        size_spread: Largest relative change of the heart vector's length, either way.
        wander_mv: Baseline wander of each electrode below 0.5 Hz (mV, RMS).
        mains_mv: Mains hum of each electrode (mV, amplitude).
        mains_hz: Mains frequency, 50 or 60 Hz.
        muscle_mv: Muscle noise of each electrode between 20 and 150 Hz (mV, RMS).

    Raises:
        ValueError: A value out of range.

    Example:
        >>> SimulationConfig(wander_mv=0, mains_mv=0, muscle_mv=0).mains_hz
        50.0
    """

    heart_rate_bpm: tuple[float, float] | None = None
    axis_spread_deg: float = 25.0
    size_spread: float = 0.2
    wander_mv: float = 0.06
    mains_mv: float = 0.008
    mains_hz: float = 50.0
    muscle_mv: float = 0.012

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.heart_rate_bpm is not None:
            low, high = self.heart_rate_bpm
            if not 30 <= low <= high <= 180:
                raise ValueError(
                    f"heart_rate_bpm={self.heart_rate_bpm}: give (lowest, highest) within 30 to 180 per minute"
                )
            object.__setattr__(self, "heart_rate_bpm", (float(low), float(high)))
        limits = {"axis_spread_deg": 180.0, "size_spread": 0.9, "wander_mv": 5.0, "mains_mv": 5.0, "muscle_mv": 5.0}
        for name, limit in limits.items():
            check_between(name, getattr(self, name), 0, limit)
        check_choice("mains_hz", self.mains_hz, (50.0, 60.0))
        object.__setattr__(self, "mains_hz", float(self.mains_hz))


def simulate(
    label: str,
    *,
    seed: int,
    fs_hz: float = 500.0,
    duration_s: float = 10.0,
    config: SimulationConfig | None = None,
) -> ECG:
    """Simulate one record.

    Args:
        label: One of `LABELS`.
        seed: Heart, rhythm and noise follow from it and the label; noise amplitudes do not change the heart.
        fs_hz: Sampling rate (Hz), 100 to 2000.
        duration_s: Length (s), 5 to 3600.
        config: Variation and noise.

    Returns:
        An `ECG` whose metadata holds ``simulated=True``, ``label``, ``seed``, the noise drawn, and the truth:
        ``heart_rate_bpm``; ``pr_ms`` (``None`` in AF), ``qrs_ms``, ``qt_ms`` and ``axis_deg`` of the conducted beats;
        ``ectopic_qrs_ms`` (PVC only); ``territory`` of an ST shift or origin of an ectopic beat; ``beats``, a tuple of
        (QRS onset in s, kind) with kind N, A or V. A wave ends where its vector falls to 5 % of its maximum.

    Raises:
        ValueError: An unknown label, or a seed, rate or length out of range.

    Example:
        >>> ecg = simulate("AF", seed=0)
        >>> ecg.signal_mv.shape, ecg.metadata["simulated"], ecg.metadata["pr_ms"]
        ((5000, 12), True, None)
    """
    _check_request(label, seed, fs_hz, duration_s)
    config = config or SimulationConfig()
    # Two streams: other noise amplitudes, or none, leave the heart as it is.
    heart, noise = (
        np.random.default_rng(part) for part in np.random.SeedSequence([seed, LABELS.index(label)]).spawn(2)
    )

    rate = heart.uniform(*(config.heart_rate_bpm or _RATES_BPM.get(label, _RATE_BPM)))
    intervals = _intervals(label, 60.0 / rate, heart)
    beats = _beats(label, intervals, heart, config)
    events = beat_events(label, 60.0 / rate, duration_s, intervals.qt_s, heart)

    n_samples = round(duration_s * fs_hz)
    vcg = np.zeros((n_samples, 3))
    for event in events:
        beats[event.kind].add_to(vcg, fs_hz, event.onset_s)
    if label == "AF":
        vcg += fibrillatory_waves(n_samples, fs_hz, heart)
    electrodes, amplitudes = electrode_noise(
        n_samples,
        fs_hz,
        noise,
        wander_mv=config.wander_mv,
        mains_mv=config.mains_mv,
        mains_hz=config.mains_hz,
        muscle_mv=config.muscle_mv,
    )
    signal = leads_from_vcg(vcg, electrodes)
    seen = [event for event in events if 0 <= event.onset_s < n_samples / fs_hz]
    truth = _truth(beats, seen, intervals, rate)
    return ECG(
        signal_mv=signal,
        fs_hz=fs_hz,
        record_name=f"simulated-{label}-{seed}",
        comments=("simulated signal, not a patient",),
        diagnoses=(label,),
        metadata={"simulated": True, "label": label, "seed": seed}
        | truth
        | {"noise": amplitudes, "config": asdict(config)},
    )


def _check_request(label: str, seed: int, fs_hz: float, duration_s: float) -> None:
    check_choice("label", label, LABELS)
    check_at_least("seed", seed, 0)
    check_between("fs_hz", fs_hz, 100, 2000, "Hz")
    check_between("duration_s", duration_s, 5, 3600, "s")


def _intervals(label: str, rr_s: float, rng: np.random.Generator) -> Intervals:
    """Draw PR, QRS and QT: QT by Fridericia from a corrected 380–430 ms, longer by what a block adds to QRS."""
    qrs = rng.uniform(*_QRS_S.get(label, (0.078, 0.104)))
    qt = rng.uniform(0.38, 0.43) * rr_s ** (1 / 3) + max(0.0, qrs - 0.1)
    qt = min(qt, 0.75 * rr_s) if label != "AF" else qt  # leaves room for the next P wave, which AF does not have
    pr = rng.uniform(0.215, 0.31) if label == "I-AVB" else rng.uniform(0.13, 0.19)
    if label == "AF":
        return Intervals(None, qrs, qt)
    lowest = 0.205 if label == "I-AVB" else 0.115  # a first-degree block stays one (above 200 ms) at any rate
    return Intervals(max(lowest, min(pr, rr_s - qt - 0.02)), qrs, qt)


def _beats(label: str, intervals: Intervals, rng: np.random.Generator, config: SimulationConfig) -> dict[str, Beat]:
    turn = rng.uniform(-1, 1) * config.axis_spread_deg
    size = 1.0 + rng.uniform(-1, 1) * config.size_spread
    beats = {"N": sinus_beat(label, intervals, rng, turn_deg=turn, size=size)}
    if label == "PAC":
        assert intervals.pr_s is not None
        early = Intervals(max(0.115, intervals.pr_s - 0.02), intervals.qrs_s, 0.95 * intervals.qt_s)
        premature = sinus_beat(label, early, rng, turn_deg=turn, size=size, ectopic_p=True)
        beats["A"] = Beat(early, premature.p, beats["N"].qrs, premature.t, (0.0, 0.0, 0.0), "atrial")
    elif label == "PVC":
        wide = rng.uniform(0.135, 0.175)
        beats["V"] = ectopic_beat(Intervals(None, wide, intervals.qt_s + wide - intervals.qrs_s), rng, size=size)
    return beats


def _truth(beats: dict[str, Beat], seen: list[Event], intervals: Intervals, rate_bpm: float) -> dict[str, object]:
    """Rate between the first and last QRS in the record (the drawn mean where there are fewer than two), and intervals."""
    onsets = [event.onset_s for event in seen]
    if len(onsets) > 1:
        rate_bpm = 60.0 * (len(onsets) - 1) / (onsets[-1] - onsets[0])
    ectopic = beats.get("V")
    return {
        "heart_rate_bpm": rate_bpm,
        "pr_ms": None if intervals.pr_s is None else 1000 * intervals.pr_s,
        "qrs_ms": 1000 * intervals.qrs_s,
        "qt_ms": 1000 * intervals.qt_s,
        "axis_deg": beats["N"].axis_deg,
        "ectopic_qrs_ms": None if ectopic is None else 1000 * ectopic.intervals.qrs_s,
        "territory": (ectopic or beats["N"]).territory,
        "beats": tuple((event.onset_s, event.kind) for event in seen),
    }
