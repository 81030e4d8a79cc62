"""What holds of every page: ink within the image, one scale of time and voltage for all, pages that fit; examples by hypothesis."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import crossing_leads, cut_leads, fit_gain
from hf_evl_ecg.drawing.layouts import LAYOUTS
from hf_evl_ecg.drawing.rendering import render, render_traces
from hf_evl_ecg.drawing.strokes import stroke_coverage
from hf_evl_ecg.signals.ecg import ECG

FS = 200
VOLTS = st.floats(-8, 8, width=32)


@st.composite
def pages(draw):
    """A configuration whose layout fits its paper; others are refused, and drawn anew."""
    options = {
        "width_px": draw(st.integers(200, 900)),
        "height_px": draw(st.integers(160, 700)),
        "layout": draw(st.sampled_from(sorted(LAYOUTS))),
        "speed_mm_s": draw(st.sampled_from([25, 50])),
        "gain_mm_mv": draw(st.sampled_from([5, 10, 20])),
        "calibration": draw(st.booleans()),
        "overflow": draw(st.sampled_from(["overlap", "clamp"])),
    }
    try:
        return RenderConfig(**options)
    except ValueError:
        assume(False)


def steps(values):
    """Twelve leads, each constant."""
    return ECG(np.repeat(np.asarray(values, np.float32)[None], 10 * FS, axis=0), FS)


@given(pages(), st.lists(VOLTS, min_size=12, max_size=12))
@settings(max_examples=25)
def test_ink_stays_on_the_page_whatever_the_voltage(config, values):
    image, traced = render_traces(steps(values), config)
    assert image.size == (config.width_px, config.height_px)
    assert traced.shape == (config.height_px, config.width_px)
    assert traced.min() >= 0
    assert traced.max() <= 1
    page = config.page()
    left, right = min(s.left_px for s in page.strips), max(s.right_px for s in page.strips)
    pen = 2 + page.scale.px_per_mm
    columns = np.flatnonzero(traced.any(axis=0))
    assert not columns.size or (left - pen <= columns[0] and columns[-1] <= right + pen)


@given(pages(), st.integers(0, 11), st.floats(-0.375, 0.375, width=32))
@settings(max_examples=25)
def test_a_millivolt_has_the_same_height_everywhere(config, lead, value):
    """The middle of a flat trace lies where the page says that this voltage does, to a twentieth of a pixel."""
    ecg = steps([value] * 12)
    page = config.page()
    strip = page.strips[lead % len(page.strips)]
    assume(abs(value) * page.scale.px_per_mv < page.pitch_px / 2 - 3)
    _, traced = render_traces(ecg, config)
    column = traced[:, round((strip.left_px + strip.right_px) / 2)]
    around = np.arange(config.height_px) + 0.5
    near = np.abs(around - page.y_px(strip, value)) < page.pitch_px / 2
    assert (around[near] * column[near]).sum() / column[near].sum() == pytest.approx(page.y_px(strip, value), abs=0.05)
    assert page.y_px(strip, 1.0) - page.y_px(strip, 0.0) == pytest.approx(-config.gain_mm_mv * page.scale.px_per_mm)


@given(pages(), st.integers(0, 11), st.floats(0.2, 0.8))
@settings(max_examples=25)
def test_a_second_has_the_same_width_everywhere(config, lead, part):
    """A spike lies where the page says that its time does, and speed and resolution make the distance of two."""
    page = config.page()
    strip = page.strips[lead % len(page.strips)]
    at = round((strip.start_s + part * strip.duration_s) * FS)
    signal = np.zeros((10 * FS, 12), np.float32)
    signal[at] = 0.3  # mV, of every lead
    _, flat = render_traces(steps([0.0] * 12), config)
    _, traced = render_traces(ECG(signal, FS), config)
    top, bottom = round(strip.baseline_px - page.pitch_px / 2), round(strip.baseline_px)
    spike = np.maximum(traced - flat, 0)[max(top, 0) : bottom, round(strip.left_px) : round(strip.right_px)]
    assume(spike.sum() > 0.5)
    centre = round(strip.left_px) + ((np.arange(spike.shape[1]) + 0.5) * spike.sum(axis=0)).sum() / spike.sum()
    assert centre == pytest.approx(page.x_px(strip, at / FS), abs=0.6)
    assert page.scale.px_per_s == pytest.approx(config.speed_mm_s * page.scale.px_per_mm)


@given(pages(), st.lists(VOLTS, min_size=12, max_size=12))
def test_the_fitted_gain_is_the_largest_that_fits(config, values):
    ecg = steps(values)
    fitted = fit_gain(ecg, config)
    assert fitted.gain_mm_mv <= config.gain_mm_mv
    assert fitted == RenderConfig.from_dict({**config.to_dict(), "gain_mm_mv": fitted.gain_mm_mv}), (
        "nothing else changes"
    )
    if fitted.gain_mm_mv > 5:
        assert not cut_leads(ecg, fitted)
        assert not crossing_leads(ecg, fitted)
    for gain in (5.0, 10.0, 20.0):
        if fitted.gain_mm_mv < gain <= config.gain_mm_mv:
            larger = RenderConfig.from_dict({**config.to_dict(), "gain_mm_mv": gain})
            assert cut_leads(ecg, larger) or crossing_leads(ecg, larger)


@given(pages())
def test_a_page_survives_its_description(config):
    again = RenderConfig.from_dict(config.to_dict())
    assert again == config
    assert again.fingerprint() == config.fingerprint()


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0.05, 20), st.floats(-50, 50), st.floats(0.5, 4)
)
def test_strokes_cover_pixels_of_the_canvas_by_shares(heights, px_per_sample, left_px, radius_px):
    found = stroke_coverage(
        np.array(heights), first=0.0, last=float(len(heights) - 1), left_px=left_px, px_per_sample=px_per_sample,
        radius_px=radius_px, width_px=60, height_px=40,
    )  # fmt: skip
    if found is None:
        return
    assert 0 <= found.left <= found.left + found.area.shape[1] <= 60
    assert 0 <= found.top <= found.top + found.area.shape[0] <= 40
    assert np.isfinite(found.area).all()
    assert found.area.min() >= -1e-6, "up to rounding"
    assert found.area.max() <= 1 + 1e-6


@given(pages())
@settings(max_examples=10)
def test_the_same_ecg_is_the_same_picture(config):
    ecg = steps(np.linspace(-1, 1, 12))
    assert render(ecg, config).tobytes() == render(ecg, config).tobytes()
