"""A record in which nothing was recorded, whatever its label says: left out by every way of checking, reading and training."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_folder
from hf_evl_ecg.sources.wfdb_records import check_wfdb
from hf_evl_ecg.sources.zscored import read_zscored

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from written_records import beats, write


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two records labelled normal: in one no lead moves, in the other one does."""
    moving = np.zeros((1000, 12))
    moving[:, 1] = beats()[:, 1]
    moving[:, 2] = moving[:, 5] = moving[:, 1]
    moving[:, 3] = moving[:, 4] = -moving[:, 1] / 2
    write(tmp_path, "flat", signal=np.full((1000, 12), 0.25))
    write(tmp_path, "moving", signal=moving)
    (tmp_path / "labels.csv").write_text("record,labels\nflat,NORM\nmoving,NORM\n")
    return tmp_path


def test_a_flat_record_is_named_by_the_check_of_signals(folder):
    with pytest.raises(ECGRecordError, match="flat in every lead"):
        check_wfdb("flat", folder, "signal")
    check_wfdb("moving", folder, "signal")
    rows, report = load_folder(folder, folder / "labels.csv", check="signal")
    assert rows["record"] == ["moving"]
    (left_out,) = report.skipped
    assert "flat" in str(left_out)


def test_it_is_not_trained_on_either(folder):
    rows, _ = load_folder(folder, folder / "labels.csv", check="header")
    assert sorted(rows["record"]) == ["flat", "moving"]
    for row in rows:
        if row["record"] == "flat":
            with pytest.raises(ECGRecordError, match="a lead that moves"):
                load_ecg(row)
        else:
            assert len(load_ecg(row).flat_leads) == 7


def test_a_flat_row_of_an_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 1000, 12), np.int16))
    with pytest.raises(ECGRecordError, match="flat in every lead"):
        read_zscored({"record": "a.npy#0"}, tmp_path)
