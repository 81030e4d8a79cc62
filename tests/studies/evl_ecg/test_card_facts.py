"""studies/evl_ecg/card_facts.py: answers → reliability and failure cases; models are described in test_card_data.py."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.inference.answer_file import AnswerFile
from hf_evl_ecg.qa.calibration import expected_calibration_error
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.items import closed_question, measurement_question, open_question
from hf_evl_ecg.qa.scoring import score_answers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import study_module

facts = study_module("card_facts")


def make_pairs(count=60):
    """Questions of three kinds with answers of random confidence."""
    generator, rng, pairs = np.random.default_rng(0), random.Random(0), []
    for i in range(count):
        record, source = f"r{i}", ("ludb", "simulated")[i % 2]
        asked = [
            closed_question(record, "rhythm", "AF", bool(generator.random() < 0.5), rng),
            open_question(record, "axis", ["LAD" if generator.random() < 0.5 else "AXN"], rng),
            measurement_question(record, "heart_rate", 40.0 + i, "fill", rng),
        ]
        for item in asked:
            count_of_answers = {"closed": 2, "open": 3, "fill": 0}[item["format"]]
            scores = tuple(-generator.exponential(1.0, count_of_answers).round(3))
            text = {
                "closed": ("yes", "no")[int(bool(scores) and scores[1] > scores[0])],
                "open": "left axis deviation",
                "fill": "75 bpm",
            }
            pairs.append(({**item, "source": source}, Answer(record, text[item["format"]], scores)))
    return pairs


def test_reliability_agrees_with_the_scores():
    pairs = make_pairs()
    tables = facts.reliability_tables(pairs)
    assert {(t["source"], t["task"]) for t in tables} >= {("ludb", "rhythm_closed"), ("simulated", "rhythm_closed")}
    for table in tables:
        own = [(item, answer) for item, answer in pairs if item["source"] == table["source"]]
        rows = score_answers([i for i, _ in own], [a for _, a in own], method="x", n_bootstrap=0)
        scored = [r["value"] for r in rows if (r["task"], r["metric"]) == (table["task"], "calibration_error")]
        filled = [b for b in table["bins"] if b["n"]]
        gap = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in filled) / table["n"]
        assert scored == pytest.approx([gap])
        assert sum(b["n"] for b in filled) == table["n"]
    assert expected_calibration_error([0.9], [True]) == pytest.approx(0.1)


def test_failures_follow_their_rule():
    pairs = make_pairs()
    cases = facts.failure_cases(pairs)
    assert {case["source"] for case in cases} == {"ludb"}, "simulated records only where nothing else is there"
    assert len({case["task"] for case in cases}) == len(cases) == 3
    for case in cases:
        item, answer = pairs[case["index"]]
        assert (item["record"], item["question"], answer.text) == (case["record"], case["question"], case["answered"])
    (closed,) = [case for case in cases if case["task"] == "rhythm_closed"]
    sure = [1 / (1 + np.exp(-abs(a.scores[0] - a.scores[1]))) for i, a in pairs
            if i["format"] == "closed" and i["source"] == "ludb" and i["answer"] != a.text]  # fmt: skip
    assert closed["probability"] == pytest.approx(max(sure), abs=1e-4)
    (rate,) = [case for case in cases if case["task"] == "heart_rate_fill"]
    assert rate["expected"].startswith("40 "), "furthest from 75"
    assert rate["probability"] is None
    assert facts.failure_cases([pair for pair in pairs if pair[0]["source"] == "simulated"])
    assert len(facts.failure_cases(pairs, limit=1)) == 1
    right = [(item, Answer("r", item["answer"], ())) for item, _ in pairs if item["format"] == "closed"]
    assert facts.failure_cases(right) == []


def test_answers_are_read_back(tmp_path):
    rng = random.Random(0)
    items = [{"source": "ludb", **closed_question(f"r{i}", "rhythm", "AF", i % 2 == 0, rng)} for i in range(3)]
    written = {example_key(item): Answer(item["record"], "yes", (-0.1, -2.4)) for item in items[:2]}
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, {"max_new_tokens": 2}).add(written, dict.fromkeys(written, "0" * 16))
    assert facts.read_answers(path, items) == list(zip(items[:2], written.values(), strict=True)), "the third has none"
    with pytest.raises(ValueError, match="answers none of the 1 questions"):
        facts.read_answers(path, [{**items[0], "record": "other"}])
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(ValueError, match="line 4 is no answer"):
        facts.read_answers(path, items)
