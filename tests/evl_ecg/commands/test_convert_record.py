"""hf-evl-ecg convert-record: any format → WFDB that data sets take, with a picture, without who the patient is."""

import clinical_files as files
import numpy as np
import pytest
import wfdb
from PIL import Image
from written_records import beats, write

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.records.writing import write_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS


def convert(*words):
    return main(["convert-record", *map(str, words)])


@files.NEEDS
@pytest.mark.parametrize("kind", files.WRITERS)
def test_every_format_becomes_a_record(kind, tmp_path, capsys):
    source = files.WRITERS[kind](tmp_path / "scan")
    assert convert(source, tmp_path / "out" / "one") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"Written: {tmp_path / 'out' / 'one.hea'}"
    assert kind in out
    with pytest.warns() if kind == "Philips Sierra XML" else _quiet():
        before = read_record(source)
    after = read_record(tmp_path / "out" / "one")
    assert (after.fs_hz, after.leads, len(after)) == (before.fs_hz, STANDARD_LEADS, len(before))
    np.testing.assert_allclose(after.signal_mv, before.signal_mv, atol=0.00051)
    assert (after.metadata["age"], after.metadata["sex"]) == (before.metadata["age"], before.metadata["sex"])
    assert wfdb.rdheader(str(tmp_path / "out" / "one")).sig_name == list(STANDARD_LEADS)
    with Image.open(tmp_path / "out" / "one.png") as picture:
        assert picture.size == (1100, 850)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()) + out.encode()
    assert [word for word in files.IDENTITY if word.encode() in written] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.dat", "one.hea", "one.png"]


def _quiet():
    import contextlib

    return contextlib.nullcontext()


def test_numbers_are_described_on_the_command_line(tmp_path):
    order = STANDARD_LEADS[::-1]
    np.save(tmp_path / "a.npy", np.stack([beats(500)[:, ::-1] * 0, beats(500)[:, ::-1] * 1000 + 1]))
    described = ["--fs_hz", 250, "--unit", "uV", "--leads", *order]
    assert convert(tmp_path / "a.npy", tmp_path / "b", *described, "--index", 1, "--no_picture") == 0
    ecg = read_record(tmp_path / "b")
    assert ecg.fs_hz == 250
    np.testing.assert_allclose(ecg.signal_mv, beats(500) + 0.001, atol=0.00051)
    assert not (tmp_path / "b.png").exists()


def test_a_record_with_a_wrong_gain_is_written_right(tmp_path):
    record = write(tmp_path, signal=beats(1000))
    assert convert(record, tmp_path / "new", "--gain_per_mv", 400) == 0
    np.testing.assert_allclose(read_record(tmp_path / "new").signal_mv, beats(1000) / 2, atol=0.002)


def test_a_stretch_is_written_alone(tmp_path):
    record = write(tmp_path, signal=beats(3000))
    assert convert(record, tmp_path / "new", "--start_s", 2.5, "--duration_s", 1) == 0
    np.testing.assert_allclose(read_record(tmp_path / "new").signal_mv, beats(3000)[1250:1750], atol=0.0031)


def test_tall_and_missing_samples_are_written(tmp_path):
    signal = beats(1000)
    signal[100, 6] = 40.0
    write_record(ECG(signal, 500), tmp_path / "tall")
    assert read_record(tmp_path / "tall").lead("V1")[100] == pytest.approx(40.0)
    signal[:500, :3], signal[500:, 3:] = np.nan, np.nan
    write_record(ECG(signal, 500, allow_missing=True), tmp_path / "blank")
    np.testing.assert_array_equal(np.isnan(wfdb.rdrecord(str(tmp_path / "blank")).p_signal), np.isnan(signal))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["r", "r"], r"destination='.*r': .*r\.dat, .*r\.hea exists \(choose another name, or remove it\)"),
        (["r", "a.hea"], r"destination='a\.hea': allowed are letters, digits"),
        (["none", "a"], "missing"),
        (["r", "a", "--fs_hz", "500"], r"fs_hz=500\.0, unit=None: numbers need both"),
        (["r", "a", "--fs_hz", "500", "--unit", "mV"], "description: is for CSV, HDF5 and NumPy files"),
    ],
)
def test_what_cannot_be_converted_is_refused(words, reason, tmp_path, capsys):
    import re

    write(tmp_path)
    assert convert(tmp_path / words[0], tmp_path / words[1], *words[2:]) == 2
    assert re.search(reason, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.dat", "r.hea"]


def test_a_folder_of_converted_records_is_a_data_set(tmp_path):
    """What the command is for: the loader of one's own folder takes what it wrote."""
    pytest.importorskip("datasets")
    from hf_evl_ecg.sources import load_folder

    np.save(tmp_path / "a.npy", beats(5000) + 0.001)
    for name in ("x", "y"):
        assert convert(tmp_path / "a.npy", tmp_path / "set" / name, "--fs_hz", 500, "--unit", "mV", "--no_picture") == 0
    (tmp_path / "set" / "records.csv").write_text("record,labels,split\nx,AF,train\ny,SR,test\n")
    rows, report = load_folder(tmp_path / "set")
    assert (report.n_rows, report.skipped, len(rows)) == (2, [], 2), report
