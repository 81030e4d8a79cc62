"""Several signal files and segments, frames, skew and gaps are one signal."""

import numpy as np
import pytest
from written_records import GAIN, beats, edit, write

from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS


def test_several_files_rates_skew_and_segments(tmp_path):
    signal = beats(1200)
    write(tmp_path, "a", signal=signal[:600])
    write(tmp_path, "b", signal=signal[600:])
    write(tmp_path, "limb", signal=signal[:, :6], sig_name=list(STANDARD_LEADS[:6]))
    write(tmp_path, "chest", signal=signal[:, 6:], sig_name=list(STANDARD_LEADS[6:]), fmt="212")
    (tmp_path / "multi.hea").write_text("multi/2 12 500 1200\na 600\nb 600\n")
    both = [(tmp_path / f"{name}.hea").read_text().splitlines()[1:7] for name in ("limb", "chest")]
    (tmp_path / "two.hea").write_text("\n".join(["two 12 500 1200", *both[0], *both[1]]))
    for name in ("multi", "two"):
        ecg = read_record(tmp_path / name)
        assert np.abs(ecg.signal_mv - signal).max() < 1 / GAIN, name


def test_a_known_gain_replaces_that_of_every_segment(tmp_path):
    edit(write(tmp_path, "a", signal=beats(600)), f"{GAIN}(0)/mV", "0(0)/mV", count=-1)
    (tmp_path / "m.hea").write_text("m/2 12 500 1200\na 600\na 600\n")
    with pytest.raises(ECGRecordError, match="uncalibrated"):
        read_record(tmp_path / "m")
    ecg = read_record(tmp_path / "m", gain_per_mv=GAIN)
    assert np.abs(ecg.signal_mv - np.tile(beats(600), (2, 1))).max() < 1 / GAIN


def test_samples_per_frame_and_skew(tmp_path):
    signal = beats(1200)
    record = write(tmp_path, signal=signal)
    lines = record.with_suffix(".hea").read_text().splitlines()
    frames = ["r 12 250 600"] + [line.replace("r.dat 16 ", "r.dat 16x2 ") for line in lines[1:13]]
    (tmp_path / "frames.hea").write_text("\n".join(frames).replace("r 12", "frames 12"))
    digital = np.fromfile(tmp_path / "r.dat", "<i2").reshape(600, 2, 12).transpose(0, 2, 1)
    digital.astype("<i2").tofile(tmp_path / "r.dat")
    ecg = read_record(tmp_path / "frames")
    assert ecg.fs_hz == 500
    assert np.abs(ecg.signal_mv - signal).max() < 1 / GAIN

    record = write(tmp_path, "skewed", signal=signal)
    lines = record.with_suffix(".hea").read_text().splitlines()
    lines[7] = lines[7].replace(" 16 ", " 16:25 ", 1)
    record.with_suffix(".hea").write_text("\n".join(lines))
    expected = signal.copy()
    expected[:-25, 6] = signal[25:, 6]
    skewed = read_record(record, nan="interpolate")
    assert skewed.metadata["interpolated_samples"] == {STANDARD_LEADS[6]: 25}
    assert np.abs(skewed.signal_mv[:-25] - expected[:-25]).max() < 1 / GAIN


def test_gaps_between_segments_follow_the_nan_policy(tmp_path):
    write(tmp_path, "a", signal=beats(600))
    (tmp_path / "m.hea").write_text("m/3 12 500 1300\na 600\n~ 100\na 600\n")
    with pytest.raises(ECGRecordError, match="missing samples"):
        read_record(tmp_path / "m")
    ecg = read_record(tmp_path / "m", nan="interpolate")
    assert len(ecg) == 1300
    assert set(ecg.metadata["interpolated_samples"].values()) == {100}
    (tmp_path / "m.hea").write_text("m/2 12 500 10000000600\na 600\n~ 10000000000\n")
    with pytest.raises(ECGRecordError, match="length of gaps"):
        read_record(tmp_path / "m", nan="interpolate")
    (tmp_path / "m.hea").write_text("m/9999 12 500 5999400\n" + "a 600\n" * 9999)
    with pytest.raises(ECGRecordError, match="a, 9999 times'; allowed: the same segment at most 16 times"):
        read_record(tmp_path / "m")
