"""What holds of every ECG: limb leads, resampling, cropping, orders of leads, units; examples drawn by hypothesis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_evl_ecg.signals.ecg import (
    ECG,
    STANDARD_LEADS,
    canonical_lead,
    crop,
    derive_limb_leads,
    einthoven_error_mv,
    resample,
)
from hf_evl_ecg.signals.units import mv_per_unit

RATES = st.sampled_from([100.0, 125.0, 240.0, 250.0, 257.0, 360.0, 400.0, 500.0, 977.0, 1000.0])
VOLTS = st.floats(-20, 20, width=32)


def limb(length=st.integers(1, 40)):
    return length.flatmap(lambda count: st.tuples(*(arrays(np.float64, count, elements=VOLTS) for _ in range(2))))


def made(lead_i, lead_ii, fs_hz=500.0):
    """An ECG whose limb leads follow from I and II, with the chest leads of II."""
    leads = {"I": lead_i, "II": lead_ii, **derive_limb_leads(lead_i, lead_ii)}
    return ECG(np.stack([leads.get(name, lead_ii) for name in STANDARD_LEADS], axis=1), fs_hz)


@given(limb())
def test_derived_leads_meet_einthoven_and_goldberger(leads):
    found = derive_limb_leads(*leads)
    np.testing.assert_allclose(leads[0] + found["III"], leads[1], atol=1e-12)
    np.testing.assert_allclose(found["aVR"] + found["aVL"] + found["aVF"], 0, atol=1e-12)
    np.testing.assert_allclose(found["aVL"] - found["aVF"], 1.5 * (leads[0] - leads[1]), atol=1e-12)
    assert einthoven_error_mv(made(*leads)) < 1e-5, "the rounding of float32 alone"


@given(limb(), st.floats(0.01, 5), st.sampled_from(["III", "aVR", "aVL", "aVF"]))
def test_what_breaks_the_law_is_measured(leads, wrong_mv, name):
    ecg = made(*leads)
    signal = np.array(ecg.signal_mv)
    signal[0, STANDARD_LEADS.index(name)] += wrong_mv
    assert einthoven_error_mv(ECG(signal, 500)) == pytest.approx(wrong_mv, abs=1e-4)


@given(st.integers(1, 400), RATES, RATES, VOLTS, st.floats(-0.01, 0.01))
def test_resampling_keeps_constants_slopes_and_length(count, before_hz, after_hz, constant, slope):
    """A line is no wave: no filter may ring at its ends, or bend it."""
    line = constant + slope * np.arange(count)
    ecg = ECG(np.repeat(line[:, None], 12, axis=1), before_hz)
    found = resample(ecg, after_hz)
    assert len(found) == -(-count * after_hz // before_hz)
    assert abs(found.duration_s - ecg.duration_s) < 1 / after_hz
    expected = constant + slope * np.arange(len(found)) * before_hz / after_hz
    np.testing.assert_allclose(found.signal_mv[:, 0], expected, atol=1e-3 * (abs(constant) + abs(slope) * count) + 1e-6)


@given(limb(st.integers(20, 200)), RATES)
def test_resampling_is_linear_and_keeps_the_limb_law(leads, after_hz):
    ecg = made(*leads)
    found = resample(ecg, after_hz)
    assert einthoven_error_mv(found) < 1e-4
    halved = resample(ECG(ecg.signal_mv / 2, 500), after_hz)
    np.testing.assert_allclose(halved.signal_mv, found.signal_mv / 2, atol=1e-5)


@given(st.permutations(STANDARD_LEADS), limb())
def test_the_order_of_leads_is_a_matter_of_columns(order, leads):
    ecg = made(*leads)
    turned = ecg.reordered(order)
    assert turned.leads == tuple(order)
    for name in STANDARD_LEADS:
        np.testing.assert_array_equal(turned.lead(name.lower()), ecg.lead(name))
    np.testing.assert_array_equal(turned.reordered(STANDARD_LEADS).signal_mv, ecg.signal_mv)
    assert einthoven_error_mv(turned) == einthoven_error_mv(ecg)


@given(st.integers(2, 300), st.data())
def test_two_crops_are_the_whole(count, data):
    ecg = ECG(np.repeat(np.arange(count, dtype=np.float32)[:, None], 12, axis=1), 500)
    at = data.draw(st.integers(1, count - 1))
    first, second = crop(ecg, 0, at / 500), crop(ecg, at / 500)
    np.testing.assert_array_equal(np.concatenate([first.signal_mv, second.signal_mv]), ecg.signal_mv)


@given(
    st.sampled_from(STANDARD_LEADS),
    st.sampled_from(["", " ", "  "]),
    st.sampled_from(["", "lead ", "Lead_", "ECG "]),
    st.booleans(),
)
def test_spellings_of_a_lead_are_one(name, space, prefix, upper):
    text = f"{space}{prefix}{name}{space}"
    found = canonical_lead(text.upper() if upper else text)
    assert found in (name, None)
    assert canonical_lead(name.lower()) == canonical_lead(name.upper()) == name


@given(st.text(max_size=12))
def test_any_text_is_a_lead_or_none(text):
    assert canonical_lead(text) in (*STANDARD_LEADS, None)
    factor = mv_per_unit(text)
    assert factor is None or factor in (1.0, 1e-3, 1e-6, 1e3)


@given(
    st.sampled_from(["mV", "uV", "µV", "μV", "nV", "V", "millivolt", "microvolts"]), st.sampled_from(["", " ", "\t"])
)
def test_units_do_not_depend_on_their_spelling(name, space):
    assert mv_per_unit(f"{space}{name.upper()}{space}") == mv_per_unit(name.lower()) == mv_per_unit(name)
