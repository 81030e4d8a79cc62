"""Paper geometry: hand-made values, and invariants over layouts, sizes, speeds and gains."""

import itertools
import math

import pytest

from hf_evl_ecg.drawing.geometry import GAINS_MM_MV, SPEEDS_MM_S, arrange
from hf_evl_ecg.drawing.layouts import LAYOUTS, Layout
from hf_evl_ecg.drawing.page import PaperScale
from hf_evl_ecg.signals.ecg import STANDARD_LEADS

FOUR_PX_PER_MM = 101.6  # dpi


def test_scale_is_millimetres_times_pixels():
    scale = PaperScale(speed_mm_s=50.0, gain_mm_mv=5.0, px_per_mm=4.0)
    assert scale.px_per_s == 200.0
    assert scale.px_per_mv == 20.0


def test_default_layout_shows_each_lead_where_a_cart_prints_it():
    leads = [[strip.lead for strip in LAYOUT_PAGE.strips if strip.row == row] for row in range(4)]
    assert leads == [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"], ["II"]]
    assert [strip.start_s for strip in LAYOUT_PAGE.strips[:4]] == [0.0, 2.5, 5.0, 7.5]
    rhythm = LAYOUT_PAGE.strips[-1]
    assert (rhythm.start_s, rhythm.duration_s) == (0.0, 10.0)
    assert rhythm.right_px - rhythm.left_px == pytest.approx(1000.0)


LAYOUT_PAGE = arrange(LAYOUTS["3x4+rhythm"], width_px=1100, height_px=850, dpi=FOUR_PX_PER_MM)


def test_points_on_a_strip():
    strip = LAYOUT_PAGE.strips[2]  # V1 from 5 s
    assert LAYOUT_PAGE.x_px(strip, 5.0) == pytest.approx(strip.left_px)
    assert LAYOUT_PAGE.x_px(strip, 6.0) == pytest.approx(strip.left_px + 100.0)
    assert LAYOUT_PAGE.y_px(strip, 1.5) == pytest.approx(strip.baseline_px - 60.0)


def test_pulse_is_one_millivolt_for_a_fifth_of_a_second():
    for pulse in LAYOUT_PAGE.pulses:
        assert pulse.foot_px - pulse.top_px == pytest.approx(40.0)
        assert pulse.fall_px - pulse.rise_px == pytest.approx(20.0)
        assert pulse.end_px == pytest.approx(LAYOUT_PAGE.strips[0].left_px)
    assert arrange(LAYOUTS["3x4"], width_px=1100, height_px=850, calibration=False).pulses == ()


def test_fitted_layout_spans_the_image():
    page = arrange(LAYOUTS["3x4"], width_px=1100, height_px=850)
    needed_mm = 4 + 7 + 250 + 4
    assert page.scale.px_per_mm == pytest.approx(1100 / needed_mm)
    tall = arrange(LAYOUTS["12x1"], width_px=2000, height_px=400)
    assert tall.pitch_px / tall.scale.px_per_mm == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("name", "size", "speed", "gain", "header"),
    list(
        itertools.product(
            sorted(LAYOUTS), [(1100, 850), (448, 336), (2200, 1700), (336, 336)], SPEEDS_MM_S, GAINS_MM_MV, [0, 1]
        )
    ),
)
def test_everything_lies_on_the_page(name, size, speed, gain, header):
    width, height = size
    page = arrange(
        LAYOUTS[name], width_px=width, height_px=height, speed_mm_s=speed, gain_mm_mv=gain, header=bool(header)
    )
    mm = page.scale.px_per_mm
    assert {strip.lead for strip in page.strips} == set(STANDARD_LEADS)
    assert (page.pitch_px / mm) == pytest.approx(round(page.pitch_px / mm))
    for strip in page.strips:
        assert 0 <= strip.left_px < strip.right_px <= width
        assert page.pitch_px / 2 <= strip.baseline_px <= height - page.pitch_px / 2
        assert strip.right_px - strip.left_px == pytest.approx(strip.duration_s * speed * mm)
        steps = (strip.baseline_px - page.origin_px[1]) / mm
        assert steps == pytest.approx(round(steps)), "0 mV lies off the millimetre grid"
        assert 0 <= strip.label_px[0] <= width
        assert page.label_height_px <= strip.label_px[1] <= height
    for row in range(len(LAYOUTS[name].rows)):
        in_row = [strip for strip in page.strips if strip.row == row]
        for before, after in itertools.pairwise(in_row):
            assert after.left_px == pytest.approx(before.right_px)
            assert after.start_s == pytest.approx(before.start_s + before.duration_s)
        assert math.fsum(strip.duration_s for strip in in_row) == pytest.approx(10.0)


def test_names_of_single_lead_rows_stand_in_the_margin():
    page = arrange(LAYOUTS["12x1"], width_px=1100, height_px=850)
    assert all(strip.label_px[0] < page.pulses[0].start_px for strip in page.strips)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_px": 10}, "width_px=10"),
        ({"height_px": 850.5}, "height_px=850.5"),
        ({"width_px": True}, "width_px=True"),
        ({"dpi": 0}, "dpi=0"),
        ({"dpi": float("nan")}, "dpi=nan"),
        ({"speed_mm_s": 30.0}, r"speed_mm_s=30.0: allowed are 25.0, 50.0"),
        ({"gain_mm_mv": 7.0}, "gain_mm_mv=7.0"),
        ({"dpi": 200.0}, "lower dpi"),
        ({"dpi": 100.0, "speed_mm_s": 50.0}, "lower dpi"),
    ],
)
def test_bad_page_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        arrange(LAYOUTS["3x4+rhythm"], **{"width_px": 1100, "height_px": 850, **changes})


@pytest.mark.parametrize(
    ("rows", "duration_s", "message"),
    [
        ((), 10.0, "at least one row"),
        ((("I",), ()), 10.0, "one lead in each"),
        ((("X",),), 10.0, "'X'"),
        ((("I",),), 0.0, "positive"),
    ],
)
def test_bad_layout_is_refused(rows, duration_s, message):
    with pytest.raises(ValueError, match=message):
        Layout("bad", rows, duration_s)
