"""Folders of the Challenges."""

import pytest
from written_records import write_normal

from hf_evl_ecg.data import (
    load_cinc,
)
from hf_evl_ecg.data.cinc import cpsc_labels
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.records.header import ECGRecordError


def test_challenge_folders(tmp_path):
    write_normal(tmp_path / "cpsc_2018" / "g1" / "A1", comments=["Age: 70", "Sex: Male", "Dx: 164889003,59118001"])
    write_normal(tmp_path / "georgia" / "E1", comments=["Dx: 426783006"])
    write_normal(tmp_path / "georgia" / "E2", comments=["Dx: 426783006,39732003,999"])
    write_normal(tmp_path / "ptb-xl" / "HR1", comments=["Dx: 426783006"])
    (tmp_path / "georgia" / "E3.hea").write_text("E3.mat 12 500 5000\n")
    (tmp_path / "map.csv").write_text("dx,snomed_ct_code,abbreviation\natrial fibrillation,164889003,AF\n")
    rows, report = load_cinc(tmp_path, dx_mapping=tmp_path / "map.csv")
    table = {row["record"]: row for row in rows}
    assert set(table) == {"cpsc_2018/g1/A1", "georgia/E1", "georgia/E2"}
    first = table["cpsc_2018/g1/A1"]
    assert (first["source"], first["labels"], first["diagnoses"]) == (
        "cinc/cpsc_2018",
        ["AF", "RBBB"],
        ["atrial fibrillation", "59118001"],
    )
    assert (first["age"], first["sex"], set(first["known_labels"])) == (70, "male", set(CPSC_CLASSES))
    assert table["georgia/E1"]["labels"] == ["NORM", "SR"]
    assert (table["georgia/E2"]["labels"], table["georgia/E2"]["axis"]) == (["SR", "LAD"], "LAD")
    assert [name for name, _ in report.skipped] == ["georgia/E3"]
    assert any("split by record" in note for note in report.notes)
    with pytest.raises(ECGRecordError, match="record name"):
        load_cinc(tmp_path, on_bad="raise")
    assert load_cinc(tmp_path, sources=["ptb-xl"])[0]["source"][:] == ["cinc/ptb-xl"]
    with pytest.raises(ValueError, match="no records of"):
        load_cinc(tmp_path, sources=["chapman"])
    assert cpsc_labels(["426783006", "284470004"]) == ["PAC"]
