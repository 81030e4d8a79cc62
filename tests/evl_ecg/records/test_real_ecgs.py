"""Real ECGs: records against their bytes and Einthoven's law, wrong and malformed headers, counts and plausibility of datasets."""

import re
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
import wfdb

from hf_evl_ecg.data import load_ecg, question_dataset
from hf_evl_ecg.qa.labels import CPSC_CLASSES, LABELS, PTBXL_SUPERCLASSES
from hf_evl_ecg.qa.prompts import MEASUREMENTS
from hf_evl_ecg.records.delineations import Wave, read_delineation
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.plausibility import ImplausibleAmplitudeWarning
from hf_evl_ecg.records.reader import read_header, read_record
from hf_evl_ecg.signals.ecg import einthoven_error_mv
from hf_evl_ecg.sources import load_cinc, load_ludb, load_ptbxl, load_ptbxl_filtered
from hf_evl_ecg.sources.zscored import restore_millivolts


@pytest.mark.real_data
def test_real_records_equal_their_bytes_and_checksums_and_obey_einthoven(data_dir):
    seen = 0
    for path in sorted((data_dir / "ecg").rglob("*.hea")):
        if "ludb" in path.parts:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ecg = read_record(path, root=data_dir)
        if "ptbdb" not in path.parts:
            assert np.abs(ecg.lead("III") - (ecg.lead("II") - ecg.lead("I"))).max() <= 0.003 + 1e-6, path
            assert einthoven_error_mv(ecg) <= 0.0035 + 1e-6, path
        if seen % 10 == 0:
            signals = read_header(path).signals
            lines = [line for line in signals if line.file_name == signals[0].file_name]
            stored = np.fromfile(path.with_name(lines[0].file_name), "<i2", offset=lines[0].byte_offset)
            assert {line.fmt for line in lines} == {"16"}
            assert all(line.checksum for line in lines)  # compared while reading: a wrong one warns, an error here
            for line, column in zip(lines, stored.reshape(-1, len(lines)).T, strict=True):
                assert np.allclose(ecg.lead(line.name), (column - line.baseline) / line.gain, atol=1e-6)
        seen += 1
    assert seen == 12 + 1 + 94 + 1  # PTB-XL at 500 and 100 Hz, Challenge, PTB


@pytest.mark.real_data
def test_ludb_gains_are_noticed_and_its_stored_unit_is_consistent(data_dir):
    """Every LUDB gain equals its lead's own range, so header voltages contradict each other; stored units do not."""
    paths = sorted((data_dir / "ecg" / "ludb" / "data").glob("*.hea"))
    assert len(paths) == 160
    noticed = 0
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            by_header = read_record(path)
        noticed += any("scale each lead by itself" in str(w.message) for w in caught)
        assert np.allclose(np.ptp(by_header.signal_mv, axis=0), 1.0, atol=2e-3)
        assert einthoven_error_mv(read_record(path, gain_per_mv=1000)) <= 0.0005 + 1e-6, path
    assert noticed >= 155


@pytest.mark.real_data
def test_early_challenge_headers(data_dir):
    folder = data_dir / "ecg" / "cinc2021" / "training"
    malformed = sorted((folder / "georgia").glob("*.hea.orig"))
    assert len(malformed) == 3
    for path in malformed:
        with pytest.raises(ECGRecordError, match="allowed: letters, digits") as caught:
            read_record(path)
        assert caught.value.field == "record name"
        assert re.fullmatch(r"E\d+\.mat", caught.value.value)
    wrong = sorted((folder / "ptb-xl").glob("*.hea.orig"))
    assert len(wrong) == 2
    for path in wrong:
        with pytest.warns(ImplausibleAmplitudeWarning, match=r"gain of 200 per mV is wrong \(with 1000"):
            five_times = read_record(path)
        right = read_record(path.with_name(path.name.removesuffix(".orig")))
        assert np.allclose(five_times.signal_mv, 5 * right.signal_mv, atol=1e-4)


@pytest.mark.real_data
def test_real_ptbxl(data_dir):
    rows, report = load_ptbxl(data_dir / "ecg" / "ptb-xl", check="signal")
    assert (len(rows), report.skipped) == (12, [])
    assert Counter(rows["split"]) == {"train": 9, "validation": 2, "test": 1}
    by_id = {row["record"].rsplit("/")[-1]: row for row in rows}
    assert by_id["00008_hr"]["labels"] == ["MI", "SR", "LAD"]
    assert set(by_id["20715_hr"]["labels"]) >= {"HYP", "STTC", "LVH", "AXN"}
    questions = question_dataset(rows, classes=PTBXL_SUPERCLASSES)
    assert sum("Name every one" in q for q in questions["question"]) == 12
    assert len(load_ptbxl(data_dir / "ecg" / "ptb-xl", sampling_rate=100)[0]) == 1


@pytest.mark.real_data
def test_real_ludb(data_dir):
    rows, report = load_ludb(data_dir / "ecg" / "ludb")
    assert (len(rows), report.skipped) == (160, [])
    assert Counter(rows["split"]) == {"train": 112, "validation": 16, "test": 32}
    assert len(set(rows["patient"])) == 160
    assert sum(rhythm is not None for rhythm in rows["rhythm"]) == 158
    assert Counter(rows["axis"])["LAD"] == 57
    assert all(einthoven_error_mv(load_ecg(row)) < 1e-3 for row in rows.select(range(0, 160, 8)))
    values = {name: np.array([v for v in rows[name] if v is not None]) for name in MEASUREMENTS}
    assert {name: len(v) for name, v in values.items()} == {
        "heart_rate": 160,
        "pr_interval": 141,
        "qrs_duration": 160,
        "qt_interval": 160,
    }
    for name, (low, high) in {
        "heart_rate": (60, 70),
        "pr_interval": (140, 170),
        "qrs_duration": (85, 100),
        "qt_interval": (370, 420),
    }.items():
        assert low < np.median(values[name]) < high, name
    rate, rhythm = np.array(rows["heart_rate"]), np.array([r or "" for r in rows["rhythm"]])
    assert rate[rhythm == "SBRAD"].max() < rate[rhythm == "STACH"].min()
    block = [row["pr_interval"] for row in rows if "I-AVB" in row["labels"]]
    assert min(block) > 180
    wide = [row["qrs_duration"] for row in rows if {"LBBB", "RBBB"} & set(row["labels"])]
    assert min(wide) > 105


@pytest.mark.real_data
def test_real_ludb_rows_are_read_by_wfdb_the_same_way(data_dir):
    for name in ("1", "99"):
        for lead in ("i", "avr", "v6"):
            path = data_dir / "ecg" / "ludb" / "data" / name
            marks = wfdb.rdann(str(path), lead)
            expected = []
            for i, symbol in enumerate(marks.symbol):
                if symbol in "pNt" and marks.symbol[i - 1] == "(" and marks.symbol[i + 1] == ")":
                    expected.append(Wave(symbol, *marks.sample[i - 1 : i + 2].tolist()))
            assert read_delineation(f"{path}.{lead}") == expected


@pytest.mark.real_data
def test_real_challenge(data_dir):
    root = data_dir / "ecg" / "cinc2021" / "training"
    rows, _ = load_cinc(root, dx_mapping=data_dir / "ecg" / "dx_mapping.csv", check="signal", on_bad="raise")
    assert len(rows) == 82
    assert "cinc/ptb-xl" not in rows["source"]
    assert len(load_cinc(root, sources=["ptb-xl"])[0]) == 12
    assert not any(
        code.isdigit() for codes in rows["diagnoses"] for code in codes if code in {"164889003", "426783006"}
    )
    cpsc = [row for row in rows if row["source"] == "cinc/cpsc_2018"]
    assert len(cpsc) == 10
    assert all(set(row["labels"]) & set(CPSC_CLASSES) for row in cpsc)


@pytest.mark.real_data
def test_real_filtered(data_dir):
    rows, report = load_ptbxl_filtered(data_dir / "ecg" / "ptbxl_filtered")
    assert (len(rows), [reason for _, reason in report.skipped]) == (1441, ["limb_leads_inconsistent"])
    assert any("split by record" in note for note in report.notes)
    splits = defaultdict(set)
    for row in rows.select_columns(["patient", "split"]):
        if row["patient"]:
            splits[row["patient"]].add(row["split"])
    assert len(splits) > 300
    assert all(len(s) == 1 for s in splits.values())
    assert rows[0]["split"] == "test", "PTB-XL's record 9 is in its test fold"
    assert not any({"LVH", "LVOLT"} & set(labels) for labels in rows["labels"]), "no voltage question on z-scores"
    for row in rows.select(range(0, 1441, 60)):
        ecg = load_ecg(row)
        assert ecg.metadata["limb_ratios_from_signal"]
        assert einthoven_error_mv(ecg) < 0.02
        assert 0.5 < np.ptp(ecg.signal_mv) < 8
    counts = Counter(label for labels in rows["labels"] for label in labels)
    assert (counts["AF"], counts["LAD"]) == (98, 324)
    assert set(counts) <= set(LABELS)


@pytest.mark.real_data
def test_real_z_scores_give_ratios_back(data_dir):
    """On real records in mV, z-scoring and restoring keeps the limb leads' ratios within 1 %."""
    checked = 0
    for path in sorted((data_dir / "ecg" / "cinc2021" / "training" / "cpsc_2018").glob("*.hea")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal = read_record(path).signal_mv.astype(np.float64)
        restored, solved = restore_millivolts((signal - signal.mean(0)) / signal.std(0))
        ratio = restored.std(0)[:6] / signal.std(0)[:6]
        assert solved
        assert ratio.max() / ratio.min() < 1.01
        checked += 1
    assert checked == 10
