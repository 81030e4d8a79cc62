"""Rows, splits by group, and the way back from a row to its ECG."""

import random
from collections import Counter

import pytest

import hf_evl_ecg.data
from hf_evl_ecg.data import (
    load_ecg,
    load_folder,
)
from hf_evl_ecg.data.table import collect_rows, make_row, split_by_group
from hf_evl_ecg.records.header import ECGRecordError


def test_all_names_exist():
    assert all(getattr(hf_evl_ecg.data, name) is not None for name in hf_evl_ecg.data.__all__)


def test_rows_are_checked():
    for change, match in [
        ({"split": "dev"}, "split"),
        ({"colour": 1}, "unknown columns"),
        ({"labels": ["XX"]}, "label='XX'"),
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
