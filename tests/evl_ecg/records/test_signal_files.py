"""Signal files that are short, long, damaged, foreign or of the wrong kind."""

import os
import tempfile
import warnings

import numpy as np
import pytest
import scipy.io
import wfdb
from written_records import GAIN, beats, edit, header_line, read, write

import hf_evl_ecg.records.header
import hf_evl_ecg.records.plausibility
import hf_evl_ecg.records.reader
import hf_evl_ecg.records.samples
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning
from hf_evl_ecg.records.reader import check_record, read_record


def test_truncated_signal_file_is_found_before_anything_is_read(tmp_path, monkeypatch):
    record = write(tmp_path)
    data = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(data[:-1])
    monkeypatch.setattr(wfdb, "rdrecord", lambda *a, **k: pytest.fail("samples were read"))
    with pytest.raises(ECGRecordError, match=r"1 to 999: r.dat has 23999 bytes") as caught:
        read_record(record)
    assert (caught.value.field, caught.value.value) == ("n_samples", 1000)
    with pytest.raises(ECGRecordError, match="n_samples"):
        check_record(record)


def test_length_left_out_is_what_the_file_holds(tmp_path):
    record = write(tmp_path)
    edit(record, "r 12 500 1000", "r 12 500")
    assert len(read_record(record)) == 1000
    assert check_record(record).n_samples == 1000
    (tmp_path / "r.dat").write_bytes(b"")
    with pytest.raises(ECGRecordError, match="no complete frame"):
        read_record(record)


def test_more_samples_than_the_header_describes_warn(tmp_path):
    """Fifteen channels under a header of twelve would be read interleaved, without another sign of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        record = write(tmp_path, signal=beats(1000))
        check_record(record)
        data = (tmp_path / "r.dat").read_bytes()
        (tmp_path / "r.dat").write_bytes(data + b"\x00" * 23)  # less than a frame
        read_record(record)
    (tmp_path / "r.dat").write_bytes(data * 2)
    for read_or_check in (read_record, check_record):
        with pytest.warns(
            ECGRecordWarning, match=r"describes 1000 frames of 12 samples in format 16, and r.dat holds 2000"
        ):
            read_or_check(record)


@pytest.mark.parametrize("fmt", ["16", "80", "212", "24", "32", "516"])
def test_checksums_tell_a_damaged_or_foreign_signal_file(tmp_path, fmt):
    record = write(tmp_path, fmt=fmt, adc_gain=[50.0] * 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        read(record)
    lines = record.with_suffix(".hea").read_text().splitlines()
    fields = lines[3].split()
    assert (fields[2], fields[8]) == ("50.0(0)/mV", "III")
    changed = " ".join([*fields[:6], str(int(fields[6]) ^ 1), *fields[7:]])
    edit(record, lines[3], changed)
    with pytest.warns(ECGRecordWarning, match="samples of III do not add up to the header's checksums"):
        read_record(record)
    edit(record, " 12 500 1000", " 12 500")  # a length left out: no checksum, says the format
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        read(record)


def test_a_matlab_file_of_the_wrong_version_is_refused(tmp_path):
    """The header's 24 bytes are those of version 4; in version 5 the samples lie elsewhere, and leads would be shifted."""
    record = write(tmp_path)
    digital = np.fromfile(tmp_path / "r.dat", "<i2").reshape(-1, 12).T
    edit(record, "r.dat 16 ", "r.mat 16+24 ", count=-1)
    for version in ("4", "5"):
        scipy.io.savemat(tmp_path / "r.mat", {"val": digital}, format=version)
        if version == "4":
            assert np.abs(read_record(record).signal_mv - beats()).max() < 1 / GAIN
            continue
        with pytest.raises(ECGRecordError, match=r"r\.mat: signal file is 'a file of MATLAB 5'; allowed: .* MATLAB 4"):
            check_record(record)


def test_checksums_left_at_zero_are_not_compared(tmp_path):
    record = write(tmp_path)
    lines = record.with_suffix(".hea").read_text().splitlines()
    for line in lines[1:]:
        fields = line.split()
        edit(record, line, " ".join([*fields[:6], "0", *fields[7:]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ECGRecordWarning)
        assert len(read_record(record)) == 1000


def test_what_wfdb_cannot_read_is_a_record_error(tmp_path, monkeypatch):
    """A file that shrinks after its size was checked; any other failure; a system without links gets a copy."""
    record = write(tmp_path)
    expected = read_record(record).signal_mv
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))

    def no_links(*args, **kwargs):
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", no_links)
        assert np.array_equal(read_record(record).signal_mv, expected)
    header = check_record(record)
    (tmp_path / "r.dat").write_bytes(bytes(24 * 999))
    with pytest.raises(
        ECGRecordError, match=r"r\.dat: signal bytes is .*; allowed: 1000 frames of 12 signals"
    ) as caught:
        hf_evl_ecg.records.samples.read_physical(header, {"r.dat": tmp_path / "r.dat"}, 1000)
    assert caught.value.file == str(tmp_path / "r.dat")
    (tmp_path / "r.dat").unlink()
    with pytest.raises(ECGRecordError, match=r"FileNotFoundError"):
        hf_evl_ecg.records.samples.read_physical(header, {"r.dat": tmp_path / "r.dat"}, 1000)
    assert not os.listdir(tmp_path / "scratch")


def test_damaged_flac_is_refused(tmp_path):
    record = write(tmp_path, fmt="516")
    path = tmp_path / header_line(record, 1).split()[0]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ECGRecordError, match="FLAC"):
        read_record(record)
    path.write_bytes(b"not flac")
    with pytest.raises(ECGRecordError, match="FLAC"):
        read_record(record)
