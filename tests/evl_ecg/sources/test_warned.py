"""What looks wrong with records is counted in the report that comes before training, and said once in training."""

import re
import warnings

import numpy as np
import pytest
from written_records import beats, write

from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.commands.prepare import PrepareArguments
from hf_evl_ecg.data import load_ecg
from hf_evl_ecg.records.header import ECGRecordWarning
from hf_evl_ecg.sources import load_folder


@pytest.fixture
def scaled(tmp_path):
    """Three records whose gains scale each lead to its own range, as LUDB's do, and a fourth as it should be."""
    signal = beats()
    stored = np.rint(signal * 1000)
    for name in "abc":
        gains = [float(value) for value in np.ptp(stored, axis=0)]
        write(tmp_path, name, signal=stored / gains, adc_gain=gains)
    write(tmp_path, "d", signal=signal)
    (tmp_path / "records.csv").write_text("record,labels\na,AF\nb,AF\nc,AF\nd,AF\n")
    return tmp_path


def test_the_report_counts_what_looks_wrong(scaled):
    for check, which in (("header", " whose samples were read"), ("signal", "")):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ECGRecordWarning)
            _, report = load_folder(scaled, check=check)
        (note,) = [note for note in report.notes if "records" in note and "III = II - I" in note]
        assert note.startswith(f"3 of 4 records{which}, such as a: III = II - I holds for the stored numbers")
        assert str(scaled) not in note
        assert report.skipped == []
    assert len(load_folder(scaled, check="none")[1].notes) == 1


def test_the_advice_of_the_report_can_be_followed(scaled):
    note = next(note for note in load_folder(scaled)[1].notes if "III = II" in note)
    option, value = re.search(r"(--gain_per_mv) (\d+) of prepare and interpret", note).groups()
    (args,) = parse_arguments(
        ["--output_dir", "x", "--folder", str(scaled), option, value], PrepareArguments, description=""
    )
    rows, report = load_folder(args.folder, gain_per_mv=args.gain_per_mv)
    assert not any("III = II" in note for note in report.notes)
    assert np.abs(load_ecg(rows[0]).signal_mv - beats()).max() < 2e-3
    with pytest.raises(ValueError, match=r"gain_per_mv=5\.0: is of the records in folder"):
        PrepareArguments("x", gain_per_mv=5.0)


def test_training_is_warned_once_of_each_kind(scaled):
    rows, _ = load_folder(scaled)
    with pytest.warns(ECGRecordWarning, match=f"said once of all records of {scaled}") as caught:
        [load_ecg(row) for row in [*rows] * 3]
    assert len(caught) == 1


def test_other_ranks_are_silent(scaled, monkeypatch):
    rows, _ = load_folder(scaled)
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        load_ecg(rows[0])


def test_records_that_cannot_be_read_are_found_in_the_sample(tmp_path):
    signal = beats()
    write(tmp_path, "good", signal=signal)
    signal[100:110, 7] = np.nan
    write(tmp_path, "bad", signal=signal)
    (tmp_path / "records.csv").write_text("record\ngood\nbad\n")
    _, report = load_folder(tmp_path)
    assert any(
        re.match(r"1 of 2 records whose samples were read, such as bad: .*missing samples", n) for n in report.notes
    )
