"""Where things lie on ECG paper: seconds and millivolts → millimetres → pixels, and layouts as data.

Pixel coordinates are continuous: pixel ``i`` covers the interval ``[i, i + 1)``, y grows downwards.
The paper follows the usual recording conventions (25 or 50 mm/s, 5, 10 or 20 mm/mV, a 1 mV calibration pulse of 200 ms):
Kligfield et al., "Recommendations for the Standardization and Interpretation of the Electrocardiogram, Part I",
Circulation 115:1306–1324, 2007.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_evl_ecg.signals.ecg import STANDARD_LEADS

__all__ = [
    "GAINS_MM_MV",
    "LAYOUTS",
    "SPEEDS_MM_S",
    "Layout",
    "Page",
    "PaperScale",
    "Pulse",
    "Strip",
    "arrange",
]

SPEEDS_MM_S = (25.0, 50.0)
GAINS_MM_MV = (5.0, 10.0, 20.0)

_MM_PER_INCH = 25.4
_PULSE_S = 0.2
_PULSE_LEAD_MM = 1.0
_EDGE_MM = 4.0
_TOP_MM = 5.0
_HEADER_MM = 14.0
_FOOTER_MM = 7.0
_MARGIN_NAME_MM = 9.0
_LEAST_PITCH_MM = 12.0
_LABEL_MM = 3.4
_LABEL_RISE_MM = 16.0


@dataclass(frozen=True)
class Layout:
    """Which leads stand where: rows of leads that share the record's time equally.

    A row of four leads over 10 s shows each for 2.5 s, one after the other, as an ECG cart prints them; a row of one lead
    is a rhythm strip.

    Args:
        name: Name of the layout.
        rows: For each row from the top, its leads from the left.
        duration_s: Time each row covers (s).

    Raises:
        ValueError: No rows, an empty row, an unknown lead, or a duration that is not positive and finite.

    Example:
        >>> Layout("limb", (("I", "II"),), 5.0).strip_duration_s(0)
        2.5
    """

    name: str
    rows: tuple[tuple[str, ...], ...]
    duration_s: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        object.__setattr__(self, "duration_s", float(self.duration_s))
        if not self.rows or not all(self.rows):
            raise ValueError(
                f"layout {self.name!r} has {self.rows!r}: give at least one row, and at least one lead per row"
            )
        unknown = [lead for row in self.rows for lead in row if lead not in STANDARD_LEADS]
        if unknown:
            raise ValueError(f"layout {self.name!r} names the leads {unknown}: allowed are {list(STANDARD_LEADS)}")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(
                f"layout {self.name!r} has duration_s={self.duration_s}: give a positive number of seconds"
            )

    def strip_duration_s(self, row: int) -> float:
        """Seconds for which each lead of a row is shown."""
        return self.duration_s / len(self.rows[row])

    def blank_leads(self, duration_s: float) -> tuple[str, ...]:
        """Leads of which nothing is shown of a recording of this length (s), because their place begins after its end.

        Example:
            >>> LAYOUTS["3x4+rhythm"].blank_leads(6.0)
            ('V4', 'V5', 'V6')
        """
        begins = [(lead, i * self.strip_duration_s(n)) for n, row in enumerate(self.rows) for i, lead in enumerate(row)]
        blank = {lead for lead, _ in begins} - {lead for lead, start_s in begins if start_s < duration_s}
        return tuple(lead for lead in STANDARD_LEADS if lead in blank)


_THREE_BY_FOUR = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("3x4+rhythm", (*_THREE_BY_FOUR, ("II",))),
        Layout("3x4", _THREE_BY_FOUR),
        Layout("6x2", tuple(zip(STANDARD_LEADS[:6], STANDARD_LEADS[6:], strict=True))),
        Layout("12x1", tuple((lead,) for lead in STANDARD_LEADS)),
    )
}
"""The four common layouts by name; ``"3x4+rhythm"`` is the default everywhere."""


@dataclass(frozen=True)
class PaperScale:
    """Paper speed (mm/s), gain (mm/mV) and resolution (pixels per mm).

    Example:
        >>> scale = PaperScale(25.0, 10.0, 4.0)
        >>> scale.px_per_s, scale.px_per_mv
        (100.0, 40.0)
    """

    speed_mm_s: float
    gain_mm_mv: float
    px_per_mm: float

    @property
    def px_per_s(self) -> float:
        """Horizontal pixels per second."""
        return self.speed_mm_s * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        """Vertical pixels per millivolt."""
        return self.gain_mm_mv * self.px_per_mm


@dataclass(frozen=True)
class Strip:
    """One lead over one stretch of time.

    Attributes:
        lead: Lead name.
        row: Row of the layout, from the top.
        start_s: Time in the record at the strip's left edge (s).
        duration_s: Time shown (s).
        left_px: x of the left edge (px).
        right_px: x of the right edge (px).
        baseline_px: y of 0 mV (px).
        label_px: Left bottom corner of the lead's name (px).
    """

    lead: str
    row: int
    start_s: float
    duration_s: float
    left_px: float
    right_px: float
    baseline_px: float
    label_px: tuple[float, float]

    def samples(self, fs_hz: float, count: int) -> tuple[int, int]:
        """First and past-the-last sample of a record of ``count`` that the strip shows, those beyond its edges included.

        Example:
            >>> Strip("V1", 0, 2.5, 2.5, 0.0, 250.0, 50.0, (0.0, 0.0)).samples(500.0, 5000)
            (1250, 2501)
        """
        first = self.start_s * fs_hz
        stop = min(count, math.ceil(first + self.duration_s * fs_hz) + 1)
        return min(math.floor(first), stop), stop


@dataclass(frozen=True)
class Pulse:
    """A calibration pulse, 1 mV for 200 ms: where its line starts, rises, falls and ends (x), and its foot and top (y), in px."""

    start_px: float
    rise_px: float
    fall_px: float
    end_px: float
    foot_px: float
    top_px: float


@dataclass(frozen=True)
class Page:
    """A sheet with everything placed.

    Attributes:
        width_px: Image width (px).
        height_px: Image height (px).
        scale: Millimetres and pixels.
        origin_px: A point where two thick grid lines cross: start of the first trace on its 0 mV line (px).
        pitch_px: Distance between rows (px).
        strips: Every lead's place, row by row.
        pulses: One calibration pulse per row, or none.
        header_px: Left top corner of the header (px).
        footer_px: Left bottom corner of the line that names speed and gain (px).
        label_height_px: Height of the lettering (px).
    """

    width_px: int
    height_px: int
    scale: PaperScale
    origin_px: tuple[float, float]
    pitch_px: float
    strips: tuple[Strip, ...]
    pulses: tuple[Pulse, ...]
    header_px: tuple[float, float]
    footer_px: tuple[float, float]
    label_height_px: float

    def x_px(self, strip: Strip, time_s: float) -> float:
        """The x (px) of a time in the record (s) on a strip."""
        return strip.left_px + (time_s - strip.start_s) * self.scale.px_per_s

    def y_px(self, strip: Strip, value_mv: float) -> float:
        """The y (px) of a voltage (mV) on a strip."""
        return strip.baseline_px - value_mv * self.scale.px_per_mv


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
    pitch_mm = math.floor((paper_h - top_mm - _FOOTER_MM) / len(layout.rows) + 1e-9)
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
    if dpi is not None and not (math.isfinite(dpi) and 10 <= dpi <= 2400):
        raise ValueError(f"dpi={dpi}: give 10 to 2400, or None to fit the layout to the image")
    if speed_mm_s not in SPEEDS_MM_S:
        raise ValueError(f"speed_mm_s={speed_mm_s}: allowed are {list(SPEEDS_MM_S)}")
    if gain_mm_mv not in GAINS_MM_MV:
        raise ValueError(f"gain_mm_mv={gain_mm_mv}: allowed are {list(GAINS_MM_MV)}")


def _check_fit(
    layout: Layout,
    size_px: tuple[int, int],
    dpi: float | None,
    paper_mm: tuple[float, float],
    need_mm: tuple[float, float],
) -> None:
    if any(there < needed - 1e-9 for there, needed in zip(paper_mm, need_mm, strict=True)):
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
