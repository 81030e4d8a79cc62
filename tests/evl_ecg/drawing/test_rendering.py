"""Rendering is true: a digitiser gives the signal back, and grid, pulse, leads and configuration are what they say."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import wfdb
from scipy.signal import correlate

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import crossing_leads, cut_leads, fit_gain
from hf_evl_ecg.drawing.layouts import LAYOUTS, Layout
from hf_evl_ecg.drawing.palettes import Palette
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS
from hf_evl_ecg.signals.simulation import SimulationConfig, simulate

FINE_PEN = {"width_px": 2200, "height_px": 1700, "trace_mm": 0.12}
QUIET = SimulationConfig(wander_mv=0, mains_mv=0, muscle_mv=0)


def flat(value_mv=0.0, duration_s=10.0, **kwargs):
    return ECG(np.full((int(500 * duration_s), 12), value_mv, np.float32), fs_hz=500, **kwargs)


def ink(image, config):
    """Share of ink in each pixel, from the red channel, in which the red grid is nearly white. Shape: (height, width)."""
    red = np.asarray(image, dtype=np.float64)
    red = red[..., 0] if red.ndim == 3 else red
    paper, dark = config.palette.paper[0], config.palette.ink[0]
    share = (paper - red) / (paper - dark)
    grid = 0.0 if config.grid == "none" else (paper - config.palette.thick[0]) / (paper - dark)
    return np.where(share > grid + 0.02, (share - grid / 4) / (1 - grid / 4), 0.0)


def digitise(image, config):
    """For each strip: times of its pixel columns (s) and the voltage at the middle of the ink there (mV, NaN without ink)."""
    page, dark = config.page(), ink(image, config)
    curves = []
    for strip in page.strips:
        columns = np.arange(int(np.ceil(strip.left_px)), int(strip.right_px))
        top, bottom = (round(strip.baseline_px + side * page.pitch_px / 2) for side in (-1, 1))
        top, bottom = max(top, 0), min(bottom, page.height_px)
        window = dark[top:bottom, columns]
        weight = window.sum(axis=0)
        with np.errstate(invalid="ignore"):
            y = (window * (np.arange(top, bottom) + 0.5)[:, None]).sum(axis=0) / weight
        y[weight < 0.3] = np.nan
        times = strip.start_s + (columns + 0.5 - strip.left_px) / page.scale.px_per_s
        curves.append((strip, times, (strip.baseline_px - y) / page.scale.px_per_mv))
    return curves


def column_means(ecg, lead, times_s, width_s, finer=32):
    """The signal's mean over each pixel column, joined by straight lines between samples (mV)."""
    inside = (np.arange(finer) + 0.5) / finer - 0.5
    points = times_s[:, None] + inside * width_s
    signal = ecg.lead(lead).astype(np.float64)
    return np.interp(points, np.arange(len(signal)) / ecg.fs_hz, signal).mean(axis=1)


def errors(ecg, config):
    """Digitise a rendering and compare: RMS error in all, and where the slope is below 5 mV/s (µV); largest delay (ms)."""
    page, deviations, slopes, delays = config.page(), [], [], []
    for strip, times, found in digitise(render(ecg, config), config):
        true = column_means(ecg, strip.lead, times, 1 / page.scale.px_per_s)
        seen = np.isfinite(found) & (times < ecg.duration_s - 1 / ecg.fs_hz)
        assert seen.mean() > 0.97
        deviations.append((found - true)[seen])
        slopes.append(np.gradient(true, times)[seen])
        delays.append(_delay_s(np.where(seen, found, true), true, 1 / page.scale.px_per_s))
    deviations, level = 1000 * np.concatenate(deviations), np.abs(np.concatenate(slopes)) < 5.0
    return rms(deviations), rms(deviations[level]), 1000 * max(map(abs, delays))


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def _delay_s(found, true, step_s):
    """Delay by the peak of the cross-correlation of slopes, refined by a parabola (s)."""
    a, b = np.diff(found), np.diff(true)
    score = correlate(a, b, mode="same")
    peak = int(score.argmax())
    before, here, after = score[peak - 1 : peak + 2]
    return (peak - len(b) // 2 + 0.5 * (before - after) / (before - 2 * here + after)) * step_s


def within_its_row(ecg, config):
    """The record, made smaller where a row is too low for it: neighbours' ink cannot be told apart."""
    page = config.page()
    room = page.pitch_px / 2 / page.scale.px_per_mv - 0.05
    return replace(ecg, signal_mv=ecg.signal_mv * min(1.0, room / np.abs(ecg.signal_mv).max()))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize(("fs_hz", "label"), [(500, "NORM"), (100, "PVC")])
def test_digitising_gives_the_signal_back(layout, fs_hz, label):
    """Default picture: 30 µV RMS, 8 µV where the slope is below 5 mV/s, 1 ms; what remains is the pen's width in QRS."""
    config = RenderConfig(layout=layout, lead_names=False)
    everywhere, level, delay = errors(within_its_row(simulate(label, seed=4, fs_hz=fs_hz), config), config)
    assert everywhere < 30
    assert level < 8
    assert delay < 1


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_fine_pen_gives_it_back_finely(layout):
    """A pen of 0.12 mm on 2200 x 1700 px: 9 µV RMS, 3.5 µV where the slope is below 5 mV/s, 0.4 ms."""
    config = RenderConfig(layout=layout, lead_names=False, **FINE_PEN)
    everywhere, level, delay = errors(within_its_row(simulate("NORM", seed=4), config), config)
    assert everywhere < 9
    assert level < 3.5
    assert delay < 0.4


@pytest.mark.parametrize(
    "changes", [{"speed_mm_s": 50.0}, {"gain_mm_mv": 5.0}, {"gain_mm_mv": 20.0}, {"mode": "L", "grid": "none"}]
)
def test_digitising_holds_for_every_speed_gain_and_mode(changes):
    config = RenderConfig(layout="6x2", lead_names=False, **FINE_PEN, **changes)
    everywhere, level, delay = errors(within_its_row(simulate("NORM", seed=4), config), config)
    assert everywhere < 18
    assert level < 7
    assert delay < 0.4


@pytest.mark.real_data
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_digitising_gives_a_real_record_back(layout, data_dir):
    record = wfdb.rdrecord(str(data_dir / "ecg/ptb-xl/records500/00000/00001_hr"))
    ecg = ECG(record.p_signal, record.fs, tuple(record.sig_name))
    config = RenderConfig(layout=layout, lead_names=False)
    everywhere, level, delay = errors(within_its_row(ecg, config), config)
    assert everywhere < 30
    assert level < 8
    assert delay < 1


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_each_lead_stands_in_its_place(layout):
    levels = np.linspace(-0.3, 0.3, 12)
    ecg = ECG(np.tile(levels, (5000, 1)), fs_hz=500)
    config = RenderConfig(layout=layout, lead_names=False)
    for strip, _, found in digitise(render(ecg, config), config):
        assert np.nanmedian(found) == pytest.approx(levels[STANDARD_LEADS.index(strip.lead)], abs=0.003), strip.lead


def test_any_column_order_gives_the_same_picture():
    ecg = simulate("RBBB", seed=1)
    shuffled = ecg.reordered(STANDARD_LEADS[::-1])
    assert render(shuffled).tobytes() == render(ecg).tobytes()


@pytest.mark.parametrize("dpi", [101.6, 137.0, 300.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_grid_is_exact_to_the_millimetre(dpi, axis):
    """Lines by their centroid: 1 mm apart through the origin to within a pixel's half, without drift; every fifth is thick."""
    config = RenderConfig(
        width_px=round(280 * dpi / 25.4), height_px=round(215 * dpi / 25.4), dpi=dpi, layout=Layout("blank", (("I",),), 0.1),
        palette="grey", mode="L", calibration=False, lead_names=False, footer=False,
    )  # fmt: skip
    page = config.page()
    across = np.median(255.0 - np.asarray(render(flat(duration_s=0.01), config)), axis=1 - axis)
    step, origin = page.scale.px_per_mm, page.origin_px[1 - axis]
    offsets, thick, thin = [], [], []
    for number in range(-100, 101):
        x = origin + number * step
        if not step < x < len(across) - step:
            continue
        window = np.arange(int(x - step / 2), int(x + step / 2) + 1)
        profile = across[window] - across[window].min()
        offsets.append((profile * (window + 0.5)).sum() / profile.sum() - x)
        (thin if number % 5 else thick).append(profile.sum())
    assert len(offsets) > 100
    assert np.abs(offsets).max() <= 0.5
    assert abs(np.mean(offsets[: len(offsets) // 2])) < 0.03
    assert abs(np.mean(offsets[len(offsets) // 2 :])) < 0.03
    assert min(thick) > 2 * max(thin)


def test_calibration_pulse_is_one_millivolt_for_200_ms():
    config = RenderConfig(grid="none", mode="L", palette="grey", lead_names=False, footer=False, **FINE_PEN)
    page, dark = config.page(), 1 - np.asarray(render(flat(), config)) / 255.0
    for pulse in page.pulses:
        middle = int((pulse.rise_px + pulse.fall_px) / 2)
        column = dark[int(pulse.top_px) - 5 : int(pulse.foot_px) + 5, middle]
        top = (column * (np.arange(len(column)) + int(pulse.top_px) - 5 + 0.5)).sum() / column.sum()
        assert (pulse.foot_px - top) / page.scale.px_per_mv == pytest.approx(1.0, abs=0.001)
        half = dark[int((pulse.top_px + pulse.foot_px) / 2), int(pulse.rise_px) - 4 : int(pulse.fall_px) + 5]
        edges = np.flatnonzero(half > 0.3)
        left, right = (
            np.average(np.arange(part[0], part[-1] + 1), weights=half[part[0] : part[-1] + 1])
            for part in np.split(edges, [len(edges) // 2])
        )
        assert (right - left) / page.scale.px_per_s == pytest.approx(0.2, abs=0.001)


def test_same_input_same_bytes_and_no_shared_state():
    ecg = simulate("LBBB", seed=2)
    first = render(ecg)
    first.paste((0, 0, 0), (0, 0, 500, 500))
    assert render(ecg).tobytes() == render(ecg).tobytes()
    assert render(ecg).tobytes() != first.tobytes()


def test_own_layout_and_palette():
    layout = Layout("limb only", (("I", "II", "III"), ("aVR", "aVL", "aVF")), 6.0)
    palette = Palette((200, 255, 255), (150, 200, 200), (100, 160, 160), (90, 0, 0))
    config = RenderConfig(
        layout=layout, palette=palette, grid="none", lead_names=False, footer=False, calibration=False
    )
    pixels = np.asarray(render(flat(), config)).reshape(-1, 3)
    assert {tuple(pixels[0]), (200, 255, 255)} == {(200, 255, 255)}
    assert (pixels == (90, 0, 0)).all(axis=1).any()


def test_a_short_record_leaves_blank_paper():
    config = RenderConfig(grid="none", lead_names=False, mode="L")
    seen = {
        (strip.lead, strip.row): np.isfinite(found).mean()
        for strip, _, found in digitise(render(flat(duration_s=5.0), config), config)
    }
    assert seen[("I", 0)] > 0.98
    assert seen[("V4", 0)] == 0.0
    assert seen[("II", 3)] == pytest.approx(0.5, abs=0.01)


def test_a_long_record_shows_its_first_seconds():
    ecg = simulate("NORM", seed=0, duration_s=15.0)
    start = replace(ecg, signal_mv=ecg.signal_mv[:5001])
    assert render(ecg).tobytes() == render(start).tobytes()


def test_large_amplitudes_overlap_or_stop_half_way():
    config = RenderConfig(layout="12x1", grid="none", lead_names=False, footer=False, calibration=False, mode="L")
    signal = np.zeros((5000, 12), np.float32)
    signal[2500:2600, 5] = 50.0
    tall = ECG(signal, fs_hz=500)
    page = config.page()
    column = int(page.x_px(page.strips[5], 5.0))
    free = np.asarray(render(tall, config))[:, column - 3 : column + 3].min(axis=1)
    kept = np.asarray(render(tall, replace(config, overflow="clamp")))[:, column - 3 : column + 3].min(axis=1)
    border = page.strips[5].baseline_px - page.pitch_px / 2
    assert free[0] < 100, "the trace should leave the page"
    between = slice(int(page.strips[0].baseline_px) + 5, int(page.strips[1].baseline_px) - 5)
    assert kept[between].min() > 250
    assert kept[int(border) - 1 : int(border) + 3].min() < 100


def test_what_a_drawing_cuts_off_is_named():
    """A spike of 2.5 mV in one lead at a time: named exactly where its ink leaves the paper or its row."""
    config = RenderConfig(height_px=600)
    page = config.page()
    for overflow in ("overlap", "clamp"):
        drawn = replace(config, overflow=overflow, calibration=False, footer=False, lead_names=False, grid="none")
        for lead, sign in itertools.product(("V4", "V6", "II"), (1, -1)):
            signal = np.zeros((5000, 12), np.float32)
            strips = [s for s in page.strips if s.lead == lead]  # II stands in two rows
            signal[round((strips[0].start_s + 1) * 500) + np.arange(20), STANDARD_LEADS.index(lead)] = 2.5 * sign
            reach = [(page.y_px(s, 2.5 * sign), s.baseline_px) for s in strips]
            outside = any(not 0 <= y <= page.height_px for y, _ in reach)
            if overflow == "clamp":
                outside = any(abs(y - baseline) > page.pitch_px / 2 for y, baseline in reach)
            assert cut_leads(ECG(signal, 500), drawn) == ((lead,) if outside else ()), (lead, sign, overflow)
    nothing = ECG(np.zeros((500, 12), np.float32), 500)
    assert cut_leads(nothing, config) == ()


def test_the_gain_is_lowered_until_nothing_is_cut():
    config = RenderConfig(height_px=500, gain_mm_mv=20.0)
    for peak_mv, gain in ((0.5, 20.0), (1.2, 10.0), (2.0, 5.0), (9.0, 5.0)):
        ecg = flat()
        ecg = replace(ecg, signal_mv=np.full_like(ecg.signal_mv, peak_mv))
        fitted = fit_gain(ecg, config)
        assert fitted == replace(config, gain_mm_mv=gain), peak_mv
        assert bool(cut_leads(ecg, fitted)) == (peak_mv == 9.0)


def test_waves_that_pass_a_neighbour_s_line_are_drawn_at_half_the_gain():
    """Rows of the default page are 22 mm apart on the report's paper: 2.5 mV pass the next line by 3 mm."""
    config = RenderConfig(width_px=2192, height_px=872, dpi=203.2, header="{record_name}")
    assert round(config.page().pitch_px / config.page().scale.px_per_mm) == 22
    for lead, mv, crosses in (
        ("V1", -2.6, True),
        ("V1", -2.4, False),
        ("V1", 3.0, False),
        ("II", 2.6, True),
        ("V6", -3.0, True),
    ):
        signal = np.zeros((5000, 12), np.float32)
        for start in (0, 2500, 5000 - 1250 // 2):
            signal[start + 300 : start + 310, STANDARD_LEADS.index(lead)] = mv
        ecg = ECG(signal, 500)
        assert crossing_leads(ecg, config) == ((lead,) if crosses else ()), (lead, mv)
        if not cut_leads(ecg, config):
            assert fit_gain(ecg, config).gain_mm_mv == (5.0 if crosses else 10.0)
        assert crossing_leads(ecg, replace(config, overflow="clamp")) == ()


def test_leads_that_a_short_record_does_not_reach():
    assert LAYOUTS["3x4+rhythm"].blank_leads(10.0) == ()
    assert LAYOUTS["3x4+rhythm"].blank_leads(7.5) == ("V4", "V5", "V6")
    assert LAYOUTS["6x2"].blank_leads(5.0) == ("V1", "V2", "V3", "V4", "V5", "V6")
    assert LAYOUTS["12x1"].blank_leads(0.1) == ()
    assert Layout("rhythm", (("I", "II"), ("II",)), 10.0).blank_leads(4.0) == ()


def test_grey_is_the_luma_of_the_colours():
    colour = render(simulate("AF", seed=3), RenderConfig(lead_names=False, footer=False)).convert("L")
    grey = render(simulate("AF", seed=3), RenderConfig(lead_names=False, footer=False, mode="L"))
    assert grey.mode == "L"
    difference = np.abs(np.asarray(colour, int) - np.asarray(grey, int))
    assert difference.max() <= 3


def test_simulated_records_are_marked():
    real, made = flat(), flat(metadata={"simulated": True})
    page = RenderConfig().page()
    a, b = (np.asarray(render(ecg), int) for ecg in (real, made))
    rows = np.flatnonzero(np.abs(a - b).max(axis=(1, 2)))
    assert rows.min() > page.strips[-1].baseline_px + page.pitch_px / 4
    assert render(real, RenderConfig(footer=False)).tobytes() == render(made, RenderConfig(footer=False)).tobytes()


def test_header_names_what_the_record_has():
    config = RenderConfig(header="{record_name} {age} y {fs_hz} Hz {lost}")
    named = flat(record_name="r1", metadata={"age": 61.0, "lost": None})
    same = replace(config, header="r1 61 y 500 Hz -")
    assert render(named, config).tobytes() == render(flat(), same).tobytes()
    assert config.page().strips[0].baseline_px > RenderConfig().page().strips[0].baseline_px


@pytest.mark.parametrize(
    ("layout", "size"), list(itertools.product(sorted(LAYOUTS), [(448, 336), (224, 224), (1701, 333)]))
)
def test_any_size_works(layout, size):
    image = render(simulate("STE", seed=0), RenderConfig(layout=layout, width_px=size[0], height_px=size[1]))
    assert image.size == size
    assert np.asarray(image).min() < 120
