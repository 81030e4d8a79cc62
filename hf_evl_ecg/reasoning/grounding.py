"""Where a finding is seen: leads, a time range among others, a range of values. What the truth does not settle is not asked."""

from __future__ import annotations

import random
from itertools import pairwise

from .chains import Step
from .criteria import LeadTest
from .truth import BeatTimes, ECGTruth

__all__ = ["lead_step", "time_step", "value_step"]

Range = tuple[float, float]

_LEAST_S = 0.06  # a shorter range cannot be found on paper
_PAD_S = (
    0.02,
    0.06,
)  # before and after what is looked for: its exact limits would give away the duration that is asked for next
_RR_GAP_S = 0.08  # two small squares: by how much the longest interval must exceed those it is told from
_RANGES = "The options are time ranges from the begin of the recording, in seconds."
_TIME_QUESTIONS = {
    "pr": f"Which of the following ranges holds a P wave and the begin of its QRS complex? {_RANGES}",
    "qrs": f"Which of the following ranges holds a whole QRS complex? {_RANGES}",
    "rr": f"Which of the following RR intervals is the longest? {_RANGES}",
    "early": f"Which of the following ranges holds the QRS complex of a premature beat? {_RANGES}",
}
_VALUES: dict[str, tuple[str, float, float, str]] = {  # question, lowest edge, width of a bin, unit
    "pr": ("Which range does the PR interval fall into?", 200, 20, "ms"),
    "qrs": ("Which range does the duration of the QRS complex fall into?", 120, 10, "ms"),
    "early_qrs": ("Which range does the duration of the premature QRS complex fall into?", 120, 10, "ms"),
    "rr": ("Which range does the shortest RR interval of the recording fall into?", 200, 100, "ms"),
    "coupling": (
        "Which range does the interval from the QRS complex before the first premature beat to its own fall into, begin to begin?",
        300,
        100,
        "ms",
    ),
    "st_up": ("Which range does the ST segment's elevation in lead {lead} fall into, 60 ms after the end of QRS?", 0.1, 0.05, "mV"),
    "st_down": ("Which range does the ST segment's depression in lead {lead} fall into, 60 ms after the end of QRS?", 0.05, 0.05, "mV"),
}  # fmt: skip
_N_OPTIONS = 4
_EDGE = 0.05  # share of a bin's width next to its edges that is not asked about


def lead_step(test: LeadTest, truth: ECGTruth, loop: int) -> Step | None:
    """Which leads show it, of those that clearly do or do not; None unless some do and some do not."""
    answers = {lead: test.shows(truth.shapes[lead], lead) for lead in test.leads if lead in truth.shapes}
    clear = {lead: shows for lead, shows in answers.items() if shows is not None}
    if len(set(clear.values())) < 2:
        return None
    options = tuple(f"Lead {lead}" for lead in clear)
    right = frozenset(i for i, shows in enumerate(clear.values()) if shows)
    return Step("lead", f"{test.question} Select all that apply.", options, right, loop)


def time_step(kind: str, truth: ECGTruth, rng: random.Random, loop: int) -> Step | None:
    """A range of the kind among three that are none; None where there are too few.

    Args:
        kind: "pr", "qrs", "rr" (the longest) or "early" (QRS of a premature beat).
        truth: What is known.
        rng: Chooses among them, and how far beyond what is looked for they reach.
        loop: Of the step.
    """
    right, wrong = _candidates(kind, truth)
    if kind != "rr":
        right = [_padded(r, rng) for r in right]
    if kind == "early":  # all options are QRS complexes
        wrong = [_padded(r, rng) for r in wrong]
    right, wrong = ([r for r in ranges if r[1] - r[0] >= _LEAST_S and r[0] >= 0] for ranges in (right, wrong))
    if not right or len(wrong) < _N_OPTIONS - 1:
        return None
    chosen = rng.choice(right)
    ranges = sorted([chosen, *rng.sample(wrong, _N_OPTIONS - 1)])
    options = tuple(f"[{begin:.2f}s - {end:.2f}s]" for begin, end in ranges)
    if len(set(options)) < _N_OPTIONS:
        return None
    return Step("wave", _TIME_QUESTIONS[kind], options, frozenset({ranges.index(chosen)}), loop)


def value_step(quantity: str, truth: ECGTruth, rng: random.Random, loop: int, leads: Step | None = None) -> Step | None:
    """The range that a measured value falls into, among neighbouring ones; None where it is not known, or lies at an edge.

    Args:
        quantity: "pr", "qrs", "early_qrs", "rr", "coupling", "st_up" or "st_down".
        truth: What is known.
        rng: Chooses which ranges are offered, and the lead of an ST shift.
        loop: Of the step.
        leads: Leads that show an ST shift, one of which is asked about.
    """
    question, low, width, unit = _VALUES[quantity]
    lead = ""
    if quantity in ("st_up", "st_down"):
        if leads is None:
            return None
        lead = leads.options[rng.choice(sorted(leads.answer))].removeprefix("Lead ")
    value = _value(quantity, truth, lead)
    if value is None or value < low:
        return None
    place = (value - low) / width
    # An interval of LUDB is as exact as its boundaries are.
    margin = max(_EDGE, truth.margin_ms / 2 / width) if unit == "ms" else _EDGE
    if min(place % 1, 1 - place % 1) < margin:
        return None
    bin_ = int(place)
    first = max(0, bin_ - rng.randrange(_N_OPTIONS))
    options = tuple(_bin_text(low + width * (first + k), width, unit) for k in range(_N_OPTIONS))
    return Step("measurement", question.format(lead=lead), options, frozenset({bin_ - first}), loop)


def _padded(found: Range, rng: random.Random) -> Range:
    return found[0] - rng.uniform(*_PAD_S), found[1] + rng.uniform(*_PAD_S)


def _bin_text(begin: float, width: float, unit: str) -> str:
    digits = 0 if unit == "ms" else 2
    return f"[{begin:.{digits}f}{unit} - {begin + width:.{digits}f}{unit}]"


def _candidates(kind: str, truth: ECGTruth) -> tuple[list[Range], list[Range]]:
    """Ranges that are right, and ranges that are wrong."""
    plain = [beat for beat in truth.beats if beat.kind in ("N", "?")]
    if kind == "early":
        early = [beat.qrs_s for beat in truth.beats if beat.kind in ("A", "V")]
        return early, [beat.qrs_s for beat in plain]
    if kind == "rr":
        intervals = sorted(truth.rr_s, key=lambda r: r[1] - r[0])
        longest = intervals[-1]
        least = longest[1] - longest[0] - _RR_GAP_S
        return [longest], [r for r in intervals[:-1] if r[1] - r[0] < least]
    pr = [(beat.p_s, beat.qrs_s[0]) for beat in plain if beat.p_s is not None]
    qrs = [beat.qrs_s for beat in plain]
    others = _between(truth.beats)  # neither P wave nor QRS
    return (pr, qrs + others) if kind == "pr" else (qrs, pr + others)


def _between(beats: tuple[BeatTimes, ...]) -> list[Range]:
    """From the end of QRS to the end of T, and on to the next P wave."""
    found = []
    for beat, after in pairwise(beats):
        if beat.t_s is None:
            continue
        found.append((beat.qrs_s[1], beat.t_s))
        if after.p_s is not None and after.p_s > beat.t_s:
            found.append((beat.t_s, after.p_s))
    return found


def _value(quantity: str, truth: ECGTruth, lead: str) -> float | None:
    if quantity == "pr":
        return truth.pr_ms
    if quantity == "qrs":
        return truth.qrs_ms
    if quantity == "rr":
        return min((1000 * (end - begin) for begin, end in truth.rr_s), default=None) if truth.complete else None
    if quantity in ("st_up", "st_down"):
        return truth.shapes[lead].st_mv * (1 if quantity == "st_up" else -1)
    early = next((i for i, beat in enumerate(truth.beats) if beat.kind in ("A", "V")), None)
    if not early:  # none, or the first beat, whose interval began before the recording
        return None
    begin, end = truth.beats[early].qrs_s
    return 1000 * (end - begin) if quantity == "early_qrs" else 1000 * (begin - truth.beats[early - 1].qrs_s[0])
