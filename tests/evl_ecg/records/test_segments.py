"""Several signal files and segments, frames, skew and gaps are one signal."""

import warnings

import numpy as np
import pytest
from written_records import GAIN, beats, edit, read, write

from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.reader import check_record, read_record
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
    expected = signal[:-25].copy()
    expected[:, 6] = signal[25:, 6]
    skewed = read_record(
        record
    )  # it ends where its most skewed lead does: the others' last frames have no value of that one
    assert "interpolated_samples" not in skewed.metadata
    assert skewed.signal_mv.shape == (1175, 12)
    assert np.abs(skewed.signal_mv - expected).max() < 1 / GAIN
    first = read_record(record, duration_s=2.0)
    assert np.array_equal(first.signal_mv, skewed.signal_mv[:1000])


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


def test_one_frame_a_second_holds_any_rate(tmp_path):
    """1 frame/s of 500 samples is 500 Hz, not 1 Hz; 24 samples a second are too few whatever the frames."""
    signal = beats(1500)
    record = write(tmp_path, signal=signal)
    digital = np.fromfile(tmp_path / "r.dat", "<i2").reshape(3, 500, 12).transpose(0, 2, 1)
    digital.astype("<i2").tofile(tmp_path / "r.dat")
    edit(record, "r 12 500 1500", "r 12 1 3")
    edit(record, "r.dat 16 ", "r.dat 16x500 ", count=-1)
    ecg = read_record(record)
    assert ecg.fs_hz == 500
    assert np.abs(ecg.signal_mv - signal).max() < 1 / GAIN
    first = read_record(record, duration_s=1.5)
    assert np.array_equal(first.signal_mv, ecg.signal_mv[:750])
    edit(record, "r.dat 16x500 ", "r.dat 16x24 ", count=-1)
    with pytest.raises(ECGRecordError, match="fs is '24'; allowed: 25 to 20000 Hz, times samples per frame"):
        read_record(record)
    edit(record, "r 12 1 3", "r 12 900 3")
    with pytest.raises(ECGRecordError, match=r"fs times samples per frame is 21600\.0"):
        read_record(record)


def test_a_length_of_zero_is_one_left_out(tmp_path):
    record = write(tmp_path, "a")
    edit(record, "a 12 500 1000", "a 12 500 0")
    assert len(read_record(record)) == 1000
    assert check_record(record).n_samples == 1000
    (tmp_path / "m.hea").write_text("m/2 12 500 0\na 600\na 1000\n")
    assert len(read(tmp_path / "m")) == 1600


def test_warnings_of_segments_are_those_of_the_plain_record(tmp_path):
    """The gains of segments stand in their own headers, not in the record's."""
    high = beats(1000) * 40
    scaled = np.round(beats(1000) * 1000)  # III = II - I for the stored numbers, as in LUDB
    for name, signal, options in (
        ("gain", high, {}),
        ("ludb", scaled, {"adc_gain": [500.0 + 80 * i for i in range(12)]}),
    ):
        gains = np.array(options.get("adc_gain", [GAIN] * 12))
        write(tmp_path, name, signal=signal / gains if name == "ludb" else signal, **options)
        (tmp_path / f"{name}_m.hea").write_text(f"{name}_m/2 12 500 2000\n{name} 1000\n{name} 1000\n")
        said = []
        for record in (name, f"{name}_m"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                read_record(tmp_path / record)
            texts = [str(w.message).split(": ", 1)[1] for w in caught if issubclass(w.category, ECGRecordWarning)]
            said.append(texts)
        assert said[0] == said[1], name
        assert len(said[0]) == 1
    assert "as in LUDB" in said[0][0]


def test_segments_of_different_gains_blame_none_that_stands_nowhere(tmp_path):
    for name, gain in (("a", 1000.0), ("b", 500.0)):
        write(tmp_path, name, signal=beats(1000) * 20, adc_gain=[gain] * 12)
    (tmp_path / "m.hea").write_text("m/2 12 500 2000\na 1000\nb 1000\n")
    with pytest.warns(ECGRecordWarning, match="most likely the gain or the units in the header are wrong"):
        read_record(tmp_path / "m")


def test_segments_that_lack_leads_which_can_be_derived_are_joined(tmp_path):
    signal = beats(1200)
    kept = [i for i, lead in enumerate(STANDARD_LEADS) if lead not in ("III", "aVL")]
    write(tmp_path, "a", signal=signal[:600])
    write(tmp_path, "b", signal=signal[600:, kept], sig_name=[STANDARD_LEADS[i] for i in kept])
    (tmp_path / "m.hea").write_text("m/3 12 500 1200\nb 0\na 600\nb 600\n")
    ecg = read_record(tmp_path / "m")
    assert ecg.metadata["derived_leads"] == ("III", "aVL")
    assert np.abs(ecg.signal_mv - signal).max() < 2 / GAIN
    assert np.array_equal(ecg.signal_mv[:600], read_record(tmp_path / "a").signal_mv)


def test_only_the_segments_that_are_used_are_opened(tmp_path):
    write(tmp_path, "a", signal=beats(600))
    (tmp_path / "m.hea").write_text("m/3 12 500 1800\na 600\na 600\ngone 600\n")
    assert len(read_record(tmp_path / "m", duration_s=1.0)) == 500
    ecg = read_record(tmp_path / "m", duration_s=1.3)
    assert np.abs(ecg.signal_mv - np.tile(beats(600), (2, 1))[:650]).max() < 1 / GAIN
    assert ecg.metadata["recorded_s"] == 3.6
    with pytest.raises(ECGRecordError, match=r"gone\.hea"):
        read_record(tmp_path / "m")
    (tmp_path / "m.hea").write_text("m/2 12 500 2400\n~ 1200\na 1200\n")
    edit(tmp_path / "a", "a 12 500 600", "a 12 500 1200")
    (tmp_path / "a.dat").write_bytes((tmp_path / "a.dat").read_bytes() * 2)
    with pytest.raises(ECGRecordError, match="a gap of 1000 frames at the start"):
        read_record(tmp_path / "m", duration_s=1.0, nan="interpolate")
