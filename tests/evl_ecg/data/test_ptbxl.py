"""PTB-XL: folds, classes, axis and statements."""

import pytest
from written_records import write_normal

from hf_evl_ecg.data import (
    load_ptbxl,
)
from hf_evl_ecg.data.ptbxl import parse_scp_codes


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
    text = (tmp_path / "ptbxl_database.csv").read_text()
    (tmp_path / "ptbxl_database.csv").write_text(text.replace(",8,", ",11,"))
    with pytest.raises(ValueError, match="strat_fold='11': allowed are 1 to 10"):
        load_ptbxl(tmp_path)


def test_scp_codes_are_not_evaluated():
    assert parse_scp_codes("{'NORM': 100.0, 'LAO/LAE': 0}") == {"NORM": 100.0, "LAO/LAE": 0.0}
    assert parse_scp_codes("__import__('os').system('true')") == {}
