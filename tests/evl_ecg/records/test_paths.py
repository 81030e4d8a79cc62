"""Which file is a record, and that none leads out of its folder."""

import os
import shutil

import numpy as np
import pytest
from written_records import edit, write

from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.reader import read_record


def test_paths_that_name_a_record(tmp_path):
    record = write(tmp_path)
    expected = read_record(record).signal_mv
    for path in (str(record), record.with_suffix(".hea"), record.with_suffix(".dat")):
        assert np.array_equal(read_record(path).signal_mv, expected)
    copy = tmp_path / "r.hea.orig"
    shutil.copy(record.with_suffix(".hea"), copy)
    assert np.array_equal(read_record(copy).signal_mv, expected)


def test_relative_paths_start_at_the_root(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", "a")
    for name in ("data/a", "data/a.hea", "data/a.dat"):
        assert read_record(name, root=tmp_path).record_name == "a"
    with pytest.raises(ECGRecordError, match="a path inside"):
        read_record("../a", root=tmp_path / "data")


@pytest.mark.parametrize(
    "name", ["../secret/r.dat", "/etc/passwd", "..", "a/../r.dat", "..\\r.dat", "~", "https://x/r.dat"]
)
def test_signal_files_stay_in_their_folder(tmp_path, name):
    (tmp_path / "secret").mkdir()
    (tmp_path / "data").mkdir()
    write(tmp_path / "secret")
    record = write(tmp_path / "data")
    edit(record, "r.dat", name, count=-1)
    with pytest.raises(ECGRecordError) as caught:
        read_record(record)
    assert caught.value.field == "signal file name"


def test_links_do_not_lead_out(tmp_path):
    for name in ("secret", "data"):
        (tmp_path / name).mkdir()
    write(tmp_path / "secret")
    record = write(tmp_path / "data")
    (tmp_path / "data" / "r.dat").unlink()
    os.symlink(tmp_path / "secret" / "r.dat", tmp_path / "data" / "r.dat")
    for options in ({}, {"root": tmp_path / "data"}):
        with pytest.raises(ECGRecordError, match="a link to"):
            read_record(record, **options)
    assert len(read_record(record, root=tmp_path)) == 1000
    (tmp_path / "data" / "r.dat").unlink()
    os.symlink(tmp_path / "data" / "r.dat", tmp_path / "data" / "r.dat")
    with pytest.raises(ECGRecordError, match=r"r\.dat"):
        read_record(record)
    os.symlink(tmp_path / "secret", tmp_path / "data" / "door")
    with pytest.raises(ECGRecordError, match="a path inside"):
        read_record(tmp_path / "data" / "door" / "r", root=tmp_path / "data")


def test_a_cache_of_links_can_be_read(tmp_path):
    """Hub caches hold links to blobs that lie side by side."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    write(tmp_path / "blobs")
    for suffix in (".hea", ".dat"):
        os.symlink(tmp_path / "blobs" / f"r{suffix}", tmp_path / "snapshot" / f"r{suffix}")
    assert len(read_record(tmp_path / "snapshot" / "r")) == 1000


def test_record_paths_stay_in_the_root(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path)
    write(tmp_path / "data")
    assert len(read_record(tmp_path / "data" / "r", root=tmp_path / "data")) == 1000
    for path in ("../r", str(tmp_path / "r"), "x/../../r", "\x00"):
        with pytest.raises(ECGRecordError):
            resolve_inside(path, tmp_path / "data")
    (tmp_path / "data" / "m.hea").write_text("m/1 12 500 1000\n../r 1000\n")
    with pytest.raises(ECGRecordError, match="segment line"):
        read_record(tmp_path / "data" / "m")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ECGRecordError, match="missing"):
        read_record(tmp_path / "none")
    with pytest.raises(ECGRecordError, match="record is 'a folder'; allowed: a record in it"):
        read_record(tmp_path)
    (tmp_path / "scan.pdf").touch()
    with pytest.raises(ECGRecordError, match=r"record is 'a \.pdf file'; allowed: a WFDB record"):
        read_record(tmp_path / "scan.pdf")
    (tmp_path / "folder.hea").mkdir()
    with pytest.raises(ECGRecordError, match="regular file"):
        read_record(tmp_path / "folder")
    (tmp_path / "big.hea").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ECGRecordError, match="header size"):
        read_record(tmp_path / "big")
    record = write(tmp_path)
    (tmp_path / "r.dat").unlink()
    os.mkfifo(tmp_path / "r.dat")
    with pytest.raises(ECGRecordError, match="regular file"):
        read_record(record)
