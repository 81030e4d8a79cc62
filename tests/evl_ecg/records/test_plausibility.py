"""Amplitudes and gains that no heart and no recorder produces are told."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from written_records import FS, beats, edit, header_line, write

import hf_evl_ecg.records.header
import hf_evl_ecg.records.plausibility
import hf_evl_ecg.records.reader
import hf_evl_ecg.records.samples
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.plausibility import ImplausibleAmplitudeWarning, amplitude_mv
from hf_evl_ecg.records.reader import read_header, read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS


def test_a_swapped_limb_lead_is_noticed(tmp_path):
    names = list(STANDARD_LEADS)
    names[0], names[1] = names[1], names[0]
    record = write(tmp_path, signal=beats(2500), sig_name=names, adc_gain=[1000.0] * 12)
    with pytest.warns(ECGRecordWarning, match=r"deviate by up to [0-9.]+ mV from what I and II imply"):
        read_record(record)
    with warnings.catch_warnings():  # coarse rounding is no contradiction
        warnings.simplefilter("error", ECGRecordWarning)
        read_record(write(tmp_path, "coarse", signal=beats(2500), adc_gain=[8.0] * 12))


def test_missing_gain_warns(tmp_path):
    record = write(tmp_path)
    first = header_line(record, 1)
    edit(record, first, "r.dat 16", 1)
    with pytest.raises(ECGRecordError, match="missing"):  # the description went with the gain
        read_record(record)
    text = (
        record.with_suffix(".hea").read_text().replace("r.dat 16\n", first.replace("200.0(0)/mV", "200.0(0)/mV") + "\n")
    )
    record.with_suffix(".hea").write_text(text)
    header = read_header(record)
    bare = replace(header, signals=(replace(header.signals[0], gain=None), *header.signals[1:]))
    with pytest.warns(ECGRecordWarning, match=r"no gain for \['I'\]"):
        hf_evl_ecg.records.plausibility.warn_about_scale(read_record(record), bare)


@pytest.mark.parametrize(
    ("true_gain", "stated", "match"),
    [(1000, 200, "with 1000"), (1000, 4880, "with 1000"), (13, 0.01, "gain or the units")],
)
def test_wrong_gains_are_noticed(tmp_path, true_gain, stated, match):
    record = write(tmp_path, signal=beats(2500) * 2.0, adc_gain=[float(true_gain)] * 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = read_record(record)
    edit(record, f"{true_gain}.0(0)/mV", f"{stated}(0)/mV", count=-1)
    with pytest.warns(ImplausibleAmplitudeWarning, match=match):
        wrong = read_record(record)
    assert np.allclose(wrong.signal_mv * stated, right.signal_mv * true_gain, rtol=1e-4, atol=1e-3)
    assert np.array_equal(read_record(record, gain_per_mv=true_gain).signal_mv, right.signal_mv)
    with pytest.raises(ValueError, match="gain_per_mv"):
        read_record(record, gain_per_mv=0)


def test_gains_that_scale_each_lead_by_itself_are_noticed(tmp_path):
    signal = beats(2500)
    record = write(tmp_path, signal=signal, adc_gain=[1000.0] * 12)
    lines = record.with_suffix(".hea").read_text().splitlines()
    for i, gain in enumerate(np.ptp(signal, axis=0) * 1000, 1):
        lines[i] = lines[i].replace("1000.0(0)/mV", f"{gain:.0f}(2)/mV")
    record.with_suffix(".hea").write_text("\n".join(lines))
    with pytest.warns(ECGRecordWarning, match="scale each lead by itself"):
        read_record(record)
    assert np.abs(read_record(record, gain_per_mv=1000).signal_mv - signal).max() < 0.001


def test_amplitude_ignores_drift_and_spikes():
    signal = beats(5000)
    tall = np.ptp(signal, axis=0).max()
    assert amplitude_mv(signal, FS) == pytest.approx(tall, rel=0.02)
    disturbed = signal + np.repeat([0, 50], 2500)[:, None]
    disturbed[777] += 30
    assert amplitude_mv(disturbed, FS) == pytest.approx(tall, rel=0.02)
