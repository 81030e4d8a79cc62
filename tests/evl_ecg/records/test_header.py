"""Headers: malformed ones are named field by field, those of other systems are read."""

import gzip
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from written_records import GAIN, beats, edit, header_line, read, write

from hf_evl_ecg.records.header import ECGRecordError, parse_header_text
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import STANDARD_LEADS

MALFORMED = {
    "empty": (lambda text: "", "record line"),
    "only comments": (lambda text: "# nothing\n", "record line"),
    "n_sig too large": (lambda text: text.replace("r 12 ", "r 15 ", 1), "n_sig"),
    "n_sig zero": (lambda text: text.replace("r 12 ", "r 0 ", 1), "n_sig"),
    "n_sig no number": (lambda text: text.replace("r 12 ", "r twelve ", 1), "n_sig"),
    "fs zero": (lambda text: text.replace(" 500 ", " 0 ", 1), "fs"),
    "fs negative": (lambda text: text.replace(" 500 ", " -500 ", 1), "fs"),
    "fs word": (lambda text: text.replace(" 500 ", " 5oo ", 1), "fs"),
    "fs in other digits": (lambda text: text.replace(" 500 ", " ٥٠٠ ", 1), "fs"),
    "fs missing": (lambda text: text.replace("r 12 500 1000", "r 12", 1), "record line"),
    "sig_len huge": (lambda text: text.replace(" 1000", " 99999999999", 1), "n_samples"),
    "sig_len beyond integers": (lambda text: text.replace(" 1000", " " + "9" * 4000, 1), "n_samples"),
    "sig_len one too many": (lambda text: text.replace(" 1000", " 1001", 1), "n_samples"),
    "gain zero": (lambda text: text.replace("200.0(0)/mV", "0(0)/mV", 1), "gain"),
    "gain negative": (lambda text: text.replace("200.0(0)/mV", "-200(0)/mV", 1), "gain"),
    "gain word": (lambda text: text.replace("200.0(0)/mV", "nan(0)/mV", 1), "gain"),
    "units": (lambda text: text.replace("/mV", "/mmHg", 1), "units of lead I"),
    "format": (lambda text: text.replace("r.dat 16 ", "r.dat 17 ", 1), "format"),
    "formats mixed in a file": (lambda text: text.replace("r.dat 16 ", "r.dat 80 ", 1), "format"),
    "offset": (lambda text: text.replace("r.dat 16 ", "r.dat 16+99999999999 "), "n_samples"),
    "samples per frame": (lambda text: text.replace("r.dat 16 ", "r.dat 16x999999999 "), "samples per frame"),
    "skew": (lambda text: text.replace("r.dat 16 ", "r.dat 16:99999999 ", 1), "skew"),
    "name with extension": (lambda text: text.replace("r 12 ", "r.mat 12 ", 1), "record name"),
    "name with folder": (lambda text: text.replace("r 12 ", "../r 12 ", 1), "record name"),
    "signal file missing": (lambda text: text.replace("r.dat", "gone.dat"), "signal file"),
    "signal file interleaved": (lambda text: text.replace("r.dat", "q.dat", 3).replace("q.dat", "r.dat", 1), "signal file name"),
    "segments": (lambda text: "r/2 12 500 1000\nr 500\n", "n_seg"),
    "segment of itself": (lambda text: "r/1 12 500 1000\nr 1000\n", "segment"),
    "no voltage": (lambda text: text.replace("200.0(0)/mV", "1e-300(0)/mV", 1), "signal"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers(tmp_path, case):
    change, field = MALFORMED[case]
    record = write(tmp_path)
    text = record.with_suffix(".hea").read_text()
    shutil.copy(tmp_path / "r.dat", tmp_path / "q.dat")
    changed = change(text)
    assert changed != text
    record.with_suffix(".hea").write_text(changed)
    with pytest.raises(ECGRecordError) as caught:
        read(record)
    error = caught.value
    assert error.field == field
    assert error.file
    assert error.allowed
    assert "allowed" in str(error)
    assert len(str(error)) < 1500
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_uncalibrated_channel_beside_the_leads_is_no_matter(tmp_path):
    signal = np.column_stack([beats(), np.ones(1000)])
    record = write(tmp_path, signal=signal, sig_name=[*STANDARD_LEADS, "resp"])
    last = header_line(record, 13)
    edit(record, last, last.replace("200.0(0)/mV", "0"))
    assert np.abs(read_record(record).signal_mv - beats()).max() < 1 / GAIN
    edit(record, "200.0(0)/mV", "0", count=-1)
    with pytest.raises(ECGRecordError, match=r"gain is '0 \(lead I\)'; allowed: a positive number"):
        read_record(record)
    assert np.abs(read_record(record, gain_per_mv=GAIN).signal_mv - beats()).max() < 1 / GAIN


def test_headers_of_other_systems(tmp_path):
    """A byte order mark, line ends of DOS, µV in Latin-1, umlauts in comments, suffixes in capitals."""
    record = write(tmp_path, units=["uV"] * 12, adc_gain=[0.2] * 12, signal=beats() * 1000)
    text = record.with_suffix(".hea").read_text() + "# Größe: 1,80 m\n"
    expected = read_record(record).signal_mv
    for encoding, change in (("utf-8-sig", str), ("latin-1", lambda s: s.replace("/uV", "/\xb5V")), ("utf-8", str)):
        record.with_suffix(".hea").write_bytes(change(text).replace("\n", "\r\n").encode(encoding))
        ecg = read_record(record)
        assert np.array_equal(ecg.signal_mv, expected)
        assert ecg.comments == ("Größe: 1,80 m",)
    record.with_suffix(".hea").rename(tmp_path / "r.HEA")
    for name in ("r", "r.HEA", "r.dat", "r.DAT"):
        assert np.array_equal(read_record(tmp_path / name).signal_mv, expected)


def test_header_text_round_trip():
    header = parse_header_text("r 1 360.5/4(2) 650000 12:00:00 1/1/2000\nr_1.dat 212x2:3+512 12.5(-7)/uV 11 1024 995 -22131 0 lead MLII x\n# a\n#b", Path("r.hea"))  # fmt: skip
    line = header.signals[0]
    assert (header.record_name, header.fs_hz, header.n_samples, header.comments) == ("r", 360.5, 650000, ("a", "b"))
    assert (line.file_name, line.fmt, line.samples_per_frame, line.skew, line.byte_offset) == (
        "r_1.dat",
        "212",
        2,
        3,
        512,
    )
    assert (line.gain, line.baseline, line.units, line.initial_value, line.name) == (12.5, -7, "uV", 995, "lead MLII x")


def test_a_folder_in_the_record_line_is_no_number_of_segments(tmp_path):
    """wfdb writes one where a record was written with it, as PTB-XL+ has in its median beats."""
    line = "{} 12 500 1000\n" + "\n".join(f"{{}}r.dat 16 200/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS)
    for folder in ("00001/", "median_beats/00000/", "a\\b\\"):
        parsed = parse_header_text(line.replace("{}", folder, 13).replace(folder, f"{folder}r", 1), tmp_path / "r.hea")
        assert (parsed.record_name, {signal.file_name for signal in parsed.signals}) == ("r", {"r.dat"})
    parsed = parse_header_text("00000/00001 1 500 10\n00001.dat 16 200/mV 16 0 0 0 0 II", tmp_path / "00001.hea")
    assert (parsed.record_name, parsed.segments) == ("00001", ())
    parsed = parse_header_text("a/00001/2 1 500 20\nx 10\ny 10", tmp_path / "00001.hea")
    assert (parsed.record_name, parsed.segments) == ("00001", (("x", 10), ("y", 10)))
    assert parse_header_text("2/2 1 500 20\nx 10\ny 10", tmp_path / "2.hea").segments == (("x", 10), ("y", 10))
    for name in ("../r", "/r", "a/../r", "a b/r", "a//r"):
        with pytest.raises(ECGRecordError, match=r"record name|record line|n_sig"):
            parse_header_text(f"{name} 1 500 10\nr.dat 16 200/mV 16 0 0 0 0 II", tmp_path / "r.hea")
    with pytest.raises(ECGRecordError, match="signal file name"):
        parse_header_text("a/r 1 500 10\nb/r.dat 16 200/mV 16 0 0 0 0 II", tmp_path / "r.hea")


def test_header_bytes_of_other_systems_are_read_or_named(tmp_path):
    record = write(tmp_path, comments=["Age: 74"])
    raw = record.with_suffix(".hea").read_bytes()
    text = raw.decode()
    expected = read_record(record)
    same = [raw + bytes(300), raw + b"\x1a", raw.replace(b"\n", b"\r"), raw.replace(b"\n", b"\r\n") + b"\x1a\x00"]
    same += [b"\xef\xbb\xbf" + raw, text.encode("utf-16"), text.encode("utf-16-le"), text.encode("utf-16-be")]
    same += ["\ufeff".encode("utf-16-be") + text.encode("utf-16-be")]
    for written in same:
        record.with_suffix(".hea").write_bytes(written)
        ecg = read_record(record)
        assert np.array_equal(ecg.signal_mv, expected.signal_mv)
        assert (ecg.comments, ecg.record_name) == (expected.comments, "r")
    odd = {"gzip data": gzip.compress(raw), "zip archive": b"PK\x03\x04" + raw, "Git LFS": b"version https://git-lfs.x"}
    odd |= {"web page": b"<!DOCTYPE html><p>404", "NUL bytes": raw[:40] + b"\x00" + raw[40:], "UTF-16": b"\xff\xfea"}
    for what, written in odd.items():
        record.with_suffix(".hea").write_bytes(written)
        with pytest.raises(ECGRecordError, match=what) as caught:
            read_record(record)
        assert caught.value.field == "header file"
