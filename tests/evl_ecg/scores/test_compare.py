"""Differences of two methods, paired by record."""

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.qa.bootstrap import bootstrap_weights
from hf_evl_ecg.qa.grading import candidate_answers
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.scoring import score_answers
from hf_evl_ecg.qa.task_scores import text_metric
from hf_evl_ecg.scores.compare import comparison_rows, gain_rows, paired_gains
from hf_evl_ecg.scores.tables import gain_table
from hf_evl_ecg.sources.simulated import load_simulated


@pytest.fixture(scope="module")
def items():
    rows, _ = load_simulated(12, split="test", classes=["AF", "LBBB", "NORM"])
    return list(question_dataset(rows, formats=["closed", "fill"], tasks=["rhythm", "axis"], classes=["AF", "LBBB"]))


def answers(items, seed, skill):
    """Likelihoods that point to the truth the more, the larger the skill."""
    rng = random.Random(seed)
    made = []
    for item in items:
        named = item["answer"].split(", ")
        made.append(
            Answer(item["record"], None, tuple(rng.gauss(skill * (c in named), 1) for c in candidate_answers(item)))
        )
    return made


def closed_auc(items, run, weights=None):
    rows = [i for i, item in enumerate(items) if item["format"] == "closed" and item["task"] == "rhythm"]
    truth = [items[i]["answer"] == "yes" for i in rows]
    margin = [run[i].scores[0] - run[i].scores[1] for i in rows]
    return roc_auc_score(truth, margin, sample_weight=None if weights is None else weights[rows])


def test_gains_are_differences_of_means_over_runs_resampled_together(items):
    ours, theirs = [answers(items, s, 1.5) for s in (0, 1)], [answers(items, 2, 0.5)]
    gain = paired_gains(items, ours, theirs, n_bootstrap=50)["simulated:rhythm_closed"]
    assert gain.value == pytest.approx(np.mean([closed_auc(items, r) for r in ours]) - closed_auc(items, theirs[0]))
    weights = bootstrap_weights([f"simulated:{item['record']}" for item in items], 50)
    drawn = [np.mean([closed_auc(items, r, w) for r in ours]) - closed_auc(items, theirs[0], w) for w in weights]
    assert (gain.ci_low, gain.ci_high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert gain.metric == "auc"


def test_a_method_gains_nothing_over_itself_and_pairs_make_intervals_narrow(items):
    run = answers(items, 0, 1.0)
    same = paired_gains(items, [run], [run], n_bootstrap=30)
    assert all((g.value, g.ci_low, g.ci_high) == (0, 0, 0) for g in same.values())
    assert {"simulated:rhythm_fill", "simulated:axis_fill", "simulated:diagnosis_classes"} <= set(same)
    nearly = [
        Answer(a.record, None, tuple(s + random.Random(i).gauss(0, 0.1) for s in a.scores)) for i, a in enumerate(run)
    ]
    narrow = paired_gains(items, [nearly], [run], n_bootstrap=200)["simulated:rhythm_closed"]
    apart = paired_gains(items, [answers(items, 5, 1.0)], [run], n_bootstrap=200)["simulated:rhythm_closed"]
    assert narrow.ci_high - narrow.ci_low < (apart.ci_high - apart.ci_low) / 2


def test_means_weigh_tasks_alike_and_mistakes_are_named(items):
    ours, theirs = [answers(items, 0, 1.5)], [answers(items, 2, 0.5)]
    own = ["simulated:rhythm_fill", "simulated:axis_fill"]
    found = paired_gains(items, ours, theirs, means={"fill": own}, n_bootstrap=20)
    assert found["fill"].value == pytest.approx(np.mean([found[task].value for task in own]))
    assert found["fill"].n == sum(found[task].n for task in own)
    assert found["fill"].metric == "mean_macro_auc"
    with pytest.raises(ValueError, match=r"means=\['x'\]: no such task"):
        paired_gains(items, ours, theirs, means={"fill": ["x"]})
    with pytest.raises(ValueError, match=r"theirs: .* answers of each run"):
        paired_gains(items, ours, [theirs[0][1:]])
    with pytest.raises(ValueError, match="ours: "):
        paired_gains(items, [], theirs)


def said(items, seed, skill):
    """Texts that are right as often as the skill says."""
    rng = random.Random(seed)
    return [
        Answer(item["record"], item["answer"] if rng.random() < skill else rng.choice(candidate_answers(item)))
        for item in items
    ]


def test_right_answers_are_compared_record_by_record(items):
    """A slow loop over resamples of records, each with all of its questions."""
    ours, theirs = [said(items, s, 0.9) for s in (0, 1)], [said(items, 2, 0.4)]
    gain = paired_gains(items, ours, theirs, measure=text_metric, n_bootstrap=40)["simulated:rhythm_closed"]
    rows = [i for i, item in enumerate(items) if item["format"] == "closed" and item["task"] == "rhythm"]

    def share(run, times):
        right = sum(times[items[i]["record"]] * (run[i].text == items[i]["answer"]) for i in rows)
        return right / sum(times[items[i]["record"]] for i in rows)

    def difference(times):
        return np.mean([share(run, times) for run in ours]) - share(theirs[0], times)

    weights = bootstrap_weights([f"simulated:{item['record']}" for item in items], 40)
    drawn = [difference({item["record"]: w for item, w in zip(items, row, strict=True)}) for row in weights]
    assert gain.value == pytest.approx(difference({item["record"]: 1 for item in items}))
    assert (gain.ci_low, gain.ci_high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert (gain.metric, gain.n) == ("accuracy", len(rows))


def test_right_answers_are_counted_as_in_the_tables(items):
    run = said(items, 3, 0.6)
    counted = paired_gains(items, [run], [said(items, 4, 0.0)], measure=text_metric, n_bootstrap=10)
    nothing = paired_gains(items, [said(items, 4, 0.0)], [run], measure=text_metric, n_bootstrap=10)
    scored = {
        row["task"]: row["value"]
        for row in score_answers(items, run, method="m", n_bootstrap=0)
        if row["metric"] == "accuracy"
    }
    other = {
        row["task"]: row["value"]
        for row in score_answers(items, said(items, 4, 0.0), method="m", n_bootstrap=0)
        if row["metric"] == "accuracy"
    }
    assert len(scored) >= 4
    for task, value in scored.items():
        assert counted[f"simulated:{task}"].value == pytest.approx(value - other[task])
        assert nothing[f"simulated:{task}"].value == pytest.approx(other[task] - value)


def test_a_gain_that_is_known():
    """Ours is always right, theirs on every second record: the difference is one half, in each resample what it draws."""
    items = [
        {
            "record": str(i),
            "source": "s",
            "format": "closed",
            "task": "rhythm",
            "question": str(i),
            "answer": "yes",
            "labels": ["AF"],
        }
        for i in range(100)
    ]
    right = [(item, Answer(item["record"], "yes")) for item in items]
    half = [(item, Answer(item["record"], "yes" if i % 2 else "no")) for i, item in enumerate(items)]
    (row,) = [r for r in gain_rows({"ours": [right], "theirs": [half[::-1]]}, ["theirs"], 500) if r["method"] == "ours"]
    assert (row["task"], row["metric"]) == ("s:rhythm_closed", "accuracy_gain_over_theirs")
    assert (row["value"], row["n"], row["seed"], row["above_chance"]) == (0.5, 100, None, True)
    # the share of records on which theirs is wrong is binomial: 0.5 ± 1.96 · sqrt(0.25 / 100)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.402, 0.598), abs=0.02)
    (fewer,) = [r for r in gain_rows({"ours": [right], "theirs": [half[:40]]}, ["theirs"], 10) if r["method"] == "ours"]
    assert fewer["n"] == 40, "questions that both have answered"


def test_differences_stand_in_a_table_of_their_own():
    common = {"task": "s:axis_fill", "n": 30, "seed": None}
    rows = [
        {**common, "method": "a", "metric": "auc_gain_over_c", "value": -0.05, "ci_low": -0.08, "ci_high": -0.01},
        {**common, "method": "b", "metric": "auc_gain_over_c", "value": 0.01, "ci_low": -0.02, "ci_high": 0.04},
        {**common, "method": "b", "metric": "auc", "value": 0.7, "ci_low": 0.6, "ci_high": 0.8},
    ]
    head, _, line, *_ = gain_table(rows).splitlines()
    assert head == "| task | metric | n | a − c | b − c |"
    assert line == "| s:axis_fill | auc | 30 | **-5.0 [-8.0, -1.0]** | +1.0 [-2.0, +4.0] |"


@pytest.mark.parametrize("labels", [[], ["AF"]])
def test_a_task_without_both_truths_has_no_ranking(labels):
    """Of one record there is nothing to rank, and a NaN would end the study when its results are written."""
    item = {
        "source": "a",
        "record": "r",
        "task": "diagnosis",
        "format": "open",
        "options": ["atrial fibrillation", "left bundle branch block"],
        "labels": labels,
    }
    item |= {"question": "Which?", "answer": "none of these", "value": None, "tolerance": None, "unit": None}
    assert candidate_answers(item)
    answer = Answer("r", None, tuple(-1.0 - i for i, _ in enumerate(candidate_answers(item))))
    assert comparison_rows([item], {"a": [[answer]], "b": [[answer]]}, over=["b"], n_bootstrap=10) == []
