"""Long records, of which only what is used is read, and signal files that are not needed."""

import shutil
import tracemalloc

import numpy as np
import pytest
import wfdb
from written_records import DAY_S, GAIN, beats, day, edit, read, write, write_two_rates

from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.interpret.pictures import load_picture
from hf_evl_ecg.interpret.report import shown_time
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import find_header
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.sources import load_cinc, load_folder


def test_ten_seconds_of_a_day_take_the_memory_of_ten_seconds(tmp_path):
    record = day(tmp_path, ["Dx: 164889003"])
    row = {"record": "r", "root": str(tmp_path), "storage": "wfdb"}
    for reads in (lambda: load_ecg(row), lambda: read_record(record, duration_s=10), lambda: load_picture(record).ecg):
        tracemalloc.start()
        ecg = reads()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6  # 13 GB if all of it were decoded
        assert np.abs(ecg.signal_mv[:5000] - beats(5000)).max() < 1 / GAIN
        assert ecg.recorded_s == DAY_S
    assert shown_time(ecg, "3x4+rhythm") == ["Shown are the first 10 of 86400 s"]
    rows, report = load_cinc(tmp_path, check="signal")
    assert rows[0]["duration_s"] == DAY_S
    assert (
        "1 records last more than the 10 s that are drawn, up to 86400 s: their labels are of the whole record"
        in report.notes
    )


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_the_first_seconds_are_those_of_the_whole(tmp_path, fmt):
    gain = 50.0 if fmt in ("80", "508") else GAIN
    record = write(tmp_path, signal=beats(3003), fmt=fmt, adc_gain=[gain] * 12)
    whole = read(record)
    for seconds in (0.5, 1.001, 2.0, 6.0, 100.0):
        first = read(record, duration_s=seconds)
        count = min(3003, round(seconds * 500))
        assert np.array_equal(first.signal_mv, whole.signal_mv[:count])
        assert first.recorded_s == whole.duration_s == 3003 / 500
    assert "recorded_s" not in read(record, duration_s=100).metadata
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="duration_s="):
            read_record(record, duration_s=seconds)


def test_leads_of_another_rate_are_the_same_at_the_cut(tmp_path):
    """A filter between rates must not end where the reading does."""
    signal = beats(6000)
    record = write_two_rates(tmp_path, "m", signal)
    whole, first = read_record(record), read_record(record, duration_s=4.0)
    assert len(first) == 2000
    assert np.abs(first.signal_mv - whole.signal_mv[:2000]).max() < 1e-6
    assert np.abs(first.signal_mv[:, :6] - signal[:2000, :6]).max() < 1 / GAIN


def frank(folder):
    """A record as PTB Diagnostic has them: twelve leads in .dat, three Frank leads in .xyz."""
    signal = np.concatenate([beats(), beats()[:, :3]], axis=1)
    write(folder, "s", signal=signal[:, :12])
    wfdb.wrsamp("x", fs=500, units=["mV"] * 3, sig_name=["vx", "vy", "vz"], p_signal=signal[:, 12:], fmt=["16"] * 3,
                adc_gain=[GAIN] * 3, baseline=[0] * 3, write_dir=str(folder))  # fmt: skip
    shutil.move(folder / "x.dat", folder / "s.xyz")
    lines = (folder / "x.hea").read_text().replace("x.dat", "s.xyz").splitlines()[1:4]
    edit(folder / "s", "s 12 500", "s 15 500")
    (folder / "s.hea").write_text((folder / "s.hea").read_text() + "\n".join(lines) + "\n")
    (folder / "x.hea").unlink()
    return folder / "s"


def test_a_signal_file_without_a_standard_lead_need_not_be_there(tmp_path):
    record = frank(tmp_path)
    expected = read_record(record).signal_mv
    assert np.abs(expected - beats()).max() < 1 / GAIN
    assert find_header(tmp_path / "s.xyz") == tmp_path / "s.hea"
    assert np.array_equal(read_record(tmp_path / "s.xyz").signal_mv, expected)
    (tmp_path / "s.ii").write_bytes(b"annotations, which the header does not name")
    with pytest.raises(ECGRecordError, match=r"a \.ii file"):
        read_record(tmp_path / "s.ii")
    (tmp_path / "s.xyz").write_bytes(b"cut")
    assert np.array_equal(read_record(record).signal_mv, expected)
    (tmp_path / "s.xyz").unlink()
    assert np.array_equal(read_record(record).signal_mv, expected)
    (tmp_path / "s.dat").unlink()
    with pytest.raises(ECGRecordError, match=r"s\.dat: signal file"):
        read_record(record)


@pytest.mark.real_data
def test_real_ptbdb_without_its_frank_leads(data_dir, tmp_path):
    source = data_dir / "ecg" / "ptbdb" / "patient001"
    expected = read(source / "s0010_re")
    assert np.array_equal(read(source / "s0010_re.xyz").signal_mv, expected.signal_mv)
    for suffix in (".hea", ".dat"):
        shutil.copy(source / f"s0010_re{suffix}", tmp_path)
    assert np.array_equal(read(tmp_path / "s0010_re").signal_mv, expected.signal_mv)


def test_missing_samples_are_treated_as_the_row_says(tmp_path):
    """As `prepare --missing` was told; the error names the option."""
    signal = beats()
    signal[100:110, 7] = np.nan
    write(tmp_path, signal=signal)
    (tmp_path / "records.csv").write_text("record,labels\nr,AF\n")
    rows, _ = load_folder(tmp_path)
    assert rows[0]["missing"] == "raise"
    with pytest.raises(ECGRecordError, match="--missing interpolate"):
        load_ecg(rows[0])
    with pytest.raises(ValueError, match="--missing interpolate"):
        load_folder(tmp_path, check="signal")
    rows, report = load_folder(tmp_path, check="signal", missing="interpolate")
    assert (rows[0]["missing"], report.skipped) == ("interpolate", [])
    assert load_ecg(rows[0]).metadata["interpolated_samples"] == {"V2": 10}
    with pytest.raises(ECGRecordError, match="missing samples"):
        load_ecg(rows[0], nan="raise")
