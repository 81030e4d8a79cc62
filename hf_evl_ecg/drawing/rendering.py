"""A 12-lead ECG drawn on ECG paper: `render` makes a PIL image from an `ECG` and a `RenderConfig`.

The grid is exact to the millimetre, traces are anti-aliased at sub-pixel precision, and the same input always gives the
same bytes. Everything that does not depend on the record (paper, grid, lead names, calibration pulses) is drawn once per
configuration and kept. Where rows meet, traces overlap as they do on real paper (``overflow="overlap"``), or the pen stops
half-way to the next row (``"clamp"``). Times a record does not cover stay blank.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_evl_ecg.signals.ecg import ECG

from .config import RenderConfig
from .header_text import fill_header
from .page import Page, Strip
from .strokes import Coverage, box_coverage, line_coverage, stroke_coverage

__all__ = ["render", "render_traces"]

_THIN_MM = 0.12
_THICK_MM = 0.25
_LEAST_TRACE_PX = 1.0  # a thinner line would fade into grey
_LEAST_TEXT_PX = 7.0  # smaller letters cannot be read
_LEAST_INK = 1.0 / 512.0  # less changes no 8-bit colour


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
    return _draw(ecg, config or RenderConfig(), None)


def render_traces(ecg: ECG, config: RenderConfig | None = None) -> tuple[Image.Image, np.ndarray]:
    """`render`, and how much of each pixel the traces cover, known exactly as the page is drawn.

    Args:
        ecg: The record, in mV.
        config: How to draw it; the defaults of `RenderConfig` if ``None``.

    Returns:
        The image of `render`, and the covered share of each pixel, 0 to 1. Grid, calibration pulses and lettering are
        no traces. Shape: (height, width), float32.

    Example:
        >>> flat = ECG(np.zeros((5000, 12), np.float32), fs_hz=500)
        >>> image, traced = render_traces(flat, RenderConfig(width_px=440, height_px=340))
        >>> image.size, traced.shape
        ((440, 340), (340, 440))
    """
    config = config or RenderConfig()
    traced = np.zeros((config.height_px, config.width_px), dtype=np.float32)
    return _draw(ecg, config, traced), traced


def _draw(ecg: ECG, config: RenderConfig, traced: np.ndarray | None) -> Image.Image:
    """The page; what the traces cover is noted in ``traced``, where it is wanted."""
    page, paper = _paper(config, bool(ecg.metadata.get("simulated")))
    canvas = paper.copy()
    for strip in page.strips:
        coverage = _trace(ecg, strip, page, config)
        if coverage is not None:
            _ink(canvas, coverage, _colour(config, "ink"))
            if traced is not None:
                _raise(traced, coverage, coverage.top, coverage.left)
    image = Image.fromarray(canvas[..., 0] if config.mode == "L" else canvas)
    if config.header:
        text = fill_header(config.header, ecg)
        ink = _colour(config, "ink")
        ImageDraw.Draw(image).text(page.header_px, text, fill=ink if config.mode == "RGB" else ink[0], font=_font(page))
    return image


def _trace(ecg: ECG, strip: Strip, page: Page, config: RenderConfig) -> Coverage | None:
    first = strip.start_s * ecg.fs_hz
    begin, stop = strip.samples(ecg.fs_hz, len(ecg))
    height = ecg.lead(strip.lead)[begin:stop] * -page.scale.px_per_mv
    if config.overflow == "clamp":
        height = np.clip(height, -page.pitch_px / 2, page.pitch_px / 2)
    return stroke_coverage(  # in float64: at the far end of a page of 20,000 px, float32 resolves 0.002 px only
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
    # Augmented pages differ in the pen's width each time; with it taken out, they share the grid, which is slow to draw.
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
        _raise(area, part, part.top - top, part.left - left)
    return Coverage(top, left, area)


def _raise(area: np.ndarray, part: Coverage, top: int, left: int) -> None:
    """Cover at least as much of each pixel as the part does, in place."""
    view = area[top:, left:][: part.area.shape[0], : part.area.shape[1]]
    np.maximum(view, part.area, out=view)


def _ink(canvas: np.ndarray, coverage: Coverage, colour: tuple[int, ...]) -> None:
    """Lay ink over the covered pixels, in place."""
    inked = np.flatnonzero(coverage.area > _LEAST_INK)  # a stroke covers few pixels of the rectangle it lies in
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
