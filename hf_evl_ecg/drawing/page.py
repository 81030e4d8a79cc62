"""A sheet with everything in its place: seconds and millivolts → millimetres → pixels.

Pixel coordinates are continuous: pixel ``i`` covers the interval ``[i, i + 1)``, y grows downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Page", "PaperScale", "Pulse", "Strip"]


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
