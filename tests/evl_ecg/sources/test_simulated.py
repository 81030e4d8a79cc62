"""Simulated records as rows."""

import pytest

from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.sources import load_simulated


def test_simulated_rows_know_the_truth():
    rows, _ = load_simulated(2)
    assert len(rows) == 18
    assert set(rows["source"]) == {"simulated"}
    ecg = load_ecg(rows[0])
    assert ecg.metadata["simulated"] is True
    assert ecg.metadata["heart_rate_bpm"] == pytest.approx(rows[0]["heart_rate"], abs=1e-3)
    others = [load_simulated(2, split=split)[0]["record"][:] for split in ("validation", "test")]
    assert not set(rows["record"]) & set(others[0]) | set(others[0]) & set(others[1])
    with pytest.raises(ValueError, match="XX"):
        load_simulated(2, classes=["XX"])
