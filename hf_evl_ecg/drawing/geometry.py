"""Where things lie on ECG paper: a layout, a size and a scale → a `Page`.

The paper follows the usual recording conventions (25 or 50 mm/s, 5, 10 or 20 mm/mV, a 1 mV calibration pulse of 200 ms):
Kligfield et al., "Recommendations for the Standardization and Interpretation of the Electrocardiogram, Part I",
Circulation 115:1306–1324, 2007.
"""

from __future__ import annotations

import math

from hf_evl_ecg.arguments import check_between, check_choice

from .layouts import Layout
from .page import Page, PaperScale, Pulse, Strip

__all__ = ["GAINS_MM_MV", "SPEEDS_MM_S", "arrange"]

SPEEDS_MM_S = (25.0, 50.0)
GAINS_MM_MV = (5.0, 10.0, 20.0)

_MM_PER_INCH = 25.4
_PULSE_S = 0.2
_PULSE_LEAD_MM = 1.0  # the line before and after a pulse
_EDGE_MM = 4.0  # left and right of everything, as printers leave it
_TOP_MM = 5.0
_HEADER_MM = 14.0  # three lines of lettering
_FOOTER_MM = 7.0
_MARGIN_NAME_MM = 9.0  # the longest name, aVR, in the left margin
_LEAST_PITCH_MM = 12.0  # below it, at 10 mm/mV, the waves of neighbouring rows cannot be told apart
_LABEL_MM = 3.4
_LABEL_RISE_MM = 16.0  # above the baseline, beyond most R waves
_ROUNDING_MM = 1e-9  # a layout that fits to the last bit must not be refused for it


def arrange(
    layout: Layout,
    *,
    width_px: int,
    height_px: int,
    dpi: float | None = None,
    speed_mm_s: float = 25.0,
    gain_mm_mv: float = 10.0,
    calibration: bool = True,
    header: bool = False,
) -> Page:
    """Place a layout on an image.

    Rows are a whole number of millimetres apart, so that every 0 mV line lies on a grid line. Lead names stand above the start
    of their traces; where every row is one lead they stand in the left margin, out of the way of neighbouring rows.

    Args:
        layout: Leads in rows.
        width_px: Image width (px).
        height_px: Image height (px).
        dpi: Resolution of the paper (dots per inch). ``None`` takes the largest at which the layout fits the image.
        speed_mm_s: Paper speed (mm/s), 25 or 50.
        gain_mm_mv: Gain (mm/mV), 5, 10 or 20.
        calibration: Leave room for a calibration pulse in each row.
        header: Leave room for lines of text above the first row.

    Returns:
        The page.

    Raises:
        ValueError: A size, dpi, speed or gain out of range, or a layout larger than the paper.

    Example:
        >>> from hf_evl_ecg.drawing.layouts import LAYOUTS
        >>> page = arrange(LAYOUTS["3x4"], width_px=1100, height_px=850, dpi=101.6)
        >>> round(page.scale.px_per_mm, 6), len(page.strips)
        (4.0, 12)
    """
    _check(width_px, height_px, dpi, speed_mm_s, gain_mm_mv)
    pulse_mm = 2 * _PULSE_LEAD_MM + _PULSE_S * speed_mm_s if calibration else 0.0
    names_in_margin = all(len(row) == 1 for row in layout.rows)
    left_mm = pulse_mm + (_MARGIN_NAME_MM if names_in_margin else 0.0)
    need_w = 2 * _EDGE_MM + left_mm + layout.duration_s * speed_mm_s
    top_mm = _HEADER_MM if header else _TOP_MM
    need_h = top_mm + _FOOTER_MM + len(layout.rows) * _LEAST_PITCH_MM
    px_per_mm = min(width_px / need_w, height_px / need_h) if dpi is None else dpi / _MM_PER_INCH
    paper_w, paper_h = width_px / px_per_mm, height_px / px_per_mm
    _check_fit(layout, (width_px, height_px), dpi, (paper_w, paper_h), (need_w, need_h))
    scale = PaperScale(speed_mm_s, gain_mm_mv, px_per_mm)
    pitch_mm = math.floor((paper_h - top_mm - _FOOTER_MM) / len(layout.rows) + _ROUNDING_MM)
    spare_mm = paper_h - top_mm - _FOOTER_MM - pitch_mm * len(layout.rows)
    text_px = ((paper_w - need_w) / 2 + _EDGE_MM) * px_per_mm
    origin = text_px + left_mm * px_per_mm, (top_mm + spare_mm / 2 + pitch_mm / 2) * px_per_mm
    pitch = pitch_mm * px_per_mm
    return Page(
        width_px=width_px,
        height_px=height_px,
        scale=scale,
        origin_px=origin,
        pitch_px=pitch,
        strips=_strips(layout, scale, origin, pitch, text_px if names_in_margin else None),
        pulses=_pulses(len(layout.rows), scale, origin, pitch) if calibration else (),
        header_px=(text_px, 0.5 * _EDGE_MM * px_per_mm),
        footer_px=(text_px, height_px - 0.5 * _EDGE_MM * px_per_mm),
        label_height_px=_LABEL_MM * px_per_mm,
    )


def _check(width_px: int, height_px: int, dpi: float | None, speed_mm_s: float, gain_mm_mv: float) -> None:
    for name, size in (("width_px", width_px), ("height_px", height_px)):
        if isinstance(size, bool) or not isinstance(size, int) or not 32 <= size <= 20000:
            raise ValueError(f"{name}={size!r}: give a whole number of pixels from 32 to 20000")
    if dpi is not None:  # which fits the layout to the image
        check_between("dpi", dpi, 10, 2400)
    check_choice("speed_mm_s", speed_mm_s, SPEEDS_MM_S)
    check_choice("gain_mm_mv", gain_mm_mv, GAINS_MM_MV)


def _check_fit(
    layout: Layout,
    size_px: tuple[int, int],
    dpi: float | None,
    paper_mm: tuple[float, float],
    need_mm: tuple[float, float],
) -> None:
    if any(there < needed - _ROUNDING_MM for there, needed in zip(paper_mm, need_mm, strict=True)):
        needed = f"layout {layout.name!r} needs {need_mm[0]:.1f} x {need_mm[1]:.1f} mm"
        found = f"{size_px[0]} x {size_px[1]} px at dpi={dpi} is {paper_mm[0]:.1f} x {paper_mm[1]:.1f} mm"
        raise ValueError(f"{needed}, but {found}: lower dpi, enlarge the image, or leave dpi=None to fit it")


def _strips(
    layout: Layout, scale: PaperScale, origin: tuple[float, float], pitch: float, margin_px: float | None
) -> tuple[Strip, ...]:
    strips = []
    rise = min(_LABEL_RISE_MM * scale.px_per_mm, pitch / 2 - _LABEL_MM * scale.px_per_mm)
    for row, leads in enumerate(layout.rows):
        duration = layout.strip_duration_s(row)
        baseline = origin[1] + row * pitch
        for column, lead in enumerate(leads):
            left = origin[0] + column * duration * scale.px_per_s
            right = left + duration * scale.px_per_s
            label = (left + scale.px_per_mm, baseline - rise)
            if margin_px is not None:
                label = (margin_px, baseline + _LABEL_MM / 2 * scale.px_per_mm)
            strips.append(Strip(lead, row, column * duration, duration, left, right, baseline, label))
    return tuple(strips)


def _pulses(rows: int, scale: PaperScale, origin: tuple[float, float], pitch: float) -> tuple[Pulse, ...]:
    end = origin[0]
    fall = end - _PULSE_LEAD_MM * scale.px_per_mm
    rise = fall - _PULSE_S * scale.px_per_s
    start = rise - _PULSE_LEAD_MM * scale.px_per_mm
    feet = (origin[1] + row * pitch for row in range(rows))
    return tuple(Pulse(start, rise, fall, end, foot, foot - scale.px_per_mv) for foot in feet)
