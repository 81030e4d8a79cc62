"""Anti-aliased strokes with numpy: how much of each pixel a curve drawn with a round pen covers.

A trace is the graph of a function of time, and that makes its stroke easy to compute. With a round pen of radius h, the
stroke's slice at x is one interval, from the largest ``y(x') + sqrt(h² − (x − x')²)`` to the smallest
``y(x') − sqrt(h² − (x − x')²)`` over ``|x − x'| ≤ h``: a greyscale dilation and erosion of the curve by a disc. Slices are
taken at `SLICES` places per pixel column; vertically the covered area is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["SLICES", "Coverage", "box_coverage", "line_coverage", "stroke_coverage"]

SLICES = 4
"""Slices per pixel column: time grows with them; so far is a stroke resolved horizontally, while it is exact vertically."""

_FAR = 1e9  # "no curve here" in minima and maxima, where NaN would spread to the neighbours; far beyond any page


@dataclass(frozen=True)
class Coverage:
    """Covered fraction of the pixels in a rectangle.

    Attributes:
        top: First pixel row of the rectangle.
        left: First pixel column of the rectangle.
        area: Shape (rows, columns), float32 from 0 to 1, up to rounding.
    """

    top: int
    left: int
    area: np.ndarray


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where a strip's samples fall: the same for all strips of equal geometry, so it is computed once."""

    index: np.ndarray
    following: np.ndarray
    fraction: np.ndarray
    starts: np.ndarray
    first_slice: int


@lru_cache(maxsize=64)
def _plan(first: float, last: float, left_px: float, px_per_sample: float) -> _Plan:
    """Merge slice borders and samples in order of time; positions are in samples, slices are 1/SLICES px wide."""
    begin = math.floor(left_px * SLICES)
    end = max(begin + 1, math.ceil((left_px + (last - first) * px_per_sample) * SLICES))
    borders = first + (np.arange(begin, end + 1) / SLICES - left_px) / px_per_sample
    borders = np.clip(borders, first, last)
    inner = np.arange(math.floor(first) + 1, math.ceil(last), dtype=np.float64)
    starts = np.arange(len(borders)) + np.searchsorted(inner, borders)
    position = np.empty(len(borders) + len(inner))
    taken = np.zeros(len(position), dtype=bool)
    taken[starts] = True
    position[taken] = borders
    position[~taken] = inner
    index = np.floor(position).astype(np.intp)
    fraction = position - index
    following = np.where(fraction > 0, index + 1, index)
    return _Plan(index, following, fraction, starts, begin)


def stroke_coverage(
    y_px: np.ndarray,
    *,
    first: float,
    last: float,
    left_px: float,
    px_per_sample: float,
    radius_px: float,
    width_px: int,
    height_px: int,
) -> Coverage | None:
    """Coverage of a sampled curve, joined by straight lines and drawn with a round pen.

    Samples that are not finite leave a gap, as do times after the last sample.

    Args:
        y_px: The curve's height at each sample (px, downwards). Shape: (T,).
        first: Position of the left edge (samples, may be fractional).
        last: Position of the right edge (samples, may be fractional).
        left_px: x of the left edge (px).
        px_per_sample: Horizontal distance of two samples (px).
        radius_px: Radius of the pen (px).
        width_px: Width of the image, beyond which nothing is drawn (px).
        height_px: Height of the image (px).

    Returns:
        The coverage, or ``None`` when nothing lies on the image.

    Example:
        >>> flat = stroke_coverage(np.full(9, 2.5), first=0, last=8, left_px=0, px_per_sample=1, radius_px=0.5, width_px=8,
        ...                        height_px=5)
        >>> flat.top, flat.area[0, 1:-1].tolist()
        (2, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    """
    last = min(last, len(y_px) - 1.0)
    if last < first:
        return None
    plan = _plan(float(first), float(last), float(left_px), float(px_per_sample))
    here = y_px[plan.index]
    value = here + plan.fraction * (y_px[plan.following] - here)
    gaps = not np.isfinite(value).all()
    if gaps:
        value[~np.isfinite(value)] = np.nan
    low = high = value
    if gaps:
        low, high = np.nan_to_num(value, nan=_FAR), np.nan_to_num(value, nan=-_FAR)
    upper = _erode(low, plan.starts, radius_px)
    lower = -_erode(-high, plan.starts, radius_px)
    reach = (len(upper) - (len(plan.starts) - 1)) // 2
    return _fill(upper, lower, plan.first_slice - reach, width_px, height_px)


def _erode(value: np.ndarray, starts: np.ndarray, radius_px: float) -> np.ndarray:
    """Top edge of the stroke in each slice: the smallest ``value − sqrt(radius² − distance²)`` around its middle.

    Candidates are the curve at the slices' borders, in its middle, at exactly the radius to either side (where steep lines have
    their edge), and peaks between two borders, which are taken to lie in the middle of their slice. The result is
    longer than the curve by the pen's reach at both ends; slices without a curve hold `_FAR` or nearly so.
    """
    border, peak = value[starts], np.minimum.reduceat(value, starts[:-1])
    peak[peak >= np.minimum(border[:-1], border[1:])] = _FAR
    n, radius = len(peak), radius_px * SLICES
    reach = math.ceil(radius)
    top = np.full(n + 2 * reach, _FAR)

    def offer(candidate: np.ndarray, begin: int) -> None:
        place = top[begin : begin + len(candidate)]
        np.minimum(place, candidate, out=place)

    for offset in range(-reach, reach + 1):
        if abs(offset) <= radius:
            offer(peak - math.sqrt(radius**2 - offset**2) / SLICES, reach - offset)
        if abs(offset - 0.5) <= radius:
            offer(border - math.sqrt(radius**2 - (offset - 0.5) ** 2) / SLICES, reach - offset)
    for side, rise in ((-radius, 0.0), (0.0, radius_px), (radius, 0.0)):
        whole = math.floor(0.5 + side)
        share = 0.5 + side - whole
        offer((1 - share) * border[:-1] + share * border[1:] - rise, reach - whole)
    return top


def _fill(upper: np.ndarray, lower: np.ndarray, first_slice: int, width_px: int, height_px: int) -> Coverage | None:
    """Turn slices into covered fractions by summing each slice's four vertical differences."""
    column = (first_slice + np.arange(len(upper))) // SLICES
    upper, lower = np.clip(upper, 0.0, height_px), np.clip(lower, 0.0, height_px)
    keep = (lower > upper) & (column >= 0) & (column < width_px)
    if not keep.any():
        return None
    upper, lower, column = upper[keep], lower[keep], column[keep]
    top, left = math.floor(upper.min()), int(column[0])
    rows, columns = math.ceil(lower.max()) - top, int(column[-1]) - left + 1
    edges = np.concatenate([upper, lower]) - top
    row = edges.astype(np.intp)
    rest = (edges - row) / SLICES
    sign = np.repeat([1.0, -1.0], len(upper))
    flat = row * columns + np.tile(column - left, 2)
    delta = np.bincount(
        np.concatenate([flat, flat + columns]),
        weights=np.concatenate([sign * (1.0 / SLICES - rest), sign * rest]),
        minlength=(rows + 2) * columns,
    )
    return Coverage(top, left, np.cumsum(delta[: rows * columns].reshape(rows, columns), axis=0, dtype=np.float32))


def line_coverage(centres_px: np.ndarray, width_px: float, n_pixels: int) -> np.ndarray:
    """Covered fraction of each pixel of one row by parallel lines, exactly.

    Args:
        centres_px: Middle of each line (px). Shape: (L,).
        width_px: Width of the lines (px).
        n_pixels: Number of pixels.

    Returns:
        Shape: (n_pixels,), float64 in [0, 1].

    Example:
        >>> line_coverage(np.array([1.25]), 1.0, 3).tolist()
        [0.25, 0.75, 0.0]
    """
    borders = np.arange(n_pixels + 1)
    begin = np.clip(borders[None, :] - (np.asarray(centres_px)[:, None] - width_px / 2), 0.0, width_px)
    return np.clip(np.diff(begin.sum(axis=0)), 0.0, 1.0)


def box_coverage(left: float, top: float, right: float, bottom: float, width_px: int, height_px: int) -> Coverage:
    """Covered fraction of each pixel by an upright rectangle, exactly (px; cut at the image's border).

    Example:
        >>> box_coverage(0.5, 0.0, 2.0, 0.5, 4, 4).area.tolist()
        [[0.25, 0.5]]
    """
    x0, x1 = max(0, math.floor(left)), min(width_px, math.ceil(right))
    y0, y1 = max(0, math.floor(top)), min(height_px, math.ceil(bottom))
    across = line_coverage(np.array([(left + right) / 2 - x0]), right - left, max(0, x1 - x0))
    down = line_coverage(np.array([(top + bottom) / 2 - y0]), bottom - top, max(0, y1 - y0))
    return Coverage(y0, x0, np.outer(down, across).astype(np.float32))
