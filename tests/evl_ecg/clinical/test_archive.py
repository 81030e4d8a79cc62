"""Zip archives: one ECG is read and nothing is left; members, sizes, ratios and names are limited."""

import tempfile
import zipfile
from pathlib import Path

import clinical_files as files
import numpy as np
import pytest
from written_records import beats, write

from hf_evl_ecg.clinical import archive
from hf_evl_ecg.clinical.archive import unzipped
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where archives are unpacked; empty after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def pack(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content if isinstance(content, bytes) else Path(content).read_bytes(), **options)
    return path


@pytest.fixture
def record(tmp_path):
    path = write(tmp_path)
    return {"x/r.hea": path.with_suffix(".hea"), "x/r.dat": path.with_suffix(".dat")}


def test_a_record_in_an_archive(record, tmp_path):
    path = pack(tmp_path / "a.zip", {"x/": b"", "__MACOSX/x/._r.hea": b"\0", "x/.DS_Store": b"\0", **record})
    ecg = read_record(path, duration_s=1)
    np.testing.assert_allclose(ecg.signal_mv, beats()[:500], atol=2.6e-3)
    assert ecg.record_name == "r"


@files.NEEDS
def test_a_clinical_file_in_an_archive(tmp_path):
    path = pack(tmp_path / "a", {"scan": files.write_muse(tmp_path / "scan"), "readme.txt": b"hello"})
    assert read_record(path).metadata["format"] == "GE MUSE XML"


def test_other_paths_are_given_as_they_are(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with unzipped(path) as inside:
            assert inside == path


def test_errors_name_the_archive_and_not_the_temporary_folder(record, tmp_path):
    path = pack(tmp_path / "a.zip", {**record, "x/r.dat": b"\0\0"})
    with pytest.raises(ECGRecordError) as caught:
        read_record(path)
    assert caught.value.file == f"{path}:r.hea"
    assert "temporary" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({}, "members"),
        ({f"{i}": b"x" for i in range(65)}, "members"),
        ({"../r.hea": b"x"}, "name of a member"),
        ({"/r.hea": b"x"}, "name of a member"),
        ({"x\\..\\..\\r.hea": b"x"}, "name of a member"),
        ({"a:b": b"x"}, "name of a member"),
        ({"a/r": b"x", "b/r": b"y"}, "names of members"),
        ({"r.dat": bytes(10 << 20)}, "member r.dat"),
        ({"a.txt": b"x", "b.txt": b"y"}, "ECGs in the archive"),
        ({"a.hea": b"a 0 1", "b.hea": b"b 0 1"}, "ECGs in the archive"),
    ],
)
def test_what_no_archive_of_one_ecg_holds_is_refused(members, field, tmp_path):
    with pytest.raises(ECGRecordError) as caught:
        read_record(pack(tmp_path / "a.zip", members))
    assert caught.value.field == field


def test_a_member_without_a_name_is_refused(record, tmp_path):
    """What `ZipInfo.is_dir` of Python 3.11 stumbles over."""
    path = pack(tmp_path / "a.zip", {"q": b"x", **record})
    path.write_bytes(path.read_bytes().replace(b"q", b"\0"))
    with pytest.raises(ECGRecordError, match="name of a member"):
        read_record(path)


def test_unpacked_sizes_are_limited(record, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 20_000)
    with pytest.raises(ECGRecordError, match=r"unpacked size is .*; allowed: at most 20000 bytes"):
        read_record(pack(tmp_path / "a.zip", record))


def test_a_size_that_is_a_lie_is_no_way_around(record, tmp_path):
    """The size of a member is written twice; the one that is checked is also the most that is unpacked."""
    path = pack(tmp_path / "a.zip", record)
    size = record["x/r.dat"].stat().st_size
    data = path.read_bytes()
    path.write_bytes(data.replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(ECGRecordError):
        read_record(path)


def test_links_and_passwords_are_refused(record, tmp_path):
    link = zipfile.ZipInfo("r.hea")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(ECGRecordError, match="a link"):
        read_record(tmp_path / "a.zip")
    path = pack(tmp_path / "b.zip", record)
    data = bytearray(path.read_bytes())
    for at in range(len(data) - 4):
        if data[at : at + 4] == b"PK\x01\x02":
            data[at + 8] |= 1
        elif data[at : at + 4] == b"PK\x03\x04":
            data[at + 6] |= 1
    path.write_bytes(data)
    with pytest.raises(ECGRecordError, match="damaged or encrypted"):
        read_record(path)


def test_an_archive_in_an_archive_is_refused(record, tmp_path):
    inner = pack(tmp_path / "a.zip", record)
    with pytest.raises(ECGRecordError, match="ECGs in the archive"):
        read_record(pack(tmp_path / "b.zip", {"a.zip": inner}))
