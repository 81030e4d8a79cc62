"""What is known of a record for certain: its beats in time, which waves they have, and what each lead shows.

Of a simulated record all follows from its parameters, and from its leads without noise; of one of LUDB from the cardiologists'
boundaries and statements. What is not known is None, and nothing is asked about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hf_evl_ecg.data.load import load_ecg
from hf_evl_ecg.records.delineations import Wave, read_delineation
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS
from hf_evl_ecg.signals.simulation import SimulationConfig, simulate

__all__ = ["BeatTimes", "ECGTruth", "LeadShape", "ludb_truth", "measure_leads", "simulated_truth"]

QUIET = SimulationConfig(wander_mv=0.0, mains_mv=0.0, muscle_mv=0.0)
ST_AFTER_S = 0.06  # behind the end of QRS, where its own end no longer counts
_TERMINAL = 0.65  # a QRS complex ends with what comes after this share of it
_SINUS = frozenset({"SR", "SBRAD", "STACH", "SARRH"})


@dataclass(frozen=True)
class BeatTimes:
    """One heartbeat in time (s).

    Attributes:
        kind: N (as conducted), A or V (premature, from atria or ventricles); "?" where that is not known.
        qrs_s: Begin and end of QRS.
        p_s: Begin of the P wave; None where there is none, or it is not known.
        t_s: End of the T wave; None where it is not known.
    """

    kind: str
    qrs_s: tuple[float, float]
    p_s: float | None = None
    t_s: float | None = None


@dataclass(frozen=True)
class LeadShape:
    """The conducted beats of one lead, median over beats.

    Attributes:
        net: Area of QRS over its absolute area: 1 is wholly positive, -1 wholly negative.
        terminal: Mean of the last 35 % of QRS over its largest deflection.
        st_mv: Level 60 ms behind the end of QRS, against the line before QRS (mV).
    """

    net: float
    terminal: float
    st_mv: float


@dataclass(frozen=True)
class ECGTruth:
    """What is known of a record.

    Attributes:
        labels: Codes of what it has.
        known: Codes that it was checked for.
        beats: In order of time.
        has_p: Whether conducted beats have P waves, each followed by its QRS; None where that is not known.
        premature: Whether there are premature beats; None where that is not known.
        pr_ms: PR interval of conducted beats.
        qrs_ms: Duration of their QRS.
        shapes: Leads and what they show; leads that were not measured are missing.
        territory: Wall of an ST elevation; empty where there is none, or it is not known.
        margin_ms: How far an interval must be from a threshold for the truth to be certain.
        complete: Whether ``beats`` are all of the recording; LUDB's first and last ones are not marked.
    """

    labels: frozenset[str]
    known: frozenset[str]
    beats: tuple[BeatTimes, ...]
    has_p: bool | None
    premature: bool | None
    pr_ms: float | None
    qrs_ms: float | None
    shapes: Mapping[str, LeadShape] = field(default_factory=dict)
    territory: str = ""
    margin_ms: float = 0.0
    complete: bool = True

    @property
    def rr_s(self) -> list[tuple[float, float]]:
        """Begin and end of each interval between neighbouring QRS complexes, from onset to onset (s)."""
        return [(a.qrs_s[0], b.qrs_s[0]) for a, b in pairwise(self.beats)]


def simulated_truth(record: str) -> ECGTruth:
    """The truth about ``LABEL/SEED`` of `hf_evl_ecg.sources.simulated`, from its parameters and its leads without noise.

    Example:
        >>> truth = simulated_truth("I-AVB/4")
        >>> truth.pr_ms > 200, truth.has_p, truth.premature
        (True, True, False)
    """
    label, _, seed = record.partition("/")
    ecg = simulate(label, seed=int(seed), config=QUIET)
    facts = ecg.metadata
    qrs, wide = facts["qrs_ms"] / 1000, (facts["ectopic_qrs_ms"] or 0.0) / 1000
    pr = None if facts["pr_ms"] is None else facts["pr_ms"] / 1000
    beats = tuple(
        BeatTimes(
            kind,
            (onset, onset + (wide if kind == "V" else qrs)),
            onset - pr if kind == "N" and pr is not None else None,
            onset + facts["qt_ms"] / 1000 if kind == "N" else None,
        )
        for onset, kind in facts["beats"]
    )
    return ECGTruth(
        labels=frozenset({label}),
        known=frozenset({"AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"}),
        beats=beats,
        has_p=pr is not None,
        premature=any(beat.kind != "N" for beat in beats),
        pr_ms=facts["pr_ms"],
        qrs_ms=facts["qrs_ms"],
        shapes=measure_leads(ecg, [beat.qrs_s for beat in beats if beat.kind == "N"]),
        territory=facts["territory"] if label == "STE" else "",
    )


def ludb_truth(row: Mapping[str, Any]) -> ECGTruth:
    """The truth about a row of `hf_evl_ecg.sources.ludb.load_ludb`, from the boundaries in lead II and the statements.

    Which beats are premature, and from where an ST shift comes, LUDB does not say.

    Raises:
        ECGRecordError: A file of the record is missing or damaged.
    """
    labels = frozenset(row["labels"])
    ecg = load_ecg(row)
    waves = read_delineation(resolve_inside(f"{row['record']}.ii", Path(row["root"])))
    beats = _delineated_beats(waves, ecg.fs_hz)
    fibrillates = bool(labels & {"AF", "AFLT"})
    # A block of the second or third degree leaves P waves alone; LUDB states it in words that are no label here.
    blocked = any("av block" in text.lower() and not text.lower().startswith("i degree") for text in row["diagnoses"])
    paced = "PACE" in labels
    return ECGTruth(
        labels=labels,
        known=frozenset({"AF", "I-AVB", "LBBB", "RBBB"}) if not paced else frozenset(),
        beats=beats,
        has_p=False if "AF" in labels else True if labels & _SINUS and not fibrillates and not blocked else None,
        premature=None,
        pr_ms=row["pr_interval"],
        qrs_ms=row["qrs_duration"],
        shapes=measure_leads(ecg, [beat.qrs_s for beat in beats]),
        margin_ms=10.0,
        complete=False,
    )


def measure_leads(ecg: ECG, qrs_s: Sequence[tuple[float, float]]) -> dict[str, LeadShape]:
    """What each lead shows of the given QRS complexes; empty where none lies wholly in the record.

    Args:
        ecg: The record.
        qrs_s: Begin and end of each complex (s).
    """
    signal, fs = np.asarray(ecg.signal_mv, np.float64), ecg.fs_hz
    found = []
    for begin_s, end_s in qrs_s:
        begin, end, st = (round(time * fs) for time in (begin_s, end_s, end_s + ST_AFTER_S))
        if begin < 0.02 * fs or st + 2 >= len(signal) or end - begin < 4:
            continue
        level = signal[begin - round(0.02 * fs) : begin - round(0.004 * fs)].mean(0)
        complex_mv = signal[begin:end] - level
        largest = np.abs(complex_mv).max(0) + 1e-9
        net = complex_mv.sum(0) / (np.abs(complex_mv).sum(0) + 1e-9)
        terminal = complex_mv[round(_TERMINAL * len(complex_mv)) :].mean(0) / largest
        found.append((net, terminal, signal[st - 2 : st + 3].mean(0) - level))
    if not found:
        return {}
    medians = np.median(np.asarray(found), axis=0)
    return {lead: LeadShape(*(float(values[i]) for values in medians)) for i, lead in enumerate(STANDARD_LEADS)}


def _delineated_beats(waves: Sequence[Wave], fs_hz: float) -> tuple[BeatTimes, ...]:
    """QRS complexes with the P wave right before and the T wave right after them."""
    beats = []
    for i, wave in enumerate(waves):
        if wave.kind != "N":
            continue
        before, after = waves[i - 1] if i else None, waves[i + 1] if i + 1 < len(waves) else None
        p = before.onset / fs_hz if before is not None and before.kind == "p" else None
        t = after.offset / fs_hz if after is not None and after.kind == "t" else None
        beats.append(BeatTimes("?", (wave.onset / fs_hz, wave.offset / fs_hz), p, t))
    return tuple(beats)
