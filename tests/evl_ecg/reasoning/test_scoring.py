"""Answers are read strictly, and a chain ends with its first error: values counted by hand."""

import math

import pytest

from hf_evl_ecg.reasoning import Chain, ChainAnswers, Step, grade_chain, reasoning_table, score_chains
from hf_evl_ecg.reasoning.chains import yes_no
from hf_evl_ecg.reasoning.reading import read_step

CRITERION = Step("criterion", "Which?", ("Long PR", "Short PR", "Wide QRS", "Low voltage", "Tall T"), frozenset({0}), 0)
WAVE = Step(
    "wave", "Where?", ("[1.12s - 1.24s]", "[1.71s - 1.92s]", "[7.95s - 8.12s]", "[9.11s - 9.43s]"), frozenset({1}), 1
)
LEADS = Step("lead", "Which leads?", ("Lead I", "Lead II", "Lead aVL", "Lead V1"), frozenset({0, 3}), 1)
VALUE = Step("measurement", "How long?", ("[200ms - 240ms]", "[240ms - 280ms]"), frozenset({0}), 1)
DECISION = yes_no("decision", "Is it?", None, 0)


@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        (CRITERION, "A", {0}),
        (CRITERION, "A. Long PR", {0}),
        (CRITERION, "**Long PR**", {0}),
        (CRITERION, "The criterion is Wide QRS.", {2}),
        (CRITERION, "A. Wide QRS", None),
        (CRITERION, "A or B", None),
        (CRITERION, "", None),
        (CRITERION, "I cannot tell", None),
        (WAVE, "[1.71s - 1.92s]", {1}),
        (WAVE, "1.71s - 1.92s", {1}),
        (WAVE, "B", {1}),
        (WAVE, "[1.71s - 1.93s]", None),
        (VALUE, "B. [240ms - 280ms]", {1}),
        (DECISION, "Further findings are required", {2}),
        (DECISION, "C", {2}),
        (DECISION, "No, it is not.", {1}),
        (DECISION, "Yes, but further findings are required", None),
        (DECISION, "Perhaps", None),
        (LEADS, "A, D", {0, 3}),
        (LEADS, "Lead I, Lead V1", {0, 3}),
        (LEADS, "I and V1", {0, 3}),
        (LEADS, "A. Lead I\nD. Lead V1", {0, 3}),
        (LEADS, "The leads are: I, V1.", {0, 3}),
        (LEADS, "I think V1", None),
        (LEADS, "V1 but not I", None),
        (LEADS, "A. Lead V1", None),
        (LEADS, "Lead V2", None),
        (LEADS, "", None),
    ],
)
def test_answers_are_read_strictly(step, text, expected):
    assert read_step(text, step) == (None if expected is None else frozenset(expected))


def chain(record="r1") -> Chain:
    steps = (
        CRITERION,
        yes_no("finding", "Is there?", True, 0),
        DECISION,
        Step("criterion", "Which next?", CRITERION.options, frozenset({1}), 1),
        yes_no("finding", "Is there?", True, 1),
        LEADS,
        WAVE,
        VALUE,
        yes_no("decision", "Is it now?", True, 1),
    )
    return Chain(record, "first_degree_av_block", True, yes_no("initial", "Is it?", True), steps, {})


RIGHT = ("A", "Yes", "C", "B", "Yes", "A, D", "B", "A", "Yes")


def answered(record="r1", initial="Yes", **wrong) -> ChainAnswers:
    texts = [wrong.get(f"s{i}", text) for i, text in enumerate(RIGHT)]
    return ChainAnswers(chain(record), initial, tuple(texts))


def test_a_chain_ends_with_its_first_error():
    graded = grade_chain(answered())
    assert (graded.complete, graded.before_error, graded.depths) == (True, 9, [4])
    graded = grade_chain(answered(s7="B"))
    assert (graded.complete, graded.before_error, graded.depths) == (False, 7, [2]), "grounding is passed as a whole"
    graded = grade_chain(answered(s1="No"))
    assert (graded.before_error, graded.depths) == (1, [0]), "nothing counts behind an error in a loop before"
    assert grade_chain(answered(s8="C")).depths == [3]


def test_scores_are_those_counted_by_hand():
    answers = [answered("r1"), answered("r2", initial="perhaps", s5="A, B", s8="No")]
    rows = {row["metric"]: row for row in score_chains(answers, task="reasoning", method="m", n_bootstrap=0)}
    values = {metric: row["value"] for metric, row in rows.items()}
    assert values == pytest.approx(
        {
            "initial_accuracy": 1 / 2,
            "criterion_accuracy": 1.0,
            "finding_accuracy": 1.0,
            "lead_accuracy": 1 / 2,
            "wave_accuracy": 1.0,
            "measurement_accuracy": 1.0,
            "grounding_accuracy": 5 / 6,
            "decision_accuracy": 3 / 4,
            "final_accuracy": 1 / 2,
            "completion": 1 / 2,
            "alignment": 1 / 2,
            "progress": (9 + 5) / 18,
            "depth": (4 + 2) / 2,
            "unparsed": 1 / 20,
        }
    )
    assert (rows["criterion_accuracy"]["n"], rows["completion"]["n"], rows["unparsed"]["n"]) == (4, 2, 20)
    # options drawn evenly: 1/5, 1/2, 1/3, then 1/5, 1/2, leads 1/16, 1/4, 1/2, 1/3
    chances = [1 / 5, 1 / 2, 1 / 3, 1 / 5, 1 / 2, 1 / 16, 1 / 4, 1 / 2, 1 / 3]
    until = [math.prod(chances[: i + 1]) for i in range(9)]
    assert rows["completion"]["chance"] == pytest.approx(until[-1])
    assert rows["progress"]["chance"] == pytest.approx(sum(until) / 9)
    assert rows["depth"]["chance"] == pytest.approx(until[3] + until[4] + until[7] + until[8])
    assert rows["unparsed"]["chance"] is None
    text = reasoning_table(list(rows.values()))
    assert "| reasoning | depth | m | 2 | 3.00 | 0.01 |" in text
    assert "| reasoning | unparsed | m | 20 | 5.0 | – |" in text


def test_chance_is_what_guessing_gives():
    """An independent way: chains answered by drawing options."""
    import numpy as np

    rng, answers = np.random.default_rng(0), []
    for number in range(4000):
        texts = []
        for step in (chain().initial, *chain().steps):
            if step.stage == "lead":
                texts.append(", ".join(np.array(list("ABCD"))[rng.random(4) < 0.5]))
            else:
                texts.append("ABCDE"[rng.integers(len(step.options))])
        answers.append(ChainAnswers(chain(f"r{number}"), texts[0], tuple(texts[1:])))
    for row in score_chains(answers, task="reasoning", method="guess", n_bootstrap=0):
        if row["chance"] is not None:
            spread = 4 * math.sqrt(max(row["chance"], 1e-3) / row["n"])
            assert row["value"] == pytest.approx(row["chance"], abs=spread), row["metric"]


def test_intervals_resample_records_and_diagnoses_have_rows(tmp_path):
    answers = [answered(f"r{n}", **({} if n % 2 else {"s0": "B"})) for n in range(20)]
    rows = score_chains(answers, task="reasoning", method="m", seed=3, n_bootstrap=200)
    found = {row["metric"]: row for row in rows}["completion"]
    assert found["ci_low"] < 0.5 < found["ci_high"]
    assert found["above_chance"]
    assert {row["seed"] for row in rows} == {3}
    assert {row["task"] for row in rows} == {"reasoning"}, "one diagnosis needs no row of its own"
    with pytest.raises(ValueError, match="there are no answers to score"):
        score_chains([], task="reasoning", method="m")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("where", "?", ("a", "b"), frozenset({0})), "stage='where'"),
        (("wave", "?", ("a",), frozenset({0})), "1 options"),
        (("wave", "?", ("a", "a"), frozenset({0})), "each must be another one"),
        (("wave", "?", ("a", "b"), frozenset({0, 1})), r"answer=\[0, 1\]"),
        (("lead", "?", ("a", "b"), frozenset({2})), r"answer=\[2\]"),
        (("lead", "?", ("a", "b"), frozenset()), r"answer=\[\]"),
    ],
)
def test_wrong_steps_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Step(*given)
