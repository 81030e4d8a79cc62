"""Signal files that are short, long, damaged, foreign or of the wrong kind."""

import os
import struct
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
from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS


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


def mat_record(folder, samples, name="val", leads=STANDARD_LEADS):
    """A record whose header is the Challenge's: samples of int16 from byte 24 on."""
    scipy.io.savemat(folder / "m.mat", {name: samples}, format="4")
    lines = [f"m.mat 16+24 {GAIN:g}/mV 16 0 0 0 0 {lead}" for lead in leads]
    (folder / "m.hea").write_text("\n".join([f"m {len(leads)} 500 1000", *lines]))
    return folder / "m"


def test_matlab_4_files_are_what_the_header_takes_them_for_or_refused(tmp_path):
    """Another type, a turned matrix, a longer name: read as int16 from byte 24 on they give an ECG that nobody recorded."""
    digital = np.round(beats() * GAIN).T.astype("<i2")
    eight = [i for i, lead in enumerate(STANDARD_LEADS) if lead in INDEPENDENT_LEADS]
    assert np.abs(read(mat_record(tmp_path, digital)).signal_mv - beats()).max() < 1 / GAIN
    leads = [STANDARD_LEADS[i] for i in eight]
    assert np.abs(read(mat_record(tmp_path, digital[eight], leads=leads)).signal_mv - beats()).max() < 3 / GAIN
    cases = [
        (digital.astype(float), {}, "type of the MATLAB 4 matrix is 'double'; allowed: int16 in little-endian"),
        (digital.astype("<f4"), {}, "type of the MATLAB 4 matrix is 'single'"),
        (digital.astype("<i4"), {}, "type of the MATLAB 4 matrix is 'int32'"),
        (digital.astype("<u2"), {}, "type of the MATLAB 4 matrix is 'uint16'"),
        (digital.T, {}, r"shape of the MATLAB 4 matrix is '1000 x 12 \(transposed\)'; allowed: 12 x 1000"),
        (digital[eight].T, {"leads": leads}, r"shape of the MATLAB 4 matrix is '1000 x 8 \(transposed\)'"),
        (digital[:, :999], {}, "shape of the MATLAB 4 matrix is '12 x 999'|n_samples"),
        (digital[:11], {}, "shape of the MATLAB 4 matrix is '11 x 1000'|n_samples"),
        (digital, {"name": "signal"}, "byte offset is 24; allowed: 27, where the samples"),
    ]
    for samples, options, match in cases:
        record = mat_record(tmp_path, samples, **options)
        for read_or_check in (read_record, check_record):
            with pytest.raises(ECGRecordError, match=match):
                read_or_check(record)
    mat_record(tmp_path, digital)
    raw = (tmp_path / "m.mat").read_bytes()
    big = struct.pack(">5i", 1030, 12, 1000, 0, 4) + raw[20:24] + digital.T.astype(">i2").tobytes()
    for written, match in (
        (big, "is 'big-endian int16'"),
        (b"MATLAB 7.3 MAT-file, Platform" + raw, "a file of MATLAB 7.3'; allowed: a file of MATLAB 4"),
        (b"\x89HDF\r\n" + raw, "a file of MATLAB 7.3'"),
        (b"MATLAB 5.0 MAT-file" + raw, "a file of MATLAB 5'"),
    ):
        (tmp_path / "m.mat").write_bytes(written)
        with pytest.raises(ECGRecordError, match=match):
            check_record(tmp_path / "m")
    edit(tmp_path / "m", "16+24", "16", count=-1)  # plain samples under that suffix
    (tmp_path / "m.mat").write_bytes(raw[24:])
    assert np.abs(read(tmp_path / "m").signal_mv - beats()).max() < 1 / GAIN
    (tmp_path / "m.mat").write_bytes(raw)
    with pytest.raises(ECGRecordError, match="byte offset is 0; allowed: 24"):
        read_record(tmp_path / "m")


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
