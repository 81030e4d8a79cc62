"""Limb leads whose size was lost in z-scores get it back."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.simulation import simulate
from hf_evl_ecg.sources import load_ptbxl_filtered
from hf_evl_ecg.sources.zscored import FILTERED_COLUMNS, read_zscored, restore_millivolts


def test_limb_ratios_come_back_from_z_scores():
    for seed, label in enumerate(CPSC_CLASSES):
        signal = simulate(label, seed=seed, fs_hz=100).signal_mv.astype(np.float64)
        signal = sosfiltfilt(butter(3, [0.5, 40], "bandpass", fs=100, output="sos"), signal, axis=0)
        restored, solved = restore_millivolts(signal / signal.std(0))
        assert solved, label
        ratio = restored.std(0)[:6] / signal.std(0)[:6]
        assert ratio.max() / ratio.min() < 1.01
    noise = np.random.default_rng(0).normal(size=(1000, 12))
    assert not restore_millivolts(noise)[1]
    with pytest.raises(ValueError, match="shape"):
        restore_millivolts(noise[:, :8])


def test_labels_of_a_table_saved_again_are_not_lost_and_one_bad_row_is_skipped(tmp_path):
    """`1`, `1.0` and `True` are the same; what is none of these is no "not there"."""
    given = [("1", "1", "{'AFIB': 0.0}"), ("1.0", "1.0", ""), ("True", "True", '{"AFIB": 0}'), ("1", "perhaps", "")]
    given += [("1", "1", "['AFIB']"), ("", "1", "")]
    lines = ["row,ecg_id,labels18_known,scp_codes," + ",".join(FILTERED_COLUMNS)]
    for i, (known, found, codes) in enumerate(given):
        quoted = '"' + codes.replace('"', '""') + '"'
        lines.append(
            f"{i},{i},{known},{quoted}," + ",".join(found if c == "AF" else "0" for c in FILTERED_COLUMNS.values())
        )
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    rows, report = load_ptbxl_filtered(tmp_path)
    assert rows["labels"][:] == [["AF"], ["AF"], ["AF"], []]
    assert [bool(known) for known in rows["known_labels"]] == [True, True, True, False]
    assert rows["diagnoses"][:] == [["AFIB"], [], ["AFIB"], []]
    assert [name for name, _ in report.skipped] == ["x100hz_int16.npy#3", "x100hz_int16.npy#4"]
    assert "labels.csv, row 4: a label is \"'perhaps'" in report.skipped[0][1]
    assert "labels.csv, row 5: scp_codes is" in report.skipped[1][1]


@pytest.mark.parametrize("shape", [b"(2, 60, 12(", b"(2, 60, 12\\", b"(2, 6%, 12)"])
def test_a_header_that_is_no_python_is_a_record_error(tmp_path, shape):
    """numpy reads headers as Python, and lets tokenize.TokenError through."""
    np.save(tmp_path / "x.npy", np.ones((2, 60, 12), np.int16))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data.replace(b"(2, 60, 12)", shape, 1))
    with pytest.raises(ECGRecordError, match=r"x\.npy: array is .*allowed: an \.npy file of int16"):
        read_zscored({"record": "x.npy#1"}, tmp_path)


def test_an_array_without_samples_is_a_record_error(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 0, 12), np.int16))
    with pytest.raises(ECGRecordError, match=r"x\.npy: array is 'int16 \(2, 0, 12\)'"):
        read_zscored({"record": "x.npy#1"}, tmp_path)
