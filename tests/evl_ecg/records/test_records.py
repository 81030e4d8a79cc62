"""WFDB records: round trips, lead names, units, segments, malformed input, paths."""

import os
import pickle
import random
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb

import hf_evl_ecg.records.header
import hf_evl_ecg.records.plausibility
import hf_evl_ecg.records.reader
import hf_evl_ecg.records.samples
from hf_evl_ecg.records.comments import read_comments
from hf_evl_ecg.records.header import ECGRecordError, ECGRecordWarning, parse_header_text
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.plausibility import ImplausibleAmplitudeWarning, amplitude_mv
from hf_evl_ecg.records.reader import check_record, read_header, read_record
from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS, derive_limb_leads, einthoven_error_mv

FS = 500
GAIN = 200.0


def beats(n_samples: int = 1000, fs_hz: float = FS) -> np.ndarray:
    """Twelve consistent leads (mV) with narrow waves once a second; shape (n, 12)."""
    t = np.arange(n_samples) / fs_hz
    wave = np.exp(-(((t % 1.0) - 0.4) ** 2) / (2 * 0.012**2)) + 0.2 * np.exp(-(((t % 1.0) - 0.7) ** 2) / (2 * 0.04**2))
    free = {name: (0.5 + 0.1 * i) * np.roll(wave, i) for i, name in enumerate(INDEPENDENT_LEADS)}
    leads = free | derive_limb_leads(free["I"], free["II"])
    return np.stack([leads[name] for name in STANDARD_LEADS], axis=1)


def write(folder: Path, name: str = "r", signal: np.ndarray | None = None, fmt: str = "16", **options) -> Path:
    signal = beats() if signal is None else signal
    names = options.pop("sig_name", list(STANDARD_LEADS[: signal.shape[1]]))
    n = signal.shape[1]
    settings = {"fs": FS, "units": ["mV"] * n, "adc_gain": [GAIN] * n, "baseline": [0] * n} | options
    wfdb.wrsamp(name, sig_name=names, p_signal=signal, fmt=[fmt] * n, write_dir=str(folder), **settings)
    return folder / name


def edit(record: Path, old: str, new: str, count: int = 1) -> None:
    path = record.with_suffix(".hea")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def header_line(record: Path, index: int) -> str:
    return record.with_suffix(".hea").read_text().splitlines()[index]


def test_all_names_exist():
    for module in (
        hf_evl_ecg.records.reader,
        hf_evl_ecg.records.plausibility,
        hf_evl_ecg.records.header,
        hf_evl_ecg.records.samples,
    ):
        assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "516", "524"])
@pytest.mark.parametrize("n_samples", [997, 1000])
def test_formats_that_wfdb_writes(tmp_path, fmt, n_samples):
    gain = 60.0 if fmt in ("80", "508") else GAIN
    columns = [STANDARD_LEADS.index(name) for name in INDEPENDENT_LEADS]
    signal, names = beats(n_samples)[:, columns], list(INDEPENDENT_LEADS)
    record = write(tmp_path, signal=signal, sig_name=names, fmt=fmt, adc_gain=[gain] * 8, baseline=list(range(8)))
    ecg = read_record(record)
    assert ecg.signal_mv.shape == (n_samples, 12)
    assert np.abs(ecg.signal_mv[:, columns] - signal).max() <= 0.5 / gain + 1e-6


def read(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ECGRecordWarning)
        return read_record(*args, **options)


def test_paths_that_name_a_record(tmp_path):
    record = write(tmp_path)
    expected = read_record(record).signal_mv
    for path in (str(record), record.with_suffix(".hea"), record.with_suffix(".dat")):
        assert np.array_equal(read_record(path).signal_mv, expected)
    copy = tmp_path / "r.hea.orig"
    shutil.copy(record.with_suffix(".hea"), copy)
    assert np.array_equal(read_record(copy).signal_mv, expected)


def test_lead_order_spelling_and_extra_channels(tmp_path):
    order = [11, 3, 0, 7, 5, 1, 9, 2, 4, 6, 8, 10]
    signal = np.column_stack([beats()[:, order], np.zeros(1000)])
    names = [STANDARD_LEADS[i].upper() for i in order] + ["resp"]
    names[2], names[5] = "DI", "lead ii"
    ecg = read_record(write(tmp_path, signal=signal, sig_name=names))
    assert ecg.leads == STANDARD_LEADS
    assert np.abs(ecg.signal_mv - beats()).max() < 1 / GAIN
    turned = read_record(tmp_path / "r", STANDARD_LEADS[::-1])
    assert np.array_equal(turned.signal_mv, ecg.signal_mv[:, ::-1])
    with pytest.raises(ValueError, match="missing"):
        read_record(tmp_path / "r", ["I"])


def test_eight_leads_are_completed(tmp_path):
    columns = [STANDARD_LEADS.index(name) for name in INDEPENDENT_LEADS]
    ecg = read_record(write(tmp_path, signal=beats()[:, columns], sig_name=list(INDEPENDENT_LEADS)))
    assert np.abs(ecg.signal_mv - beats()).max() < 1.5 / GAIN
    assert einthoven_error_mv(ecg) < 1e-6
    assert ecg.metadata["derived_leads"] == ("III", "aVR", "aVL", "aVF")


def test_missing_and_doubled_leads_are_named(tmp_path):
    write(tmp_path, "few", signal=beats()[:, :10])
    with pytest.raises(ECGRecordError, match=r"missing: \['V5', 'V6'\]") as caught:
        read_record(tmp_path / "few")
    assert caught.value.field == "leads"
    record = write(tmp_path, "twice")
    edit(record, " V6", " v5")
    with pytest.raises(ECGRecordError, match="lead V5 once"):
        read_record(record)


@pytest.mark.parametrize(
    ("units", "factor"), [("uV", 1e-3), ("µV", 1e-3), ("V", 1e3), ("mv", 1.0), ("nV", 1e-6), ("MV", 1.0)]
)
def test_units(tmp_path, units, factor):
    record = write(tmp_path, fmt="32", signal=beats() / factor, adc_gain=[1000 * factor] * 12)
    edit(record, "/mV", f"/{units}", count=-1)
    assert np.abs(read_record(record).signal_mv - beats()).max() < 1e-3


def test_several_files_rates_skew_and_segments(tmp_path):
    signal = beats(1200)
    write(tmp_path, "a", signal=signal[:600])
    write(tmp_path, "b", signal=signal[600:])
    write(tmp_path, "limb", signal=signal[:, :6], sig_name=list(STANDARD_LEADS[:6]))
    write(tmp_path, "chest", signal=signal[:, 6:], sig_name=list(STANDARD_LEADS[6:]), fmt="212")
    (tmp_path / "multi.hea").write_text("multi/2 12 500 1200\na 600\nb 600\n")
    both = [(tmp_path / f"{name}.hea").read_text().splitlines()[1:7] for name in ("limb", "chest")]
    (tmp_path / "two.hea").write_text("\n".join(["two 12 500 1200", *both[0], *both[1]]))
    for name in ("multi", "two"):
        ecg = read_record(tmp_path / name)
        assert np.abs(ecg.signal_mv - signal).max() < 1 / GAIN, name


def test_a_known_gain_replaces_that_of_every_segment(tmp_path):
    edit(write(tmp_path, "a", signal=beats(600)), f"{GAIN}(0)/mV", "0(0)/mV", count=-1)
    (tmp_path / "m.hea").write_text("m/2 12 500 1200\na 600\na 600\n")
    with pytest.raises(ECGRecordError, match="uncalibrated"):
        read_record(tmp_path / "m")
    ecg = read_record(tmp_path / "m", gain_per_mv=GAIN)
    assert np.abs(ecg.signal_mv - np.tile(beats(600), (2, 1))).max() < 1 / GAIN


def test_relative_paths_start_at_the_root(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", "a")
    for name in ("data/a", "data/a.hea", "data/a.dat"):
        assert read_record(name, root=tmp_path).record_name == "a"
    with pytest.raises(ECGRecordError, match="a path inside"):
        read_record("../a", root=tmp_path / "data")


def test_samples_per_frame_and_skew(tmp_path):
    signal = beats(1200)
    record = write(tmp_path, signal=signal)
    lines = record.with_suffix(".hea").read_text().splitlines()
    frames = ["r 12 250 600"] + [line.replace("r.dat 16 ", "r.dat 16x2 ") for line in lines[1:13]]
    (tmp_path / "frames.hea").write_text("\n".join(frames).replace("r 12", "frames 12"))
    digital = np.fromfile(tmp_path / "r.dat", "<i2").reshape(600, 2, 12).transpose(0, 2, 1)
    digital.astype("<i2").tofile(tmp_path / "r.dat")
    ecg = read_record(tmp_path / "frames")
    assert ecg.fs_hz == 500
    assert np.abs(ecg.signal_mv - signal).max() < 1 / GAIN

    record = write(tmp_path, "skewed", signal=signal)
    lines = record.with_suffix(".hea").read_text().splitlines()
    lines[7] = lines[7].replace(" 16 ", " 16:25 ", 1)
    record.with_suffix(".hea").write_text("\n".join(lines))
    expected = signal.copy()
    expected[:-25, 6] = signal[25:, 6]
    skewed = read_record(record, nan="interpolate")
    assert skewed.metadata["interpolated_samples"] == {STANDARD_LEADS[6]: 25}
    assert np.abs(skewed.signal_mv[:-25] - expected[:-25]).max() < 1 / GAIN


def test_gaps_between_segments_follow_the_nan_policy(tmp_path):
    write(tmp_path, "a", signal=beats(600))
    (tmp_path / "m.hea").write_text("m/3 12 500 1300\na 600\n~ 100\na 600\n")
    with pytest.raises(ECGRecordError, match="missing samples"):
        read_record(tmp_path / "m")
    ecg = read_record(tmp_path / "m", nan="interpolate")
    assert len(ecg) == 1300
    assert set(ecg.metadata["interpolated_samples"].values()) == {100}
    (tmp_path / "m.hea").write_text("m/2 12 500 10000000600\na 600\n~ 10000000000\n")
    with pytest.raises(ECGRecordError, match="length of gaps"):
        read_record(tmp_path / "m", nan="interpolate")
    (tmp_path / "m.hea").write_text("m/9999 12 500 5999400\n" + "a 600\n" * 9999)
    with pytest.raises(ECGRecordError, match="a, 9999 times'; allowed: the same segment at most 16 times"):
        read_record(tmp_path / "m")


def test_missing_samples(tmp_path):
    signal = beats()
    signal[100:110, 7] = np.nan
    record = write(tmp_path, signal=signal)
    with pytest.raises(ECGRecordError, match=r"'V2': 10") as caught:
        read_record(record)
    assert caught.value.field == "missing samples per lead"
    ecg = read_record(record, nan="interpolate")
    assert ecg.metadata["interpolated_samples"] == {"V2": 10}
    edges = ecg.lead("V2")[[99, 110]]
    assert np.allclose(ecg.lead("V2")[100:110], np.linspace(*edges, 12)[1:-1], atol=1e-6)
    signal[:, 7] = np.nan
    with pytest.raises(ECGRecordError, match="up to half"):
        read_record(write(tmp_path, "gone", signal=signal), nan="interpolate")
    with pytest.raises(ValueError, match="'interpolate'"):
        read_record(record, nan="drop")


def test_flat_leads_are_kept_and_flagged(tmp_path):
    signal = beats()
    signal[:, 9:] = 0
    assert read_record(write(tmp_path, signal=signal)).flat_leads == ("V4", "V5", "V6")


def test_comments_diagnoses_and_person(tmp_path):
    record = write(tmp_path, comments=["Age: 74", "Sex: Female", "Dx: 164889003,59118001", "Rx: Unknown"])
    ecg = read_record(record)
    assert ecg.diagnoses == ("164889003", "59118001")
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == (74.0, "female")
    assert ecg.comments[0] == "Age: 74"
    assert ecg.record_name == "r"
    assert read_comments(["Age: NaN", "Sex: Unknown"]) == (None, None, ())
    assert read_comments(["<age>: 5", "<diagnoses>:", "Rhythm: Sinus rhythm.", "LVH."]) == (
        5.0,
        None,
        ("Rhythm: Sinus rhythm.", "LVH."),
    )


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
    "sig_len zero": (lambda text: text.replace(" 1000", " 0", 1), "n_samples"),
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


def test_a_record_beyond_memory_is_refused(tmp_path, monkeypatch):
    """A file of holes is as long as its header says and takes no room on disk."""
    record = write(tmp_path)
    edit(record, " 500 1000", " 500 1000000000")
    os.truncate(tmp_path / "r.dat", 24 * 1_000_000_000)

    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(wfdb, "rdrecord", refuse)
    with pytest.raises(ECGRecordError, match="n_samples is '1000000000'; allowed: as many as fit into memory"):
        read_record(record)


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


def test_a_swapped_limb_lead_is_noticed(tmp_path):
    names = list(STANDARD_LEADS)
    names[0], names[1] = names[1], names[0]
    record = write(tmp_path, signal=beats(2500), sig_name=names, adc_gain=[1000.0] * 12)
    with pytest.warns(ECGRecordWarning, match=r"deviate by up to [0-9.]+ mV from what I and II imply"):
        read_record(record)
    with warnings.catch_warnings():  # coarse rounding is no contradiction
        warnings.simplefilter("error", ECGRecordWarning)
        read_record(write(tmp_path, "coarse", signal=beats(2500), adc_gain=[8.0] * 12))


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


def test_missing_gain_warns(tmp_path):
    record = write(tmp_path)
    first = header_line(record, 1)
    edit(record, first, "r.dat 16", 1)
    with pytest.raises(ECGRecordError, match="missing"):  # the description went with the gain
        read_record(record)
    text = (
        record.with_suffix(".hea").read_text().replace("r.dat 16\n", first.replace("200.0(0)/mV", "200.0(0)/mV") + "\n")
    )
    record.with_suffix(".hea").write_text(text)
    header = read_header(record)
    bare = replace(header, signals=(replace(header.signals[0], gain=None), *header.signals[1:]))
    with pytest.warns(ECGRecordWarning, match=r"no gain for \['I'\]"):
        hf_evl_ecg.records.plausibility.warn_about_scale(read_record(record), bare)


def test_fuzzed_headers_raise_nothing_but_record_errors(tmp_path):
    """1,000 random mutations of headers of four kinds: an ECG or an ECGRecordError, never anything else."""
    write(tmp_path, "plain")
    write(tmp_path, "packed", fmt="212")
    write(tmp_path, "flac", fmt="516")
    (tmp_path / "multi.hea").write_text("multi/2 12 500 2000\nplain 1000\npacked 1000\n")
    texts = [(tmp_path / f"{name}.hea").read_text() for name in ("plain", "packed", "flac", "multi")]
    rng = random.Random(7)
    pieces = [
        "0",
        "-1",
        "9" * 12,
        "/",
        "..",
        "\x00",
        " ",
        "\n",
        "#",
        "~",
        "nan",
        "1e999",
        "(",
        "+24",
        "x3",
        ":5",
        "µ",
        "٣",
        "\t",
    ]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1000):
        text = rng.choice(texts)
        for _ in range(rng.randint(1, 3)):
            i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
            j = min(j, i + rng.randrange(4))
            text = (
                text[:i]
                + rng.choice([*pieces, text[j : j + 9], chr(rng.randrange(1, 300))])
                + text[rng.choice((i, j)) :]
            )
        (tmp_path / "fuzz.hea").write_text(text, encoding="utf-16" if rng.random() < 0.02 else "utf-8")
        try:
            ecg = read(tmp_path / "fuzz", nan="interpolate")
            assert np.isfinite(ecg.signal_mv).all()
            assert len(ecg) <= 20_000
            outcomes["read"] += 1
        except ECGRecordError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 30, outcomes


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


@pytest.mark.parametrize(
    ("true_gain", "stated", "match"),
    [(1000, 200, "with 1000"), (1000, 4880, "with 1000"), (13, 0.01, "gain or the units")],
)
def test_wrong_gains_are_noticed(tmp_path, true_gain, stated, match):
    record = write(tmp_path, signal=beats(2500) * 2.0, adc_gain=[float(true_gain)] * 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = read_record(record)
    edit(record, f"{true_gain}.0(0)/mV", f"{stated}(0)/mV", count=-1)
    with pytest.warns(ImplausibleAmplitudeWarning, match=match):
        wrong = read_record(record)
    assert np.allclose(wrong.signal_mv * stated, right.signal_mv * true_gain, rtol=1e-4, atol=1e-3)
    assert np.array_equal(read_record(record, gain_per_mv=true_gain).signal_mv, right.signal_mv)
    with pytest.raises(ValueError, match="gain_per_mv"):
        read_record(record, gain_per_mv=0)


def test_gains_that_scale_each_lead_by_itself_are_noticed(tmp_path):
    signal = beats(2500)
    record = write(tmp_path, signal=signal, adc_gain=[1000.0] * 12)
    lines = record.with_suffix(".hea").read_text().splitlines()
    for i, gain in enumerate(np.ptp(signal, axis=0) * 1000, 1):
        lines[i] = lines[i].replace("1000.0(0)/mV", f"{gain:.0f}(2)/mV")
    record.with_suffix(".hea").write_text("\n".join(lines))
    with pytest.warns(ECGRecordWarning, match="scale each lead by itself"):
        read_record(record)
    assert np.abs(read_record(record, gain_per_mv=1000).signal_mv - signal).max() < 0.001


def test_amplitude_ignores_drift_and_spikes():
    signal = beats(5000)
    tall = np.ptp(signal, axis=0).max()
    assert amplitude_mv(signal, FS) == pytest.approx(tall, rel=0.02)
    disturbed = signal + np.repeat([0, 50], 2500)[:, None]
    disturbed[777] += 30
    assert amplitude_mv(disturbed, FS) == pytest.approx(tall, rel=0.02)


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
