"""Does a recording fit on its paper? What a drawing cuts off, crosses or leaves blank, and the gain at which all finds room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

from .config import RenderConfig
from .geometry import GAINS_MM_MV
from .page import Page, Strip

__all__ = ["blank_leads", "crossing_leads", "cut_leads", "fit_gain"]

PASSED_MM = 3.0  # beyond a neighbour's 0 mV line, where a wave can be taken for one of that lead
BLANK_S = 0.1  # two and a half small squares: less is the rounding of a page's columns, not a part of a lead


def cut_leads(ecg: ECG, config: RenderConfig) -> tuple[str, ...]:
    """Leads of which a part is not drawn: it lies beyond the edge of the paper or, where traces are clamped, of its row.

    Args:
        ecg: The record, in mV.
        config: How it is drawn.

    Example:
        >>> import numpy as np
        >>> tall = ECG(np.full((5000, 12), 4.0, np.float32), fs_hz=500)
        >>> cut_leads(tall, RenderConfig()), cut_leads(tall, RenderConfig(gain_mm_mv=5))
        (('I', 'aVR', 'V1', 'V4'), ())
    """
    page, cut = config.page(), []
    for strip, up, down in _reaches(ecg, page):
        top, bottom = strip.baseline_px, page.height_px - strip.baseline_px
        if config.overflow == "clamp":
            top = bottom = page.pitch_px / 2
        if up > top or down > bottom:
            cut.append(strip.lead)
    return tuple(dict.fromkeys(cut))


def blank_leads(ecg: ECG, config: RenderConfig) -> tuple[str, ...]:
    """Leads no place of which is filled: the recording ends before one, or nothing was recorded in a part of it.

    Args:
        ecg: The record, in mV.
        config: How it is drawn.

    Example:
        >>> signal = np.zeros((5000, 12))
        >>> signal[:1250, 6:9] = np.nan
        >>> page = ECG(signal, fs_hz=500, allow_missing=True)
        >>> blank_leads(page, RenderConfig()), blank_leads(page, RenderConfig(layout="12x1"))
        ((), ('V1', 'V2', 'V3'))
    """
    strips = config.page().strips
    shown = {strip.lead for strip in strips if _is_filled(ecg, strip)}
    return tuple(lead for lead in STANDARD_LEADS if lead in {strip.lead for strip in strips} - shown)


def _is_filled(ecg: ECG, strip: Strip) -> bool:
    begin, stop = strip.samples(ecg.fs_hz, len(ecg))
    missing = np.isnan(ecg.lead(strip.lead)[begin:stop]).sum()
    return bool(strip.start_s < ecg.duration_s and missing <= BLANK_S * ecg.fs_hz)


def crossing_leads(ecg: ECG, config: RenderConfig) -> tuple[str, ...]:
    """Leads that run into another row: they pass the 0 mV line of the row above or below. Tips that overlap are usual on paper.

    Args:
        ecg: The record, in mV.
        config: How it is drawn.

    Example:
        >>> signal = np.zeros((5000, 12))
        >>> signal[3000:3010, 6] = -7.0
        >>> crossing_leads(ECG(signal, fs_hz=500), RenderConfig()), crossing_leads(ECG(signal / 4, fs_hz=500), RenderConfig())
        (('V1',), ())
    """
    page, found = config.page(), []
    if config.overflow == "clamp":
        return ()
    last = max(strip.row for strip in page.strips)
    room = page.pitch_px + PASSED_MM * page.scale.px_per_mm
    for strip, up, down in _reaches(ecg, page):
        if (strip.row > 0 and up > room) or (strip.row < last and down > room):
            found.append(strip.lead)
    return tuple(dict.fromkeys(found))


def _reaches(ecg: ECG, page: Page) -> Iterator[tuple[Strip, float, float]]:
    """Each strip, and how far its trace goes above and below its 0 mV line (px)."""
    for strip in page.strips:
        begin, stop = strip.samples(ecg.fs_hz, len(ecg))
        height = ecg.lead(strip.lead)[begin:stop] * page.scale.px_per_mv
        yield strip, float(np.fmax.reduce(height, initial=0.0)), float(-np.fmin.reduce(height, initial=0.0))


def fit_gain(ecg: ECG, config: RenderConfig) -> RenderConfig:
    """The configuration with the largest gain up to its own at which no lead is cut or crosses another, at least 5 mm/mV.

    So do carts choose it.

    Example:
        >>> import numpy as np
        >>> fit_gain(ECG(np.full((5000, 12), 4.0, np.float32), fs_hz=500), RenderConfig()).gain_mm_mv
        5.0
    """
    for gain in sorted((gain for gain in GAINS_MM_MV if gain <= config.gain_mm_mv), reverse=True):
        fitted = replace(config, gain_mm_mv=gain)
        if not cut_leads(ecg, fitted) and not crossing_leads(ecg, fitted):
            break
    return fitted
