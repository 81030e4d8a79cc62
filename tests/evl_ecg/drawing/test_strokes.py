"""Stroke coverage against a brute-force pen, and the properties an exact one has."""

import numpy as np
import pytest

from hf_evl_ecg.drawing.strokes import box_coverage, line_coverage, stroke_coverage

WIDTH, HEIGHT = 40, 30


def paint(y, left=4.0, step=1.0, radius=0.7, first=0.0, last=None):
    """The coverage on the whole image."""
    last = len(y) - 1 if last is None else last
    coverage = stroke_coverage(
        np.asarray(y, float),
        first=first,
        last=last,
        left_px=left,
        px_per_sample=step,
        radius_px=radius,
        width_px=WIDTH,
        height_px=HEIGHT,
    )
    image = np.zeros((HEIGHT, WIDTH))
    if coverage is not None:
        rows, columns = coverage.area.shape
        image[coverage.top : coverage.top + rows, coverage.left : coverage.left + columns] = coverage.area
    return image


def brute_force(y, left, step, radius, finer=16):
    """Share of finer × finer points of each pixel that are within the radius of the polyline."""
    xs = left + step * np.arange(len(y))
    px = (np.arange(WIDTH * finer) + 0.5) / finer
    py = ((np.arange(HEIGHT * finer) + 0.5) / finer)[:, None]
    inside = np.zeros((HEIGHT * finer, WIDTH * finer), bool)
    for x0, y0, x1, y1 in zip(xs, y, xs[1:], y[1:], strict=False):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((px - x0) * dx + (py - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        inside |= (px - x0 - t * dx) ** 2 + (py - y0 - t * dy) ** 2 <= radius**2
    return inside.reshape(HEIGHT, finer, WIDTH, finer).mean(axis=(1, 3))


@pytest.mark.parametrize("radius", [0.5, 0.62, 0.9, 1.6])
@pytest.mark.parametrize("step", [0.2, 0.83, 3.1])
def test_matches_a_brute_force_pen(radius, step):
    rng = np.random.default_rng(3)
    n = int(30 / step)
    y = 15 + np.cumsum(rng.normal(0, 1.2 * step**0.5, n))
    y[n // 2] += 8  # a spike, like QRS
    y = np.clip(y, 3, HEIGHT - 3)
    left = 4.37
    error = paint(y, left, step, radius) - brute_force(y, left, step, radius)
    assert np.abs(error).mean() < 0.004
    assert np.sqrt((error**2).mean()) < 0.02
    assert np.abs(error).max() < 0.25


@pytest.mark.parametrize("height", [10.0, 10.25, 10.5, 10.9])
def test_a_level_line_is_exact(height):
    image = paint(np.full(30, height), radius=0.75)
    expected = np.clip(
        np.minimum(np.arange(HEIGHT) + 1, height + 0.75) - np.maximum(np.arange(HEIGHT), height - 0.75), 0, 1
    )
    np.testing.assert_allclose(image[:, 10:25], np.repeat(expected[:, None], 15, 1), atol=1e-6)


def test_area_of_a_slanted_line_is_length_times_width():
    image = paint(np.linspace(5.0, 25.0, 31), left=4.0, radius=0.8)
    area = np.hypot(30, 20) * 1.6 + np.pi * 0.8**2
    assert image.sum() == pytest.approx(area, rel=0.01)


def test_more_samples_of_the_same_polyline_change_nothing():
    y = 15 + 6 * np.random.default_rng(0).standard_normal(12)
    denser = np.interp(np.arange(0, 11.01, 0.25), np.arange(12), y)
    np.testing.assert_allclose(paint(y, step=2.0), paint(denser, step=0.5), atol=1e-6)


def test_shift_by_a_pixel_shifts_the_picture():
    y = 12 + 4 * np.random.default_rng(1).standard_normal(20)
    image = paint(y, left=4.3)
    np.testing.assert_allclose(paint(y, left=5.3)[:, 1:], image[:, :-1], atol=1e-6)
    np.testing.assert_allclose(paint(y + 1, left=4.3)[1:], image[:-1], atol=1e-6)


def test_missing_samples_leave_a_gap():
    y = np.full(31, 10.0)
    y[10:20] = np.nan
    image = paint(y, radius=0.5)
    inked = np.flatnonzero(image.max(axis=0) > 0)
    assert {12, 25} <= set(inked)
    assert not {15, 16, 20, 22} & set(inked)
    np.testing.assert_array_equal(np.isfinite(image), True)


def test_nothing_where_there_are_no_samples():
    assert not paint(np.full(5, np.nan)).any()
    assert stroke_coverage(
        np.ones(5), first=9, last=12, left_px=0, px_per_sample=1, radius_px=1, width_px=9, height_px=9
    ) is None  # fmt: skip
    assert not paint(np.full(9, -50.0)).any()


def test_stops_at_the_image_border():
    image = paint(np.linspace(-20, 60, 60), left=-10.0)
    assert image.shape == (HEIGHT, WIDTH)
    assert image.min() > -1e-6
    assert image.max() < 1 + 1e-6


def test_fractional_window_begins_between_samples():
    y = np.linspace(5, 25, 21)
    image = paint(y, left=10.0, first=2.5, last=10.5, radius=0.5)
    columns = np.flatnonzero(image.sum(axis=0) > 0.3)
    assert (columns[0], columns[-1]) == (9, 18)  # a round cap of half a pixel at both ends
    centre = (image * (np.arange(HEIGHT)[:, None] + 0.5)).sum(0)[12] / image.sum(0)[12]
    assert centre == pytest.approx(y[2] + 3.0, abs=0.02)  # column 12 shows positions 4.5 to 5.5


def test_line_and_box_coverage_are_exact():
    np.testing.assert_allclose(line_coverage(np.array([0.5, 2.5]), 0.4, 4), [0.4, 0, 0.4, 0])
    box = box_coverage(1.25, 2.5, 3.0, 4.25, 10, 10)
    assert (box.top, box.left) == (2, 1)
    np.testing.assert_allclose(box.area, np.outer([0.5, 1.0, 0.25], [0.75, 1.0]))
    assert box.area.sum() == pytest.approx(1.75 * 1.75)
