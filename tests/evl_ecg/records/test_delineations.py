"""Wave borders: intervals worked out by hand, annotation files against wfdb."""

import numpy as np
import pytest
import wfdb

from hf_evl_ecg.qa.prompts import MEASUREMENTS
from hf_evl_ecg.records.delineations import Wave, measure, read_delineation
from hf_evl_ecg.records.header import ECGRecordError


def test_intervals_by_hand():
    beat = [Wave("p", 80, 90, 100), Wave("N", 120, 130, 145), Wave("t", 200, 220, 260)]
    second = [Wave(w.kind, w.onset + 400, w.peak + 400, w.offset + 400) for w in beat]
    measured = measure({"II": beat + second, "V1": beat[1:2]}, 500.0)
    assert measured == {"heart_rate": 75.0, "pr_interval": 80.0, "qrs_duration": 50.0, "qt_interval": 280.0}
    assert measure({"II": [beat[0]]}, 500.0) == dict.fromkeys(MEASUREMENTS)
    lost_qrs = [beat[0], *second]
    assert measure({"II": lost_qrs}, 500.0)["pr_interval"] == 80.0


def test_delineations_agree_with_wfdb(tmp_path):
    samples = [5, 9, 14, 2000, 2010, 2030, 70_000, 70_010, 70_020, 70_100]
    symbols = ["(", "p", ")", "(", "N", ")", "(", "t", ")", "("]
    wfdb.wrann("a", "ii", np.array(samples), symbols, aux_note=["x"] + [""] * 9, write_dir=str(tmp_path))
    waves = read_delineation(tmp_path / "a.ii")
    assert waves == [Wave("p", 5, 9, 14), Wave("N", 2000, 2010, 2030), Wave("t", 70_000, 70_010, 70_020)]
    data = (tmp_path / "a.ii").read_bytes()
    for damaged in (data[:-2], data[:7], b""):
        (tmp_path / "b.ii").write_bytes(damaged)
        with pytest.raises(ECGRecordError, match="end mark"):
            read_delineation(tmp_path / "b.ii")
    with pytest.raises(ECGRecordError, match="annotation file"):
        read_delineation(tmp_path / "none.ii")
