"""Folders of the Challenges."""

import pytest
from written_records import write_normal

from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_cinc
from hf_evl_ecg.sources.cinc import cpsc_labels
from hf_evl_ecg.sources.cinc_sources import recognise


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


SPELLINGS = {
    "ptb-xl": "ptb-xl PTB-XL ptbxl PTBXL WFDB_PTBXL Training_PTB-XL Training_PTBXL ptb_xl ptb-xl-1.0.3 WFDB_PTB-XL",
    "cpsc_2018": "cpsc_2018 CPSC2018 WFDB_CPSC2018 Training_WFDB CPSC-2018 cpsc",
    "cpsc_2018_extra": "cpsc_2018_extra WFDB_CPSC2018_2 CPSC-Extra Training_2 CPSC2018-Extra",
    "georgia": "georgia WFDB_Ga Training_E Georgia georgia-12lead-ecg-challenge-database",
    "ptb": "ptb WFDB_PTB Training_PTB ptbdb ptb-diagnostic-ecg-database-1.0.0",
    "st_petersburg_incart": "st_petersburg_incart WFDB_StPetersburg Training_StPetersburg incartdb",
    "chapman_shaoxing": "chapman_shaoxing WFDB_ChapmanShaoxing Chapman-Shaoxing",
    "ningbo": "ningbo WFDB_Ningbo Ningbo",
}


def test_sources_are_recognised_in_any_spelling_and_by_record_names():
    for source, names in SPELLINGS.items():
        for name in names.split():
            for folders in (["all", name], ["all", name, "g12"], ["PTB" if source == "georgia" else "data", name, "x"]):
                assert recognise(folders, "mine") == (source, "folder name"), folders
    names = {"HR00599": "ptb-xl", "00599_hr": "ptb-xl", "a0001": "cpsc_2018", "Q0012": "cpsc_2018_extra"}
    names |= {"E00793": "georgia", "S0010": "ptb", "I0001": "st_petersburg_incart", "JS00001": "chapman_ningbo"}
    for name, source in names.items():
        assert recognise(["download", "2"], name) == (source, "record name")
    assert recognise(["georgia"], "HR00599") == ("ptb-xl", "record name"), "a record's own name is the surer one"
    assert recognise(["WFDB_Ningbo"], "JS45542") == ("ningbo", "both")
    for folder in ("2", "e", "ga", "training", "wfdb", "extra", "my_hospital"):  # parts of spellings are none
        assert recognise([folder], "HR1") == (folder, "")


@pytest.mark.parametrize("folder", ["WFDB_PTBXL", "Training_PTB-XL", "PTB-XL", "ptbxl/g1", "download"])
def test_ptbxl_never_leaks_into_the_challenge_whatever_its_folder(tmp_path, folder):
    """Its records belong to its own folds; split at random, a patient's ECGs would be learnt from and tested on."""
    for i in range(3):
        write_normal(tmp_path / folder / f"HR0000{i}", seed=i, comments=["Dx: 426783006"])
    write_normal(tmp_path / "georgia" / "E00001", comments=["Dx: 426783006"])
    rows, report = load_cinc(tmp_path)
    assert rows["record"][:] == ["georgia/E00001"]
    assert any("ptb-xl: 3 records left out" in note for note in report.notes)
    with pytest.raises(ValueError, match="no records of any source but PTB-XL"):
        load_cinc(tmp_path / folder)
    rows, report = load_cinc(tmp_path, sources=["PTBXL"])
    assert set(rows["source"]) == {"cinc/ptb-xl"}
    assert any("split at random" in note for note in report.notes)


@pytest.mark.parametrize(("folder", "record"), [("WFDB_CPSC2018", "x"), ("Training_WFDB", "x"), ("download", "A0001")])
def test_cpsc_keeps_its_nine_known_labels_under_any_name(tmp_path, folder, record):
    write_normal(tmp_path / folder / record, comments=["Dx: 164889003"])
    rows, report = load_cinc(tmp_path)
    assert (rows[0]["source"], rows[0]["known_labels"]) == ("cinc/cpsc_2018", list(CPSC_CLASSES))
    rule = "record name" if record == "A0001" else "folder name"
    assert any(f"cpsc_2018: recognised by {rule} (1 records)" in note for note in report.notes)


def test_absence_is_known_only_where_it_was_labelled(tmp_path):
    """Infarction without a rhythm is not "no sinus rhythm", and a record without codes is not a healthy one."""
    given = {"ptb/S0001": "164865005", "georgia/E00001": "", "georgia/E00002": "164934002"}
    given |= {"georgia/E00003": "426177001,999", "georgia/E00004": "426749004,233917008"}
    for record, codes in given.items():
        write_normal(tmp_path / record, comments=[f"Dx: {codes}"])
    rows, report = load_cinc(tmp_path)
    known = {row["record"]: row["known_labels"] for row in rows}
    common = ["AF", "I-AVB", "LBBB", "RBBB", "SBRAD", "STACH"]
    assert known.pop("georgia/E00004") == ["LBBB", "RBBB", "SBRAD", "STACH"], "chronic AF, AV block of no stated degree"
    assert known == {"ptb/S0001": [], "georgia/E00001": [], "georgia/E00002": common, "georgia/E00003": [*common, "SR"]}
    (note,) = (note for note in report.notes if note.startswith("georgia: "))
    assert (
        "2 codes are labels (TAB 1, SBRAD 1); 3 are none (999 1, 426749004 1, 233917008 1); 1 records have no code"
        in note
    )


def test_a_record_that_lies_there_twice_is_read_once_and_never_split(tmp_path):
    for i in range(20):
        write_normal(tmp_path / "WFDB_Ga" / f"E{i:05d}", seed=i, comments=["Dx: 426783006"])
    (tmp_path / "georgia").symlink_to("WFDB_Ga")
    (tmp_path / "copies").mkdir()
    for path in (tmp_path / "WFDB_Ga").iterdir():
        (tmp_path / "copies" / path.name).write_bytes(path.read_bytes())
    changed = tmp_path / "copies" / "E00003.hea"
    changed.write_text(changed.read_text() + "# changed\n")
    rows, report = load_cinc(tmp_path)
    assert len(rows) == 21
    assert len(report.skipped) == 19
    assert ("copies/E00000", "the record WFDB_Ga/E00000 again") in report.skipped
    split = dict(zip(rows["record"], rows["split"], strict=True))
    assert split["copies/E00003"] == split["WFDB_Ga/E00003"]
