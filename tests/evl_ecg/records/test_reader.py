"""Records read as 12-lead ECGs: formats, leads, units, missing samples, and anything that a header can say."""

import os
import random

import numpy as np
import pytest
import wfdb
from written_records import GAIN, beats, edit, read, write

import hf_evl_ecg.records.header
import hf_evl_ecg.records.plausibility
import hf_evl_ecg.records.reader
import hf_evl_ecg.records.samples
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import INDEPENDENT_LEADS, STANDARD_LEADS, einthoven_error_mv


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
