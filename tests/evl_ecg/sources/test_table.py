"""Rows, splits by group, and the way back from a row to its ECG."""

import random
from collections import Counter

import pytest

import hf_evl_ecg.data
from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.sources import load_folder
from hf_evl_ecg.sources.table import SplitCheck, collect_rows, make_row, split_by_group


def test_all_names_exist():
    assert all(getattr(hf_evl_ecg.data, name) is not None for name in hf_evl_ecg.data.__all__)


def test_rows_are_checked():
    for change, match in [
        ({"split": "dev"}, "split"),
        ({"colour": 1}, "unknown columns"),
        ({"labels": ["XX"]}, "unknown label 'XX'"),
    ]:
        with pytest.raises(ValueError, match=match):
            make_row(**({"record": "r", "source": "s", "root": "", "split": "train"} | change))
    with pytest.raises(ValueError, match="on_bad"):
        collect_rows([], "s", on_bad="ignore")
    with pytest.raises(ValueError, match="storage='tape': allowed are"):
        load_ecg({"record": "r", "root": "", "storage": "tape"})


def test_load_ecg_options(folder):
    rows, _ = load_folder(folder)
    ecg = load_ecg(rows[0], duration_s=2.0, fs_hz=250)
    assert (ecg.duration_s, ecg.fs_hz) == (2.0, 250)
    moved = folder.rename(folder.with_name("moved"))
    assert load_ecg(rows[0], root=moved).duration_s == 5.0
    with pytest.raises(ECGRecordError):
        load_ecg(rows[0])


def test_split_by_group():
    groups = [f"p{i % 100}" for i in range(300)]
    splits = split_by_group(groups, fractions=(0.7, 0.1, 0.2), seed=4)
    assert Counter(dict(zip(groups, splits, strict=True)).values()) == {"train": 70, "validation": 10, "test": 20}
    order = list(range(300))
    random.Random(0).shuffle(order)
    assert split_by_group([groups[i] for i in order], seed=4) == [splits[i] for i in order]
    assert split_by_group(groups, seed=5) != splits
    with pytest.raises(ValueError, match="summing to 1"):
        split_by_group(groups, fractions=(0.7, 0.1, 0.1))


def test_one_recording_of_two_sources_is_in_one_split(folder, tmp_path):
    """PTB-XL's own files, the Challenge's, a subset's rows and a folder elsewhere may hold the same recording."""
    names = ["records500/00000/00599_hr", "g1/HR00599.hea", "./00599_lr", "hr00599"]
    for name in names:
        check = SplitCheck()
        check.add(make_row("a.npy#3", "subset", tmp_path, "train", storage="zscored_npy", recording="ptb-xl 599"))
        check.add(make_row("records500/00000/00600_hr", "x", tmp_path, "test"))
        check.add(make_row(name, "same split", tmp_path, "train"))
        with pytest.raises(ValueError, match=r"in train: a recording belongs to one split"):
            check.add(make_row(name, "x", tmp_path, "test"))
    check = SplitCheck()
    check.add(make_row("r0", "x", folder, "train"))
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(ValueError, match="as r0 of x, in train"):
        check.add(make_row("r0.hea", "y", link, "test"))
    check.add(make_row("r", "ptb-xl", tmp_path, "train", patient="7"))
    check.add(make_row("s", "folder", tmp_path, "test", patient="7"))  # another database's numbers
    with pytest.raises(ValueError, match="patient 7 is in train and test"):
        check.add(make_row("t", "ptb-xl-filtered", tmp_path, "test", patient="7"))
