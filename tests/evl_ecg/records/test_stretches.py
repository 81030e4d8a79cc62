"""Any stretch of a record is that of the whole record, and nothing else is read."""

import time
import tracemalloc
import warnings

import numpy as np
import pytest
from written_records import DAY_S, GAIN, beats, day, edit, read, write, write_two_rates

from hf_evl_ecg.clinical.arrays import ArrayDescription
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.interpret.report import shown_time
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.reader import read_header, read_record
from hf_evl_ecg.records.segments import read_leads
from hf_evl_ecg.signals.ecg import STANDARD_LEADS


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_a_stretch_is_that_of_the_whole(tmp_path, fmt):
    gain = 50.0 if fmt in ("80", "508") else GAIN
    record = write(tmp_path, signal=beats(3003), fmt=fmt, adc_gain=[gain] * 12)
    whole = read(record)
    for start_s in (0.0, 0.002, 0.5, 1.001, 2.75, 5.9):
        for duration_s in (0.25, 1.0, 100.0, None):
            part = read(record, start_s=start_s, duration_s=duration_s)
            begin = round(start_s * 500)
            end = None if duration_s is None else begin + round(duration_s * 500)
            assert np.array_equal(part.signal_mv, whole.signal_mv[begin:end]), (start_s, duration_s)
            assert part.recorded_s == whole.duration_s
            assert part.metadata.get("start_s", 0.0) == start_s
    with pytest.raises(ECGRecordError, match=r"start_s is 6\.01; allowed: less than the record's 6\.006 s"):
        read_record(record, start_s=6.01)
    for start_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="start_s="):
            read_record(record, start_s=start_s)


@pytest.mark.parametrize("fmt", ["16", "24", "32", "61", "80", "160", "212", "310", "311"])
def test_a_stretch_of_any_bytes_is_that_of_the_whole(tmp_path, fmt):
    """Also where a frame begins within a block of the format, and where samples are marked as missing."""
    count = 331
    (tmp_path / "b.dat").write_bytes(np.random.default_rng(1).bytes(count * 12 * 4))
    lines = [f"b.dat {fmt} 200/mV 16 0 0 0 0 {name}" for name in STANDARD_LEADS]
    (tmp_path / "b.hea").write_text("\n".join([f"b 12 100 {count}", *lines]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ECGRecordWarning)
        header = read_header(tmp_path / "b")
        whole = read_leads(header, None, None)
        for start in (0, 1, 7, 113, 320):
            part = read_leads(header, None, None, 0.5, start / 100)
            for name in STANDARD_LEADS:
                expected = whole.millivolts[name][start : start + 50]
                assert np.array_equal(part.millivolts[name], expected, equal_nan=True), (start, name)


def test_differences_are_added_up_from_the_first(tmp_path):
    signal = np.cumsum(np.random.default_rng(0).integers(-100, 100, (3000, 12)), axis=0)
    differences = np.diff(signal, axis=0, prepend=signal[:1])
    differences.astype("i1").tofile(tmp_path / "d.dat")
    lines = [f"d.dat 8 200/mV 16 0 {signal[0, i]} 0 0 {name}" for i, name in enumerate(STANDARD_LEADS)]
    (tmp_path / "d.hea").write_text("\n".join(["d 12 500 3000", *lines]))
    part = read(tmp_path / "d", start_s=4.0, duration_s=1.0)
    assert np.allclose(part.signal_mv, signal[2000:2500] / 200)


def test_stretches_of_segments_skew_and_other_rates(tmp_path):
    signal = beats(6000)
    for i in range(3):
        write(tmp_path, f"s{i}", signal=signal[2000 * i : 2000 * (i + 1)])
    (tmp_path / "m.hea").write_text("m/4 12 500 7000\ns0 2000\n~ 1000\ns1 2000\ns2 2000\n")
    whole = np.concatenate([signal[:2000], np.full((1000, 12), np.nan), signal[2000:]])
    for start_s, duration_s in ((0.5, 2.0), (6.5, 3.0), (9.0, 3.0), (11.0, None)):
        part = read(tmp_path / "m", start_s=start_s, duration_s=duration_s)
        begin = round(start_s * 500)
        end = None if duration_s is None else begin + round(duration_s * 500)
        assert np.abs(part.signal_mv - whole[begin:end]).max() < 1 / GAIN
    with pytest.raises(ECGRecordError, match="missing samples"):
        read(tmp_path / "m", start_s=4.5, duration_s=0.2)
    (tmp_path / "s0.dat").unlink()  # nothing of a segment before is needed
    assert len(read(tmp_path / "m", start_s=9.0, duration_s=3.0)) == 1500

    record = write(tmp_path, "k", signal=signal)
    edit(record, " 16 ", " 16:7 ")
    skewed = read(record)
    part = read(record, start_s=3.0, duration_s=2.0)
    assert np.array_equal(part.signal_mv, skewed.signal_mv[1500:2500])

    record = write_two_rates(tmp_path, "r", signal)
    whole, part = read(record), read(record, start_s=5.0, duration_s=2.0)
    assert np.abs(part.signal_mv - whole.signal_mv[2500:3500]).max() < 1e-6


def test_pages_of_a_day_take_the_memory_and_time_of_pages(tmp_path):
    record = day(tmp_path)
    page = beats(5000)
    places = range(0, DAY_S, 3600)
    with open(tmp_path / "r.dat", "r+b") as file:  # one page in each hour; the rest is holes
        for start_s in places:
            file.seek(start_s * 500 * 24)
            file.write(np.rint(page * GAIN).astype("<i2").tobytes())
    render(read(record, duration_s=10.0))
    tracemalloc.start()
    started = time.perf_counter()
    for start_s in places:
        ecg = read(record, start_s=float(start_s), duration_s=10.0)
        assert np.abs(ecg.signal_mv - page).max() < 1 / GAIN
        assert render(ecg).size == (1100, 850)
    seconds = (time.perf_counter() - started) / len(places)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert seconds < 1.0  # 0.04 s on two free cores without tracing; here several tests may run at once
    assert shown_time(ecg, "3x4+rhythm") == ["Shown are 10 s from 23:00:00 on, of 24:00:00"]


def test_a_stretch_of_another_format_is_that_of_the_whole(tmp_path):
    signal = beats(3000)
    np.savez(tmp_path / "a.npz", ecg=signal)
    said = ArrayDescription(fs_hz=500.0, unit="mV", leads=STANDARD_LEADS, dataset="ecg")
    whole = read_record(tmp_path / "a.npz", description=said)
    part = read_record(tmp_path / "a.npz", description=said, start_s=2.0, duration_s=1.0)
    assert np.array_equal(part.signal_mv, whole.signal_mv[1000:1500])
    assert (part.metadata["start_s"], part.recorded_s) == (2.0, 6.0)
    with pytest.raises(ECGRecordError, match="start_s"):
        read_record(tmp_path / "a.npz", description=said, start_s=6.0)
