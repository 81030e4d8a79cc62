"""Does a recording fit on its paper? What a drawing cuts off or leaves blank, and the gain at which it cuts off nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

from .config import RenderConfig
from .geometry import GAINS_MM_MV
from .page import Strip

__all__ = ["blank_leads", "cut_leads", "fit_gain"]

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
    for strip in page.strips:
        begin, stop = strip.samples(ecg.fs_hz, len(ecg))
        signal = ecg.lead(strip.lead)[begin:stop]
        top, bottom = 0.0, float(page.height_px)
        if config.overflow == "clamp":
            top, bottom = (strip.baseline_px + side * page.pitch_px / 2 for side in (-1, 1))
        if len(signal) and (
            page.y_px(strip, np.fmax.reduce(signal)) < top or page.y_px(strip, np.fmin.reduce(signal)) > bottom
        ):
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


def fit_gain(ecg: ECG, config: RenderConfig) -> RenderConfig:
    """The configuration with the largest gain up to its own at which no lead is cut, as carts choose it; at least 5 mm/mV.

    Example:
        >>> import numpy as np
        >>> fit_gain(ECG(np.full((5000, 12), 4.0, np.float32), fs_hz=500), RenderConfig()).gain_mm_mv
        5.0
    """
    for gain in sorted((gain for gain in GAINS_MM_MV if gain <= config.gain_mm_mv), reverse=True):
        fitted = replace(config, gain_mm_mv=gain)
        if not cut_leads(ecg, fitted):
            break
    return fitted
