"""ECG as data: validation, lead names, resampling, cropping, derived leads."""

import pickle

import numpy as np
import pytest

from hf_evl_ecg.signals import ecg as signals
from hf_evl_ecg.signals.ecg import (
    ECG,
    STANDARD_LEADS,
    canonical_lead,
    canonical_leads,
    crop,
    derive_limb_leads,
    einthoven_error_mv,
    resample,
)


def sine_ecg(fs_hz: float, seconds: float = 10.0, frequency_hz: float = 7.0) -> ECG:
    t = np.arange(round(seconds * fs_hz)) / fs_hz
    return ECG(np.sin(2 * np.pi * frequency_hz * t)[:, None] * np.arange(1, 13) + 3.0, fs_hz)


def test_all_names_exist():
    assert all(getattr(signals, name) is not None for name in signals.__all__)


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        ("i", "I"), ("II ", "II"), ("DI", "I"), ("d3", "III"), ("Lead II", "II"), ("AVR", "aVR"), ("avl", "aVL"), ("a-VF", "aVF"),
        ("aVf", "aVF"), ("v1", "V1"), ("C6", "V6"), ("ECG_V4", "V4"), ("MDC_ECG_LEAD_aVR", "aVR"), ("1", "I"),
        ("MLII", None), ("-aVR", None), ("vx", None), ("V7", None), ("", None), ("IV", None),
    ],
)  # fmt: skip
def test_lead_spellings(spelling, lead):
    assert canonical_lead(spelling) == lead


def test_lead_lists_name_what_is_wrong():
    assert canonical_leads([name.lower() for name in STANDARD_LEADS]) == STANDARD_LEADS
    with pytest.raises(ValueError, match=r"unknown leads \['MLII'\]"):
        canonical_leads(["MLII"])
    with pytest.raises(ValueError, match=r"missing: \['V6'\], given twice: \['V5'\]"):
        canonical_leads([*STANDARD_LEADS[:11], "v5"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"signal_mv": np.zeros((10, 11))}, r"\(10, 11\)"),
        ({"signal_mv": np.zeros((0, 12))}, r"T >= 1"),
        ({"signal_mv": np.zeros(12)}, "shape"),
        ({"fs_hz": 0}, "fs_hz=0.0: allowed are 25 to 20000 Hz"),
        ({"fs_hz": float("nan")}, "fs_hz=nan: "),
        ({"fs_hz": 1e6}, "20000"),
        ({"leads": STANDARD_LEADS[:11]}, "missing"),
    ],
)
def test_construction_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        ECG(**({"signal_mv": np.zeros((10, 12)), "fs_hz": 500} | change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_finite_values(value):
    signal = np.zeros((10, 12))
    signal[3:5, 6] = value
    with pytest.raises(ValueError, match=r"'V1': 2"):
        ECG(signal, 500)


def test_an_ecg_cannot_change_and_does_not_share_memory():
    signal = np.zeros((10, 12), dtype=np.float32)
    ecg = ECG(signal, 500, metadata={"age": 5})
    signal[0, 0] = 1
    assert ecg.signal_mv[0, 0] == 0
    assert ecg.signal_mv.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        ecg.signal_mv[0, 0] = 1
    with pytest.raises(TypeError):
        ecg.metadata["age"] = 6
    with pytest.raises(AttributeError):
        ecg.fs_hz = 100


def test_pickle_round_trip():
    ecg = ECG(
        np.random.default_rng(0).normal(size=(50, 12)), 360, record_name="r", comments=("a",), metadata={"age": 5}
    )
    copy = pickle.loads(pickle.dumps(ecg))
    assert np.array_equal(copy.signal_mv, ecg.signal_mv)
    assert (copy.fs_hz, copy.record_name, copy.comments, dict(copy.metadata)) == (360, "r", ("a",), {"age": 5})


def test_leads_and_order():
    ecg = ECG(np.tile(np.arange(12.0), (5, 1)), 500)
    assert ecg.lead("avr")[0] == 3
    turned = ecg.reordered(STANDARD_LEADS[::-1])
    assert turned.leads == STANDARD_LEADS[::-1]
    assert turned.signal_mv[0].tolist() == list(range(11, -1, -1))
    assert all(np.array_equal(turned.lead(name), ecg.lead(name)) for name in STANDARD_LEADS)
    with pytest.raises(ValueError, match="V9"):
        ecg.lead("V9")


def test_flat_leads_are_named():
    signal = np.random.default_rng(0).normal(size=(100, 12))
    signal[:, 8] = 2.5
    assert ECG(signal, 500).flat_leads == ("V3",)


@pytest.mark.parametrize(("old", "new"), [(500, 100), (500, 360), (250, 500), (1000, 257.0), (128, 500)])
def test_resampling_keeps_a_slow_sine(old, new):
    ecg = resample(sine_ecg(old), new)
    expected = sine_ecg(new, len(ecg) / new).signal_mv
    assert ecg.fs_hz == new
    assert len(ecg) == int(np.ceil(10 * new))
    inside = slice(int(0.3 * new), -int(0.3 * new))
    assert np.abs(ecg.signal_mv[inside] - expected[inside]).max() < 0.01 * 12


def test_resampling_keeps_an_offset_and_a_drift_up_to_the_ends():
    line = np.linspace(3.0, 4.0, 5001)[:-1, None] * np.ones(12)
    ecg = resample(ECG(line, 500), 360)
    assert np.abs(ecg.signal_mv - (3.0 + np.arange(3600) / 3600)[:, None]).max() < 0.002


def test_resampling_removes_what_would_alias():
    ecg = resample(sine_ecg(500, frequency_hz=90.0), 100)
    assert np.abs(ecg.signal_mv[20:-20] - 3.0).max() < 0.02 * 12


def test_resampling_refuses_odd_rates():
    with pytest.raises(ValueError, match="allowed are 25"):
        resample(sine_ecg(500), 5)
    with pytest.raises(ValueError, match="rounder"):
        resample(sine_ecg(500), 500.02)
    ecg = sine_ecg(500)
    assert resample(ecg, 500) is ecg


def test_crop():
    ecg = ECG(np.arange(5000.0)[:, None] * np.ones(12), 500)
    part = crop(ecg, 2.5, 2.5)
    assert (part.signal_mv[0, 0], part.signal_mv[-1, 0], part.duration_s) == (1250, 2499, 2.5)
    assert len(crop(ecg, 9.0)) == 500
    for start, length in [(-0.1, 1), (9.5, 1), (0, 0), (10, None)]:
        with pytest.raises(ValueError, match="do not lie within"):
            crop(ecg, start, length)


def test_limb_leads_by_hand_and_by_electrodes():
    right, left, foot = np.random.default_rng(0).normal(size=(3, 20))
    derived = derive_limb_leads(left - right, foot - right)
    assert np.allclose(derived["III"], foot - left)
    assert np.allclose(derived["aVR"], right - (left + foot) / 2)
    assert np.allclose(derived["aVL"], left - (right + foot) / 2)
    assert np.allclose(derived["aVF"], foot - (right + left) / 2)


def test_einthoven_error():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(50, 12))
    signal[:, 2:6] = np.stack(list(derive_limb_leads(signal[:, 0], signal[:, 1]).values()), axis=1)
    assert einthoven_error_mv(ECG(signal, 500)) < 1e-6
    signal[7, 4] += 0.25
    assert einthoven_error_mv(ECG(signal, 500)) == pytest.approx(0.25, abs=1e-6)
