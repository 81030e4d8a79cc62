"""Samples that a record marks as missing: gaps, which are filled or refused, and digitised paper, which holds a stretch of each lead."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_evl_ecg.signals.gaps import fill_gaps, recorded_spans

from .header import ECGRecordError

__all__ = ["describe_spans", "is_digitised", "treat_gaps"]

LARGEST_SHARE = 0.51  # of the record; two columns of leads share it in halves, up to rounding
SHORTEST_S = 1.0  # of a stretch; one beat at 60/min


def is_digitised(signal: np.ndarray, fs_hz: float) -> bool:
    """Whether most leads hold one stretch of at most half the time each, as printed pages do that were made into samples again.

    Args:
        signal: Shape (T, leads), NaN where a sample is missing.
        fs_hz: Sampling rate in Hz.

    Example:
        >>> page = np.full((1000, 12), np.nan)
        >>> for lead in range(12):
        ...     page[lead // 3 * 250 : lead // 3 * 250 + 250, lead] = 0.0
        >>> is_digitised(page, 100.0), is_digitised(np.zeros((1000, 12)), 100.0)
        (True, False)
    """
    lengths = [stop - start for start, stop in recorded_spans(signal) if stop]
    short = [length for length in lengths if length <= LARGEST_SHARE * len(signal)]
    return 2 * len(short) >= signal.shape[1] and min(lengths) >= SHORTEST_S * fs_hz


def describe_spans(signal: np.ndarray, leads: Sequence[str], fs_hz: float) -> str:
    """Which leads were recorded when, those of one stretch together.

    Example:
        >>> describe_spans(np.array([[0.0, 0.0, np.nan], [np.nan, np.nan, np.nan]]), ["I", "II", "V1"], 1.0)
        '0 to 1 s of I, II; nothing of V1'
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for lead, span in zip(leads, recorded_spans(signal), strict=True):
        groups.setdefault(span, []).append(lead)
    return "; ".join(
        f"{start / fs_hz:.3g} to {stop / fs_hz:.3g} s of {', '.join(names)}"
        if stop
        else f"nothing of {', '.join(names)}"
        for (start, stop), names in groups.items()
    )


def treat_gaps(
    signal: np.ndarray, leads: Sequence[str], policy: str, path: Path, *, digitised: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """The signal with its gaps filled, and how many samples of which lead were filled.

    Args:
        signal: Shape (T, leads), NaN where a sample is missing.
        leads: Names of its columns.
        policy: "raise", or "interpolate" linearly within each lead.
        path: The record's header, for messages.
        digitised: Gaps are those within the leads' stretches; before and behind them NaN stays. Otherwise ends hold their nearest value.

    Raises:
        ECGRecordError: There are gaps, and the policy is to raise; or they are more than half of a lead or stretch.
    """
    holes = np.isnan(signal)
    spans = recorded_spans(signal) if digitised else [(0, len(signal))] * len(leads)
    counts = {lead: int(holes[a:b, i].sum()) for i, (lead, (a, b)) in enumerate(zip(leads, spans, strict=True))}
    largest = max((counts[lead] / max(1, (b - a) // 2) for lead, (a, b) in zip(leads, spans, strict=True)), default=0.0)
    counts = {lead: count for lead, count in counts.items() if count}
    if not counts:
        return signal, {}
    if policy == "raise" or largest > 1:
        allowed = "a value for every sample; nan='interpolate' (--missing interpolate) fills gaps of up to half a lead"
        raise ECGRecordError(path, "missing samples per lead", counts, allowed)
    filled = fill_gaps(signal)
    if digitised:
        for column, (start, stop) in enumerate(spans):
            filled[:start, column] = filled[stop:, column] = np.nan
    return filled, counts
