"""PTB-XL: folds, classes, axis and statements."""

import pytest
from written_records import write_normal

from hf_evl_ecg.data import question_dataset
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_ptbxl
from hf_evl_ecg.sources.ptbxl import parse_scp_codes


def test_ptbxl_folds_classes_and_axis(tmp_path):
    lines = ["ecg_id,patient_id,age,sex,report,scp_codes,heart_axis,strat_fold,filename_lr,filename_hr"]
    codes = [
        "{'NORM': 100.0, 'SR': 0.0}",
        "{'IMI': 35.0, 'CRBBB': 100.0, 'AFIB': 0.0}",
        "{'LVH': 20.0, 'SR': 0.0, 'SBRAD': 0.0}",
    ]
    for i, (code, fold, axis) in enumerate(zip(codes, ("8", "9", "10"), ("MID", "ALAD", ""), strict=True)):
        write_normal(tmp_path / "records500" / f"{i}_hr")
        lines.append(f'{i},{i}.0,50,0,text,"{code}",{axis},{fold},records100/{i}_lr,records500/{i}_hr')
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(lines))
    statements = ",description,diagnostic_class,rhythm\nNORM,,NORM,\nIMI,,MI,\nCRBBB,,CD,\nLVH,,HYP,\nSR,,,1.0\nAFIB,,,1.0\nSBRAD,,,1.0\n"
    (tmp_path / "scp_statements.csv").write_text(statements)
    rows, _ = load_ptbxl(tmp_path)
    assert rows["split"][:] == ["train", "validation", "test"]
    assert rows["labels"][:] == [
        ["NORM", "SR", "AXN"],
        ["MI", "CD", "RBBB", "AF", "LAD"],
        ["HYP", "LVH", "SR", "SBRAD"],
    ]
    assert rows["rhythm"][:] == ["SR", "AF", "SBRAD"]
    assert rows["axis"][:] == ["AXN", "LAD", None]
    assert rows["patient"][:] == ["0", "1", "2"]
    strict, _ = load_ptbxl(tmp_path, min_likelihood=50)
    assert strict["labels"][:] == [["NORM", "SR", "AXN"], ["CD", "RBBB", "AF", "LAD"], ["SR", "SBRAD"]]
    with pytest.raises(ValueError, match="no readable record"):
        load_ptbxl(tmp_path, sampling_rate=100)
    with pytest.raises(ValueError, match="sampling_rate=250: allowed are 500, 100"):
        load_ptbxl(tmp_path, sampling_rate=250)


COLUMNS = "ecg_id,patient_id,age,sex,report,scp_codes,heart_axis,strat_fold,filename_lr,filename_hr"
STATEMENTS = "code,diagnostic_class\nNORM,NORM\nIMI,MI\nCRBBB,CD\nLVH,HYP\nSR,\nAFIB,\n"


def write_table(root, codes, folds=None, columns=COLUMNS, statements=STATEMENTS):
    """PTB-XL's tables with one record per field of codes."""
    lines = [columns]
    for i, code in enumerate(codes):
        if not (root / "records500" / f"{i}_hr.hea").exists():
            write_normal(root / "records500" / f"{i}_hr", seed=i)
        quoted = '"' + code.replace('"', '""') + '"'
        lines.append(f"{i},{i},50,1.0,text,{quoted},,{folds[i] if folds else 1},,records500/{i}_hr")
    (root / "ptbxl_database.csv").write_text("\n".join(lines))
    (root / "scp_statements.csv").write_text(statements)
    return root


SPELT = [
    "{'IMI': 35.0, 'CRBBB': 100.0, 'AFIB': 0.0}",
    '{"IMI": 35.0, "CRBBB": 100, "AFIB": 0}',
    "{'IMI': np.float64(35.0), 'CRBBB': np.float64(100.0), 'AFIB': np.float64(0.0)}",
    "{'IMI': numpy.float32(35.0), 'CRBBB': 1e2, 'AFIB': None}",
    '{"IMI":"35.0","CRBBB":"100","AFIB":null}',
    " { 'IMI' : 35. , 'CRBBB' : 100.0 , 'AFIB' : nan , } ",
]


def test_scp_codes_are_the_same_in_every_spelling(tmp_path):
    """A table that was saved again by pandas, json or numpy must not turn true diagnoses into "no"."""
    for text in SPELT:
        assert parse_scp_codes(text) == {"IMI": 35.0, "CRBBB": 100.0, "AFIB": 0.0}, text
    rows, _ = load_ptbxl(write_table(tmp_path, SPELT))
    assert rows["labels"][:] == [["MI", "CD", "RBBB", "AF"]] * len(SPELT)
    assert rows["sex"][:] == ["female"] * len(SPELT)
    asked = question_dataset(rows, formats=["closed"], tasks=["diagnosis"], balanced=False)
    assert {item["answer"] for item in asked if item["labels"][0] in ("MI", "CD", "RBBB")} <= {"yes"}


LOST = ["['NORM', 'SR']", "NORM;SR", "{}", "{'NORM': 100.0, 'SR'}", "{'NORM': 100.0} {'IMI': 100.0}", "{'NORM': 101.0}"]
LOST += ["{'NORM': 100.0, 'IMI': array([100.])}", "__import__('os').system('true')"]


@pytest.mark.parametrize("text", LOST)
def test_scp_codes_that_are_not_understood_as_a_whole_are_refused_with_file_row_and_text(tmp_path, text):
    with pytest.raises(ValueError, match="scp_codes="):
        parse_scp_codes(text)
    write_table(tmp_path, ["{'NORM': 100.0}", text])
    with pytest.raises(ECGRecordError) as caught:
        load_ptbxl(tmp_path, on_bad="raise")
    assert caught.value.file.endswith("ptbxl_database.csv, row 2")
    assert (caught.value.field, caught.value.value) == ("scp_codes", text)
    rows, report = load_ptbxl(tmp_path)
    assert rows["labels"][:] == [["NORM"]]
    assert [name for name, _ in report.skipped] == ["records500/1_hr"]


def test_nothing_is_known_of_a_record_without_statements_or_beyond_unknown_ones(tmp_path):
    rows, report = load_ptbxl(write_table(tmp_path, ["", "{'SR': 0.0}", "{'SR': 0.0, 'WHAT': 100.0}"]))
    assert rows[0]["known_labels"] == []
    assert {"MI", "AF", "NORM"} <= set(rows[1]["known_labels"])
    assert not {"MI", "NORM"} & set(rows[2]["known_labels"])
    assert "AF" in rows[2]["known_labels"]
    assert any("no labels: WHAT 1" in note for note in report.notes)


def test_statements_saved_again_with_an_index_keep_their_classes(tmp_path):
    again = "\n".join([f",{STATEMENTS.splitlines()[0]}"] + [f"{i},{x}" for i, x in enumerate(STATEMENTS.split()[1:])])
    rows, _ = load_ptbxl(write_table(tmp_path, SPELT[:1], statements=again))
    assert rows[0]["labels"] == ["MI", "CD", "RBBB", "AF"]
    write_table(tmp_path, SPELT[:1], statements="code,diagnostic_class\n1,MI\n")
    with pytest.raises(ValueError, match="no column holds the statements"):
        load_ptbxl(tmp_path)
    write_table(tmp_path, SPELT[:1], statements="code,diagnostic_class\nNORM,Norm\n")
    with pytest.raises(ValueError, match=r"diagnostic_class \['Norm'\]"):
        load_ptbxl(tmp_path)


@pytest.mark.parametrize("fold", ["", "0", "11", "8.5", "eight", "nan"])
def test_one_bad_row_is_skipped_with_its_file_and_row(tmp_path, fold):
    write_table(tmp_path, ["{'NORM': 100.0}"] * 3, folds=["1", fold, "10.0"])
    rows, report = load_ptbxl(tmp_path)
    assert rows["split"][:] == ["train", "test"]
    ((name, reason),) = report.skipped
    assert name == "records500/1_hr"
    assert f"ptbxl_database.csv, row 2: strat_fold is {fold!r}; allowed: 1 to 10" in reason
    with pytest.raises(ECGRecordError, match="row 2: strat_fold"):
        load_ptbxl(tmp_path, on_bad="raise")


def test_a_missing_file_name_is_named(tmp_path):
    write_table(tmp_path, ["{'NORM': 100.0}"] * 2)
    with pytest.raises(ECGRecordError, match="row 1: filename_lr is ''; allowed: the record's path"):
        load_ptbxl(tmp_path, sampling_rate=100, on_bad="raise")
    write_table(tmp_path, ["{'NORM': 100.0}"], columns=COLUMNS.replace("filename_lr", "other"))
    with pytest.raises(ValueError, match=r"no columns \['filename_lr'\]"):
        load_ptbxl(tmp_path, sampling_rate=100)


def test_scp_codes_are_not_evaluated():
    assert parse_scp_codes("{'NORM': 100.0, 'LAO/LAE': 0}") == {"NORM": 100.0, "LAO/LAE": 0.0}
    assert parse_scp_codes("  ") == {}


def test_statements_with_more_fields_than_names_are_read(tmp_path):
    """A comma too many; csv gives the rest of such a row the name None."""
    (tmp_path / "scp_statements.csv").write_text(",diagnostic_class\nNORM,NORM,,\nSR,\n")
    (tmp_path / "ptbxl_database.csv").write_text(
        "ecg_id,scp_codes,strat_fold,filename_hr\n1,\"{'NORM': 100.0, 'SR': 0.0}\",1,records500/00001_hr\n"
    )
    rows, _ = load_ptbxl(tmp_path, check="none")
    assert rows["labels"][:] == [["NORM", "SR"]]
