"""A folder of one's own with a table: rows, refusals, and no way out of it."""

from collections import defaultdict

import datasets
import pytest
from written_records import write_normal

from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_folder
from hf_evl_ecg.sources.table import FEATURES


def test_own_folder(folder):
    rows, report = load_folder(folder)
    assert isinstance(rows, datasets.Dataset)
    assert rows.features == FEATURES
    assert report.n_rows == len(rows) == 5
    assert [name for name, _ in report.skipped] == ["r3"]
    assert "n_samples" in report.skipped[0][1]
    assert "r3" in str(report)
    assert report.notes == ["split by patient"]
    row = rows[1]
    assert (row["labels"], row["rhythm"], row["axis"], row["sex"]) == (["AF", "LVH"], "AF", None, "female")
    assert row["heart_rate"] == 61
    assert set(row["known_labels"]) == {"AF", "LVH", "SR", "AXN"}
    by_patient = defaultdict(set)
    for row in rows:
        by_patient[row["patient"]].add(row["split"])
    assert all(len(splits) == 1 for splits in by_patient.values())
    with pytest.raises(ECGRecordError, match="n_samples"):
        load_folder(folder, on_bad="raise")
    assert load_folder(folder, check="none")[1].n_rows == 6


def test_own_folder_refuses(folder):
    def table(text):
        (folder / "records.csv").write_text(text)
        return folder

    with pytest.raises(ValueError, match=r"record 'r0': unknown label 'XX': allowed are NORM \(normal ECG\), MI"):
        load_folder(table("record,labels\nr0,XX\n"))
    with pytest.raises(ValueError, match=r"records\.csv, row 2: record 'r1': unknown label 'XX'"):
        load_folder(table("record,labels\nr0,AF\nr1,XX\n"))
    with pytest.raises(ValueError, match=r"records\.csv, row 2: record=''"):
        load_folder(table("record,labels\nr0,AF\n,AF\n"))
    with pytest.raises(ValueError, match="no columns"):
        load_folder(table("name\nr0\n"))
    with pytest.raises(ValueError, match="split='dev': allowed are"):
        load_folder(table("record,split\nr0,dev\n"))
    with pytest.raises(ValueError, match="1 of 2 records"):
        load_folder(table("record,split\nr0,train\nr1,\n"))
    with pytest.raises(ValueError, match="patient a is in train and test"):
        load_folder(table("record,patient,split\nr0,a,train\nr1,a,test\n"))
    with pytest.raises(ValueError, match=r"table='none.csv': there is no such file, neither here nor in "):
        load_folder(folder, "none.csv")
    with pytest.raises(ValueError, match=r"unknown label 'Left bundle branch block': write LBBB; allowed"):
        load_folder(table("record,labels\nr0,Left bundle branch block\n"))
    with pytest.raises(ValueError, match=r"row 2: has more fields than the header has names \(join labels by ; or"):
        load_folder(table("record,labels\nr0,AF\nr1,AF,LVH\n"))
    with pytest.raises(ValueError, match="no readable record"):
        load_folder(table("record\nr3\n"))
    note = load_folder(table("record\nr0\nr1\n"))[1].notes[0]
    assert note == "split by record, as no record names a patient: one who has several may be in two splits"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "door/outside"])
def test_no_row_leads_out_of_the_folder(folder, name):
    write_normal(folder.parent / "outside")
    (folder / "door").symlink_to(folder.parent)
    (folder / "records.csv").write_text(f"record\n{name}\nr0\n")
    rows, report = load_folder(folder)
    assert rows["record"][:] == ["r0"]
    assert "a path inside" in report.skipped[0][1]
    unchecked, _ = load_folder(folder, check="none")
    with pytest.raises(ECGRecordError, match="a path inside"):
        load_ecg(unchecked[0])


def spellings(folder):
    """Names of the recording r0: plain, with suffixes in both cases, by detours, links and copies."""
    (folder / "sub").mkdir()
    (folder / "link.hea").symlink_to("r0.hea")
    (folder / "link.dat").symlink_to("r0.dat")
    (folder / "hard.hea").hardlink_to(folder / "r0.hea")
    for suffix in (".hea", ".dat"):
        (folder / "sub" / f"r0{suffix}").write_bytes((folder / f"r0{suffix}").read_bytes())
    return ["r0.hea", "r0.HEA", "r0.dat", "./r0", "sub/../r0", str(folder / "r0"), "link", "hard", "sub/r0"]


def test_one_recording_under_two_names_is_in_one_split(folder):
    for name in spellings(folder):
        (folder / "records.csv").write_text(f"record,split\nr0,train\n{name},test\n")
        with pytest.raises(ValueError, match=r"is in test and, as r0 of mine, in train: a recording belongs to one"):
            load_folder(folder)
        (folder / "records.csv").write_text(f"record,split\nr0,train\n{name},train\nr1,test\n")
        rows, report = load_folder(folder)
        assert len(rows) == 3
        assert report.notes[1] == f"1 rows name a recording again: {name} (row 2) is r0 (row 1)"


def test_names_of_one_recording_share_the_split_that_is_drawn(folder):
    """With and without a patient; drawn one by one, 10 names of a record would be in one split by chance once in thousands."""
    names = ["r0", *spellings(folder)]
    for patients in (("",) * len(names), ("", "p", *("",) * (len(names) - 2))):
        lines = [f"{name},{patient}" for name, patient in zip(names, patients, strict=True)]
        (folder / "records.csv").write_text("\n".join(["record,patient", *lines, "r1,", "r2,", "r4,", "r5,"]))
        for seed in range(5):
            rows, report = load_folder(folder, seed=seed, fractions=(0.4, 0.2, 0.4))
            assert len(rows) == len(names) + 4
            assert len(set(rows["split"][: len(names)])) == 1
    assert report.notes[0] == "split by patient; 4 of 14 records name no patient and are split by record"
    (folder / "records.csv").write_text("record,patient\nr0,p\nr0.hea,q\n")
    with pytest.raises(ValueError, match=r"row 2: record 'r0\.hea' is that of row 1, with patient 'q' instead of 'p'"):
        load_folder(folder)


def test_ages_are_years_in_every_table(folder):
    (folder / "records.csv").write_text("record,age\nr0,300\nr1,56.0\nr2,999\nr4,\nr5,-1\n")
    rows, report = load_folder(folder)
    assert rows["age"][:] == [90.0, 56.0, None, None, None]
    assert report.notes[-1].startswith('1 records of age 90: so is "over 89" read')


def test_columns_that_are_not_used_are_named(folder):
    (folder / "mine.csv").write_text("record,rhythm,diagnosis\nr0,AF,LVH\n")
    rows, report = load_folder(folder, "mine.csv")
    assert report.notes[-1].startswith(
        "mine.csv: columns rhythm, diagnosis are not used; those that are: record, patient, split, labels"
    )
    assert report.notes[-1] in str(report)
    with pytest.raises(
        ValueError, match="made from these rows, in none of which there are labels, rhythm, axis, report, heart_rate"
    ):
        question_dataset(rows)
    report.skipped = [(f"r{i}", "why") for i in range(5)]
    assert report.describe(2).splitlines()[-4:] == [
        f"  {report.notes[-1]}",
        "  skipped r0: why",
        "  skipped r1: why",
        "  skipped 3 more",
    ]


def test_a_table_is_taken_by_its_path_first(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "mine.csv").write_text("record,labels\nr0,AF\n")
    assert load_folder(folder, "mine.csv")[0]["labels"] == [["AF"]]
    (tmp_path / "mine.csv").write_text("record,labels\nr0,LVH\n")
    for given in ("mine.csv", "./mine.csv", tmp_path / "mine.csv"):
        assert load_folder(folder, given)[0]["labels"] == [["LVH"]]
    (tmp_path / "records.csv").write_text("record,labels\nr0,LVH\n")
    assert load_folder(folder)[1].n_rows == 5  # the folder's own, unless one is named
