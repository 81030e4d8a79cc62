"""Digitised paper: each lead holds its own 2.5 s, the rest is missing; it is drawn as it is, blank elsewhere, and said."""

import pickle

import numpy as np
import pytest
from written_records import GAIN, beats, write

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.rendering import render, render_traces
from hf_evl_ecg.interpret.pictures import load_picture
from hf_evl_ecg.interpret.report import shown_time
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.plausibility import amplitude_mv
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS, einthoven_error_mv, resample

FS = 500
SAID = "0 to 2.5 s of I, III; 0 to 10 s of II; 2.5 to 5 s of aVR, aVL, aVF; 5 to 7.5 s of V1, V2, V3; 7.5 to 10 s of V4, V5, V6"


def printed(columns: int = 4, rhythm: str = "II") -> np.ndarray:
    """Ten seconds of beats of which each lead keeps its column of the page, but for a rhythm strip; shape (5000, 12)."""
    whole, page = beats(10 * FS), np.full((10 * FS, 12), np.nan)
    for lead, name in enumerate(STANDARD_LEADS):
        start, stop = (lead * columns // 12 * 5000 // columns, (lead * columns // 12 + 1) * 5000 // columns)
        start, stop = (0, 5000) if name == rhythm else (start, stop)
        page[start:stop, lead] = whole[start:stop, lead]
    return page


@pytest.mark.parametrize("nan", ["raise", "interpolate"])
def test_each_lead_keeps_its_own_stretch(tmp_path, nan):
    record, page = write(tmp_path, signal=printed()), printed()
    with pytest.warns(ECGRecordWarning, match="as digitised paper does, and is blank elsewhere: " + SAID) as warned:
        ecg = read_record(record, nan=nan)
    assert len(warned) == 1  # nothing of amplitudes, or of limb leads that contradict each other
    assert np.array_equal(np.isnan(ecg.signal_mv), np.isnan(page))
    assert np.nanmax(np.abs(ecg.signal_mv - page)) < 1 / GAIN
    assert "interpolated_samples" not in ecg.metadata
    assert ecg.flat_leads == ()
    assert np.array_equal(pickle.loads(pickle.dumps(ecg)).signal_mv, ecg.signal_mv, equal_nan=True)


def test_two_columns_are_never_filled_with_a_straight_line(tmp_path):
    """Half a lead was still filled by its last value, five seconds long."""
    record = write(tmp_path, signal=printed(columns=2, rhythm=""))
    with pytest.warns(ECGRecordWarning, match="0 to 5 s of I, II, III, aVR, aVL, aVF; 5 to 10 s of V1"):
        ecg = read_record(record, nan="interpolate")
    assert np.isnan(ecg.signal_mv).sum() == 12 * 2500


def test_gaps_inside_of_a_stretch_are_gaps(tmp_path):
    page = printed()
    page[100:110, 0] = np.nan
    record = write(tmp_path, signal=page)
    with pytest.raises(ECGRecordError, match=r"missing samples per lead is .*'I': 10"):
        read_record(record)
    with pytest.warns(ECGRecordWarning, match="0 to 2.5 s of I, III"):
        ecg = read_record(record, nan="interpolate")
    assert ecg.metadata["interpolated_samples"] == {"I": 10}
    assert np.isnan(ecg.signal_mv).sum() == np.isnan(printed()).sum()


def test_a_lead_that_was_not_found_on_the_page_stays_blank(tmp_path):
    page = printed()
    page[:, 11] = np.nan
    with pytest.warns(ECGRecordWarning, match="7.5 to 10 s of V4, V5; nothing of V6"):
        picture = load_picture(write(tmp_path, signal=page))
    assert picture.unseen_leads == ("V6",)


@pytest.mark.parametrize("kept", [slice(0, 2500), slice(0, 200)])
def test_one_lead_that_is_half_missing_is_no_digitised_paper(tmp_path, kept):
    signal = beats(10 * FS)
    signal[:, 6] = np.nan
    signal[kept, 6] = beats(10 * FS)[kept, 6]
    with pytest.raises(ECGRecordError, match="missing samples per lead"):
        read_record(write(tmp_path, signal=signal))
    short = np.full((10 * FS, 12), np.nan)  # scraps of a fifth of a second are no leads
    short[:100] = beats(100)
    with pytest.raises(ECGRecordError, match="missing samples per lead"):
        read_record(write(tmp_path, "s", signal=short))


def test_the_page_is_that_of_the_whole_record_and_blank_elsewhere(tmp_path):
    """In the layout it was printed in nothing lacks; in another one only what was recorded is drawn."""
    whole = ECG(beats(10 * FS), FS)
    paper = ECG(printed(), FS, allow_missing=True)
    four, long = RenderConfig(), RenderConfig(layout="12x1")
    difference = np.abs(np.asarray(render(whole, four), np.int16) - np.asarray(render(paper, four), np.int16))
    assert (difference.max(axis=2) > 40).mean() < 2e-4  # the last half pixel of a column
    assert shown_time(paper, "3x4+rhythm") == []
    _, traced = render_traces(paper, long)
    page = long.page()
    for strip in page.strips:
        row = traced[round(strip.baseline_px - 3) : round(strip.baseline_px + 3)]
        for at, there in enumerate(~np.isnan(printed()[:, STANDARD_LEADS.index(strip.lead)])):
            if at % 500 == 0 and (at + 50) % 1250 > 100:
                assert (row[:, round(page.x_px(strip, at / FS))].sum() > 0.5) == there, (strip.lead, at)
    unseen = load_picture(paper, long).unseen_leads
    assert unseen == tuple(name for name in STANDARD_LEADS if name != "II")
    assert shown_time(paper, "12x1") == [
        f"Blank in part or whole, as nothing was recorded in their place on the page: {', '.join(unseen)}"
    ]


def test_leads_that_all_start_at_0_are_drawn_there_alone():
    """Some digitisers cut each lead to the beginning; then most places of the page are blank, and their leads are named."""
    signal = np.full((10 * FS, 12), np.nan)
    signal[:1250] = beats(1250)
    assert load_picture(ECG(signal, FS, allow_missing=True)).unseen_leads == STANDARD_LEADS[3:]


def test_other_rates_and_measures_leave_missing_samples_out():
    paper = ECG(printed(), FS, allow_missing=True)
    slow = resample(paper, 100)
    holes = np.isnan(printed())
    assert np.array_equal(np.isnan(slow.signal_mv), holes[::5])
    whole = resample(ECG(beats(10 * FS), FS), 100).signal_mv
    inner = (
        ~np.isnan(slow.signal_mv) & ~np.isnan(np.roll(slow.signal_mv, 8, 0)) & ~np.isnan(np.roll(slow.signal_mv, -8, 0))
    )
    assert inner.sum() > 2000
    assert np.abs(slow.signal_mv - whole)[inner].max() < 0.02
    assert einthoven_error_mv(paper) < 1e-6
    assert 0.9 < amplitude_mv(paper.signal_mv, FS) / amplitude_mv(beats(10 * FS), FS) < 1.1


def test_nan_is_an_error_unless_it_is_allowed():
    with pytest.raises(ValueError, match="not every value is finite"):
        ECG(printed(), FS)
    with pytest.raises(ValueError, match="not every value is finite"):
        ECG(np.full((10, 12), np.inf), FS, allow_missing=True)
