"""What is known of a record: leads measured on traces made by hand, times from the simulator, cardiologists' marks."""

import numpy as np
import pytest

from hf_evl_ecg.reasoning import build_chain, ludb_truth, simulated_truth
from hf_evl_ecg.reasoning.truth import measure_leads
from hf_evl_ecg.signals import ECG, STANDARD_LEADS, SimulationConfig, simulate
from hf_evl_ecg.signals.heart_vector import DOWER
from hf_evl_ecg.sources.ludb import load_ludb

LEADS = list(STANDARD_LEADS)


def test_leads_are_measured_as_their_definitions_say():
    """A QRS complex of 100 ms: V1 is up 1 mV for 60 ms, then down 0.5 mV for 40 ms, and ST lies 0.2 mV above the line before it."""
    signal = np.full((1000, 12), 0.3, np.float32)  # 500 Hz; 0.3 mV is the line
    signal[500:530, 6] += 1.0
    signal[530:550, 6] -= 0.5
    signal[550:650, 6] += 0.2
    signal[500:550, 0] -= 0.8
    shapes = measure_leads(ECG(signal, 500.0, record_name="made"), [(1.0, 1.1)])
    assert shapes["V1"].net == pytest.approx((60 - 20) / (60 + 20), abs=1e-3)
    # the last 35 % are 18 of 50 samples, all of them down
    assert shapes["V1"].terminal == pytest.approx(-0.5, abs=1e-3)
    assert shapes["V1"].st_mv == pytest.approx(0.2, abs=1e-3)
    assert (shapes["I"].net, shapes["I"].terminal) == pytest.approx((-1.0, -1.0), abs=1e-3)
    assert measure_leads(ECG(signal, 500.0, record_name="made"), [(1.9, 2.0)]) == {}, "its ST segment lies outside"


def test_times_are_those_of_the_simulator():
    truth, facts = simulated_truth("PVC/3"), simulate("PVC", seed=3).metadata
    assert [(beat.qrs_s[0], beat.kind) for beat in truth.beats] == list(facts["beats"])
    for beat in truth.beats:
        ms = 1000 * (beat.qrs_s[1] - beat.qrs_s[0])
        assert ms == pytest.approx(facts["ectopic_qrs_ms" if beat.kind == "V" else "qrs_ms"])
        if beat.kind == "V":
            assert beat.p_s is None
        else:
            assert 1000 * (beat.qrs_s[0] - beat.p_s) == pytest.approx(facts["pr_ms"])
            assert 1000 * (beat.t_s - beat.qrs_s[0]) == pytest.approx(facts["qt_ms"])
    assert truth.premature
    assert (simulated_truth("AF/0").has_p, simulated_truth("AF/0").pr_ms) == (False, None)


@pytest.mark.parametrize(("label", "vectors"), [("STE", "_ELEVATION"), ("STD", "_DEPRESSION")])
def test_st_levels_follow_the_injury_vector(label, vectors):
    """An independent way to the same levels: Dower's matrix times the wall's vector, up to the drawn size."""
    from hf_evl_ecg.signals import morphology

    for seed in range(8):
        quiet = simulate(label, seed=seed, config=SimulationConfig(wander_mv=0, mains_mv=0, muscle_mv=0))
        vector = DOWER @ np.array(getattr(morphology, vectors)[quiet.metadata["territory"]])
        shapes = simulated_truth(f"{label}/{seed}").shapes
        found = np.array([shapes[lead].st_mv for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")])
        size = found @ vector / (vector @ vector)
        assert 0.75 < size < 1.6, "drawn between 0.8 and 1.5, and the T wave begins in the ST segment"
        assert np.abs(found - size * vector).max() < 0.04


def test_noise_does_not_change_the_truth():
    loud = simulate("LBBB", seed=2)
    quiet = simulated_truth("LBBB/2")
    shapes = measure_leads(loud, [beat.qrs_s for beat in quiet.beats])
    assert all(abs(shapes[lead].net - quiet.shapes[lead].net) < 0.25 for lead in ("I", "V1", "V6"))


def test_ludb_says_what_cardiologists_marked(data_dir):
    rows = {row["record"]: row for row in load_ludb(data_dir / "ecg" / "ludb")[0]}
    with_block = [row for row in rows.values() if "I-AVB" in row["labels"] and row["pr_interval"] > 215]
    assert len(with_block) >= 2
    for row in with_block:
        truth = ludb_truth(row)
        if truth.has_p:
            assert build_chain("first_degree_av_block", truth, row["record"], {}).present
    fibrillating = next(row for row in rows.values() if "AF" in row["labels"])
    truth = ludb_truth(fibrillating)
    assert (truth.has_p, truth.premature, truth.complete) == (False, None, False)
    assert build_chain("premature_atrial_complex", truth, "r", {}) is None, "LUDB does not say which beats are early"
    # Labelled as a right bundle branch block, marked and drawn as a left one: nothing is asked.
    assert build_chain("complete_right_bundle_branch_block", ludb_truth(rows["data/116"]), "data/116", {}) is None
