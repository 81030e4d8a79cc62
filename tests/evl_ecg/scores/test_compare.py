"""Differences of two methods, paired by record."""

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.data.simulated import load_simulated
from hf_evl_ecg.qa.bootstrap import bootstrap_weights
from hf_evl_ecg.qa.grading import candidate_answers
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.scores.compare import paired_gains


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
