"""A 12-lead ECG drawn on ECG paper: `render` makes a PIL image from an `ECG` and a `RenderConfig`.

The grid is exact to the millimetre, traces are anti-aliased at sub-pixel precision, and the same input always gives the
same bytes. Everything that does not depend on the record (paper, grid, lead names, calibration pulses) is drawn once per
configuration and kept. Where rows meet, traces overlap as they do on real paper (``overflow="overlap"``), or the pen stops
half-way to the next row (``"clamp"``). Times a record does not cover stay blank.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from string import Formatter
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_evl_ecg.signals.ecg import ECG

from .geometry import LAYOUTS, Layout, Page, Strip, arrange
from .strokes import Coverage, box_coverage, line_coverage, stroke_coverage

__all__ = ["PALETTES", "Palette", "RenderConfig", "render"]

_DRAWING_VERSION = 1
_THIN_MM = 0.12
_THICK_MM = 0.25
_LEAST_TRACE_PX = 1.0
_LEAST_TEXT_PX = 7.0
_LEAST_INK = 1.0 / 512.0
_GRIDS = ("full", "thick", "none")
_OVERFLOWS = ("overlap", "clamp")
_MODES = ("RGB", "L")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours of the paper, the 1 mm and the 5 mm lines, and the ink, as (red, green, blue) from 0 to 255.

    Raises:
        ValueError: A colour that is not three whole numbers from 0 to 255.
    """

    paper: Colour
    thin: Colour
    thick: Colour
    ink: Colour

    def __post_init__(self) -> None:
        for name in ("paper", "thin", "thick", "ink"):
            colour = tuple(getattr(self, name))
            if len(colour) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in colour):
                raise ValueError(f"{name}={colour}: give (red, green, blue) as whole numbers from 0 to 255")
            object.__setattr__(self, name, colour)


PALETTES = {
    "red": Palette((255, 253, 252), (250, 192, 192), (238, 134, 134), (20, 20, 30)),
    "pink": Palette((255, 240, 240), (246, 196, 202), (232, 146, 158), (30, 25, 40)),
    "orange": Palette((255, 252, 246), (252, 206, 164), (240, 150, 92), (25, 25, 25)),
    "green": Palette((250, 255, 250), (176, 222, 184), (104, 178, 122), (20, 25, 20)),
    "blue": Palette((250, 252, 255), (184, 206, 240), (116, 152, 216), (15, 15, 40)),
    "grey": Palette((255, 255, 255), (212, 212, 212), (158, 158, 158), (0, 0, 0)),
}
"""Papers by name; ``"red"`` is the default."""


@dataclass(frozen=True)
class RenderConfig:
    """How an ECG is drawn. Hashable, comparable, and convertible to plain data with `to_dict`.

    Args:
        width_px: Image width (px).
        height_px: Image height (px).
        dpi: Resolution of the paper (dots per inch); ``None`` takes the largest at which the layout fits the image.
        layout: A `Layout`, the name of one of `LAYOUTS`, or its fields as a mapping.
        speed_mm_s: Paper speed, 25 or 50 mm/s.
        gain_mm_mv: Gain, 5, 10 or 20 mm/mV.
        palette: A `Palette`, the name of one of `PALETTES`, or its fields as a mapping.
        grid: ``"full"`` (1 and 5 mm lines), ``"thick"`` (5 mm lines) or ``"none"``.
        trace_mm: Width of the trace (mm); never drawn thinner than one pixel.
        calibration: Draw a 1 mV, 200 ms pulse at the start of each row.
        lead_names: Write each lead's name above its start.
        footer: Write speed and gain below the last row, and "simulated" when the record's metadata has ``simulated=True``.
        header: Text above the first row; ``{record_name}``, ``{duration_s}``, ``{fs_hz}`` and any key of the record's metadata
            are replaced, what is not known of the record by "-". At most three lines; empty: none, and no room for them.
        overflow: ``"overlap"`` lets a trace run into its neighbour's row, ``"clamp"`` stops it half-way.
        mode: ``"RGB"`` or ``"L"`` (grey).

    Raises:
        ValueError: A value that is not allowed, or a layout larger than the paper.

    Example:
        >>> RenderConfig(layout="12x1") == RenderConfig.from_dict(RenderConfig(layout="12x1").to_dict())
        True
    """

    width_px: int = 1100
    height_px: int = 850
    dpi: float | None = None
    layout: Layout | str = "3x4+rhythm"
    speed_mm_s: float = 25.0
    gain_mm_mv: float = 10.0
    palette: Palette | str = "red"
    grid: str = "full"
    trace_mm: float = 0.3
    calibration: bool = True
    lead_names: bool = True
    footer: bool = True
    header: str = ""
    overflow: str = "overlap"
    mode: str = "RGB"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", _named("layout", self.layout, LAYOUTS, Layout))
        object.__setattr__(self, "palette", _named("palette", self.palette, PALETTES, Palette))
        for name in ("speed_mm_s", "gain_mm_mv", "trace_mm"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.dpi is not None:
            object.__setattr__(self, "dpi", float(self.dpi))
        for name, allowed in (("grid", _GRIDS), ("overflow", _OVERFLOWS), ("mode", _MODES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: allowed are {list(allowed)}")
        if not (math.isfinite(self.trace_mm) and 0.05 <= self.trace_mm <= 3.0):
            raise ValueError(f"trace_mm={self.trace_mm}: give a width from 0.05 to 3 mm")
        if self.header.count("\n") > 2:
            raise ValueError(f"header={self.header!r} has more than three lines")
        fields = _fields(self.header)
        if not all(field.isidentifier() for field in fields):
            raise ValueError(f"header={self.header!r} has the fields {fields}: use plain names such as {{record_name}}")
        self.page()

    def page(self) -> Page:
        """Where everything lies, in pixels."""
        assert isinstance(self.layout, Layout)
        return arrange(
            self.layout,
            width_px=self.width_px,
            height_px=self.height_px,
            dpi=self.dpi,
            speed_mm_s=self.speed_mm_s,
            gain_mm_mv=self.gain_mm_mv,
            calibration=self.calibration,
            header=bool(self.header),
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain numbers, strings, lists and mappings, ready for json or YAML."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RenderConfig:
        """The configuration whose `to_dict` gave these fields; absent ones take their default.

        Raises:
            ValueError: An unknown field, or a value that is not allowed.
        """
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown fields {unknown}: allowed are {sorted(cls.__dataclass_fields__)}")
        return cls(**fields)

    def fingerprint(self) -> str:
        """SHA-256 over all fields and the version of the drawing code, as 64 hex digits: equal only for equal pictures."""
        text = json.dumps({"drawing": _DRAWING_VERSION, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def render(ecg: ECG, config: RenderConfig | None = None) -> Image.Image:
    """Draw an ECG on paper.

    Args:
        ecg: The record, in mV.
        config: How to draw it; the defaults of `RenderConfig` if ``None``.

    Returns:
        An image of ``config.width_px`` × ``config.height_px`` in ``config.mode``.

    Example:
        >>> flat = ECG(np.zeros((5000, 12), np.float32), fs_hz=500)
        >>> render(flat, RenderConfig(width_px=440, height_px=340)).size
        (440, 340)
    """
    config = config or RenderConfig()
    page, paper = _paper(config, bool(ecg.metadata.get("simulated")))
    canvas = paper.copy()
    for strip in page.strips:
        coverage = _trace(ecg, strip, page, config)
        if coverage is not None:
            _ink(canvas, coverage, _colour(config, "ink"))
    image = Image.fromarray(canvas[..., 0] if config.mode == "L" else canvas)
    if config.header:
        text = _header_text(ecg, config.header)
        ink = _colour(config, "ink")
        ImageDraw.Draw(image).text(page.header_px, text, fill=ink if config.mode == "RGB" else ink[0], font=_font(page))
    return image


def _trace(ecg: ECG, strip: Strip, page: Page, config: RenderConfig) -> Coverage | None:
    first = strip.start_s * ecg.fs_hz
    begin, stop = strip.samples(ecg.fs_hz, len(ecg))
    height = ecg.lead(strip.lead)[begin:stop] * -page.scale.px_per_mv
    if config.overflow == "clamp":
        height = np.clip(height, -page.pitch_px / 2, page.pitch_px / 2)
    return stroke_coverage(
        height.astype(np.float64) + strip.baseline_px,
        first=first - begin,
        last=first - begin + strip.duration_s * ecg.fs_hz,
        left_px=strip.left_px,
        px_per_sample=page.scale.px_per_s / ecg.fs_hz,
        radius_px=_pen_px(page, config) / 2,
        width_px=page.width_px,
        height_px=page.height_px,
    )


def _pen_px(page: Page, config: RenderConfig) -> float:
    return max(config.trace_mm * page.scale.px_per_mm, _LEAST_TRACE_PX)


@lru_cache(maxsize=16)
def _paper(config: RenderConfig, simulated: bool) -> tuple[Page, np.ndarray]:
    """The page and all that is the same for every record. Shape: (height, width, channels), uint8, read-only."""
    page = config.page()
    canvas = _grid(replace(config, trace_mm=RenderConfig.trace_mm)).copy()
    pen = _pen_px(page, config) / 2
    ink = _colour(config, "ink")
    for pulse in page.pulses:
        corners = (
            (pulse.start_px, pulse.foot_px, pulse.rise_px, pulse.foot_px),
            (pulse.rise_px, pulse.top_px, pulse.rise_px, pulse.foot_px),
            (pulse.rise_px, pulse.top_px, pulse.fall_px, pulse.top_px),
            (pulse.fall_px, pulse.top_px, pulse.fall_px, pulse.foot_px),
            (pulse.fall_px, pulse.foot_px, pulse.end_px, pulse.foot_px),
        )
        size = (page.width_px, page.height_px)
        boxes = [box_coverage(x0 - pen, y0 - pen, x1 + pen, y1 + pen, *size) for x0, y0, x1, y1 in corners]
        _ink(canvas, _union(boxes), ink)
    canvas = _write(canvas, page, config, simulated)
    canvas.setflags(write=False)
    return page, canvas


@lru_cache(maxsize=16)
def _grid(config: RenderConfig) -> np.ndarray:
    """Paper with its grid: lines through the page's origin, 1 mm apart, every fifth thick; kept apart from what the pen draws."""
    page = config.page()
    size = (page.height_px, page.width_px)
    canvas = np.ones((*size, 1), dtype=np.float32) * np.asarray(_colour(config, "paper"), dtype=np.float32)
    for colour, step, width_mm in (("thin", 1, _THIN_MM), ("thick", 5, _THICK_MM)):
        if config.grid == "none" or (config.grid == "thick" and colour == "thin"):
            continue
        down, across = (
            _lines(origin, length, step * page.scale.px_per_mm, width_mm * page.scale.px_per_mm)
            for origin, length in zip(reversed(page.origin_px), size, strict=True)
        )
        cover = (1.0 - np.outer(1.0 - down, 1.0 - across)).astype(np.float32)
        canvas += cover[..., None] * (np.asarray(_colour(config, colour), dtype=np.float32) - canvas)
    return np.rint(canvas).astype(np.uint8)


def _lines(origin_px: float, length_px: int, step_px: float, width_px: float) -> np.ndarray:
    first, last = math.floor(-origin_px / step_px), math.ceil((length_px - origin_px) / step_px)
    return line_coverage(origin_px + step_px * np.arange(first, last + 1), width_px, length_px)


def _union(parts: list[Coverage]) -> Coverage:
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom = max(part.top + part.area.shape[0] for part in parts)
    right = max(part.left + part.area.shape[1] for part in parts)
    area = np.zeros((bottom - top, right - left), dtype=np.float32)
    for part in parts:
        view = area[part.top - top :, part.left - left :][: part.area.shape[0], : part.area.shape[1]]
        np.maximum(view, part.area, out=view)
    return Coverage(top, left, area)


def _ink(canvas: np.ndarray, coverage: Coverage, colour: tuple[int, ...]) -> None:
    """Lay ink over the covered pixels, in place."""
    inked = np.flatnonzero(coverage.area > _LEAST_INK)
    share = coverage.area.ravel()[inked, None]
    row, column = np.divmod(inked, coverage.area.shape[1])
    pixels = canvas.reshape(-1, canvas.shape[-1])
    place = (row + coverage.top) * canvas.shape[1] + (column + coverage.left)
    under = pixels[place].astype(np.float32)
    pixels[place] = (under + share * (np.asarray(colour, dtype=np.float32) - under) + 0.5).astype(np.uint8)


def _write(canvas: np.ndarray, page: Page, config: RenderConfig, simulated: bool) -> np.ndarray:
    """Lead names and footer."""
    image = Image.fromarray(canvas[..., 0] if config.mode == "L" else canvas)
    draw, font = ImageDraw.Draw(image), _font(page)
    ink = _colour(config, "ink")
    fill = ink if config.mode == "RGB" else ink[0]
    if config.lead_names:
        for strip in page.strips:
            draw.text(strip.label_px, strip.lead, fill=fill, font=font, anchor="ls")
    if config.footer:
        text = f"{config.speed_mm_s:g} mm/s   {config.gain_mm_mv:g} mm/mV" + ("   simulated" if simulated else "")
        draw.text(page.footer_px, text, fill=fill, font=font, anchor="ls")
    written = np.array(image)
    return written[..., None] if config.mode == "L" else written


def _font(page: Page) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(page.label_height_px, _LEAST_TEXT_PX))


def _colour(config: RenderConfig, name: str) -> tuple[int, ...]:
    """A colour of the palette, as luma (ITU-R BT.601) in grey mode."""
    red, green, blue = getattr(config.palette, name)
    return (red, green, blue) if config.mode == "RGB" else (round(0.299 * red + 0.587 * green + 0.114 * blue),)


def _fields(template: str) -> list[str]:
    try:
        return [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"header={template!r} cannot be read: {error}") from error


def _header_text(ecg: ECG, template: str) -> str:
    known = {
        **ecg.metadata,
        "record_name": ecg.record_name,
        "duration_s": f"{ecg.duration_s:g}",
        "fs_hz": f"{ecg.fs_hz:g}",
    }
    found = {field: known.get(field) for field in _fields(template)}
    return template.format(**{field: "-" if value is None else _plain(value) for field, value in found.items()})


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named(what: str, value: Any, known: Mapping[str, Any], kind: type) -> Any:
    """A `Layout` or `Palette` from itself, its name, or its fields."""
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{what}={value!r}: known are {sorted(known)}; or give a {kind.__name__}")
        return known[value]
    if isinstance(value, Mapping):
        try:
            return kind(**value)
        except TypeError as error:
            raise ValueError(f"{what}={dict(value)!r}: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{what}={value!r}: give a name from {sorted(known)} or a {kind.__name__}")
    return value
