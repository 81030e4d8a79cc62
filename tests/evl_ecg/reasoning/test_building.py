"""Every answer of a chain is checked against the record by other means, and what the truth does not settle is not asked."""

import random
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hf_evl_ecg.reasoning import DIAGNOSES, ECGTruth, build_chain, build_chains, chains_of_record, simulated_truth
from hf_evl_ecg.reasoning.criteria import WALLS
from hf_evl_ecg.reasoning.grounding import time_step, value_step
from hf_evl_ecg.reasoning.truth import BeatTimes, LeadShape
from hf_evl_ecg.signals import STANDARD_LEADS, SimulationConfig, simulate
from hf_evl_ecg.signals.simulation import LABELS

QUIET = SimulationConfig(wander_mv=0, mains_mv=0, muscle_mv=0)
RECORDS = [f"{label}/{seed}" for label in LABELS for seed in range(4)]
LABEL_OF = {name: diagnosis.label for name, diagnosis in DIAGNOSES.items()}
FLAT = LeadShape(net=0.8, terminal=0.1, st_mv=0.0)


def by_hand(**changes) -> ECGTruth:
    """Sinus rhythm of 60 per minute: PR 160 ms, QRS 90 ms, QT 400 ms, nothing wrong with any lead."""
    beats = tuple(BeatTimes("N", (t, t + 0.09), t - 0.16, t + 0.4) for t in np.arange(0.5, 10, 1.0).tolist())
    known = frozenset(LABEL_OF.values())
    truth = ECGTruth(frozenset(), known, beats, True, False, 160.0, 90.0, dict.fromkeys(STANDARD_LEADS, FLAT))
    return replace(truth, **{k: frozenset(v) if k == "labels" else v for k, v in changes.items()})


def findings(name: str, truth: ECGTruth) -> list[str] | None:
    chain = build_chain(name, truth, "r", {})
    return None if chain is None else [s.answer_text for s in chain.steps if s.stage in ("finding", "decision")]


YES, NO, FURTHER = "Yes", "No", "Further findings are required to confirm the diagnosis"


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("first_degree_av_block", {"pr_ms": 201.0, "labels": ["I-AVB"]}, [YES, FURTHER, YES, YES]),
        ("first_degree_av_block", {"pr_ms": 199.0}, [YES, FURTHER, NO, NO]),
        ("first_degree_av_block", {"pr_ms": 201.0}, None),  # the label says otherwise
        ("first_degree_av_block", {"pr_ms": 195.0, "margin_ms": 10.0}, None),  # too close for boundaries drawn by hand
        ("first_degree_av_block", {"pr_ms": None, "has_p": False}, [NO, NO]),
        ("first_degree_av_block", {"has_p": None}, None),
        ("complete_left_bundle_branch_block", {"qrs_ms": 119.0}, [NO, NO]),
        ("complete_left_bundle_branch_block", {"qrs_ms": None}, None),
        ("atrial_fibrillation", {}, [NO, NO]),
        ("atrial_fibrillation", {"known": frozenset()}, None),
        ("premature_atrial_complex", {}, [NO, NO]),
        ("premature_atrial_complex", {"premature": None}, None),
    ],
)
def test_thresholds(name, changes, expected):
    assert findings(name, by_hand(**changes)) == expected


def leads(**st_mv) -> dict[str, LeadShape]:
    return {lead: replace(FLAT, st_mv=st_mv.get(lead, 0.0)) for lead in STANDARD_LEADS}


@pytest.mark.parametrize(
    ("name", "levels", "expected"),
    [
        ("inferior", {"II": 0.15, "aVF": 0.15}, YES),
        ("inferior", {"II": 0.15, "III": 0.15}, NO),  # no neighbours: aVF lies between them
        ("inferior", {"II": 0.15}, NO),
        ("inferior", {"II": 0.11, "aVF": 0.15}, None),  # 0.11 mV is no certain elevation
        ("anterior", {"V2": 0.15, "V3": 0.15}, NO),  # there 0.2 mV are needed
        ("anterior", {"V2": 0.25, "V3": 0.25}, YES),
        ("anterior", {"V1": 0.15, "V2": 0.25}, YES),
        ("lateral", {"I": 0.15, "V5": 0.15}, NO),
        ("lateral", {"V5": 0.15, "V6": 0.15}, YES),
    ],
)
def test_st_elevation_needs_two_neighbouring_leads(name, levels, expected):
    present = expected == YES
    truth = by_hand(shapes=leads(**levels), labels=["STE"] if present else [], territory=name if present else "")
    found = findings(f"{name}_myocardial_infarction", truth)
    assert found == (None if expected is None else [expected, expected])


def block(v1: tuple[float, float], lateral: tuple[float, float]) -> dict[str, LeadShape]:
    shapes = dict.fromkeys(STANDARD_LEADS, FLAT)
    return shapes | {"V1": LeadShape(*v1, 0.0)} | dict.fromkeys(("I", "V5", "V6"), LeadShape(*lateral, 0.0))


def test_bundle_branch_blocks_are_told_apart_by_their_leads():
    left = by_hand(qrs_ms=140.0, labels=["LBBB"], shapes=block((-0.9, -0.5), (0.9, 0.5)))
    right = by_hand(qrs_ms=140.0, labels=["RBBB"], shapes=block((0.4, 0.6), (0.1, -0.4)))
    assert findings("complete_left_bundle_branch_block", left) == [YES, FURTHER, YES, YES]
    assert findings("complete_right_bundle_branch_block", left) == [YES, FURTHER, NO, NO]
    assert findings("complete_right_bundle_branch_block", right) == [YES, FURTHER, YES, YES]
    unclear = replace(left, shapes=block((-0.2, -0.5), (0.9, 0.5)))
    assert findings("complete_left_bundle_branch_block", unclear) is None


def test_beats_that_nobody_marked_may_be_irregular():
    assert findings("atrial_fibrillation", by_hand(complete=False)) == [NO, NO]
    assert findings("atrial_fibrillation", by_hand(complete=False, labels=["PAC"])) is None
    assert value_step("rr", by_hand(complete=False), random.Random(0), 0) is None


@pytest.mark.parametrize("record", RECORDS)
def test_every_answer_about_a_simulated_record_is_right(record):
    label, seed = record.split("/")
    ecg = simulate(label, seed=int(seed), config=QUIET)
    facts = ecg.metadata
    onsets = [onset for onset, _ in facts["beats"]]
    chains = [chain for name in DIAGNOSES if (chain := build_chain(name, simulated_truth(record), record, {}))]
    assert any(chain.present for chain in chains) or label in ("NORM", "STE", "AF")
    for chain in chains:
        wall = chain.diagnosis.removesuffix("_myocardial_infarction")
        there = label == LABEL_OF[chain.diagnosis] and (wall not in WALLS or facts["territory"] == wall)
        assert chain.present == there
        assert chain.initial.answer_text == chain.steps[-1].answer_text == (YES if there else NO)
        for step in chain.steps:
            if step.stage == "wave":
                check_wave(step, facts, onsets)
            elif step.stage == "measurement":
                check_value(step, facts, onsets, ecg)
            elif step.stage == "lead":
                assert 0 < len(step.answer) < len(step.options)


def test_the_truth_settles_nearly_every_chain():
    asked = [build_chain(name, simulated_truth(record), record, {}) for record in RECORDS[::2] for name in DIAGNOSES]
    share = sum(chain is not None for chain in asked) / len(asked)
    assert 0.93 < share < 1.0, "of 25 records of each class 2,155 of 2,250"


def check_wave(step, facts, onsets):
    """By the simulator's beats: the right range has what is asked for, and no other one does."""

    def has(text):
        begin, end = map(float, re.findall(r"[\d.]+", text))
        for onset, kind in facts["beats"]:
            qrs = (facts["ectopic_qrs_ms"] if kind == "V" else facts["qrs_ms"]) / 1000
            inside = begin <= onset + 0.005 and onset + qrs <= end + 0.005
            if "premature" in step.question and inside:
                return kind != "N"
            if "whole QRS" in step.question and inside:
                return True
            if "P wave" in step.question and begin <= onset - facts["pr_ms"] / 1000 and onset <= end:
                return True
        return False

    if "longest" in step.question:
        longest = max(b - a for a, b in pairwise(onsets))
        lengths = [float(b) - float(a) for a, b in (re.findall(r"[\d.]+", text) for text in step.options)]
        assert lengths[min(step.answer)] == pytest.approx(longest, abs=0.011)
        assert sorted(lengths)[-2] < longest - 0.05
    else:
        assert [i for i, text in enumerate(step.options) if has(text)] == list(step.answer)


def check_value(step, facts, onsets, ecg):
    low, high = map(float, re.findall(r"[\d.]+", step.answer_text))
    early = [i for i, (_, kind) in enumerate(facts["beats"]) if kind != "N"]
    if "mV" in step.answer_text:
        lead = re.search(r"lead (\w+)", step.question).group(1)
        levels = []
        for onset in onsets:
            end = onset + facts["qrs_ms"] / 1000
            at = [round(t * ecg.fs_hz) for t in (onset - 0.01, end + 0.06)]
            if at[0] >= 0 and at[1] < len(ecg.signal_mv):
                levels.append(np.diff(ecg.signal_mv[at, STANDARD_LEADS.index(lead)])[0])
        assert low - 0.02 < abs(np.median(levels)) < high + 0.02
        return
    value = {
        "PR": lambda: facts["pr_ms"],
        "shortest": lambda: 1000 * min(b - a for a, b in pairwise(onsets)),
        "premature QRS complex fall": lambda: facts["ectopic_qrs_ms"],
        "before the first": lambda: 1000 * (onsets[early[0]] - onsets[early[0] - 1]),
        "of the QRS": lambda: facts["qrs_ms"],
    }
    names = [name for name in value if name in step.question]
    assert low <= value[names[0]]() < high, step.question


def test_options_hold_no_pattern():
    """The place of the right one among the options is no help: every place occurs, none in more than half of the questions."""
    chains = [chain for record in RECORDS for chain in chains_of_record(simulated_truth(record), record, {})]
    for stage in ("criterion", "wave", "measurement"):
        places = [min(step.answer) for chain in chains for step in chain.steps if step.stage == stage]
        counts = np.bincount(places)
        assert len(places) > 20
        assert counts.min() > 0, stage
        assert counts.max() < 0.55 * len(places), stage


def test_other_criteria_are_no_criteria_of_the_diagnosis():
    for diagnosis in DIAGNOSES.values():
        texts = {criterion.text for criterion in diagnosis.criteria}
        for criterion in diagnosis.criteria:
            assert len(set(criterion.others)) == len(criterion.others) >= 4
            assert not texts & set(criterion.others)


def test_the_same_record_is_asked_the_same(monkeypatch):
    first = build_chain("atrial_fibrillation", simulated_truth("AF/2"), "AF/2", {})
    assert build_chain("atrial_fibrillation", simulated_truth("AF/2"), "AF/2", {}) == first
    other = build_chain("atrial_fibrillation", simulated_truth("AF/2"), "AF/2", {}, seed=1)
    assert [s.answer_text for s in other.steps if s.stage == "decision"] == [FURTHER, YES]
    assert other != first


def test_too_few_ranges_are_not_asked_about():
    two = replace(by_hand(), beats=by_hand().beats[:2])
    assert time_step("early", two, random.Random(0), 0) is None
    assert time_step("rr", by_hand(), random.Random(0), 0) is None, "all intervals are the same"


def test_records_of_unknown_truth_are_left_out():
    row = {"record": "a", "source": "ptbxl", "storage": "wfdb", "root": "", "gain_per_mv": None}
    with pytest.raises(ValueError, match=r"simulated ones and LUDB's are needed \(hf-evl-ecg prepare"):
        build_chains([row])
    known = {**row, "record": "LBBB/1", "source": "simulated", "storage": "simulated"}
    chains = build_chains([row, known, known])
    assert {chain.record for chain in chains} == {"LBBB/1"}
    assert [chain.present for chain in chains] == [True, False]
