"""Scores against scikit-learn and slow loops, with weights as repetition, and intervals that cover."""

import numpy as np
import pytest
from sklearn import metrics as reference

from hf_evl_ecg.qa.bootstrap import bootstrap_weights, estimate
from hf_evl_ecg.qa.calibration import (
    best_thresholds,
    expected_calibration_error,
    fit_temperature,
    option_probabilities,
    reliability_bins,
)
from hf_evl_ecg.qa.metrics import (
    accuracy,
    balanced_accuracy,
    best_constant,
    class_f1,
    exact_match,
    hamming_loss,
    macro_auc,
    macro_f1,
    mean_absolute_error,
    pairs_told_apart,
    roc_auc,
    within_tolerance,
)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    truth = rng.random((60, 4)) < [0.1, 0.3, 0.5, 0.9]
    scores = np.round(truth + rng.normal(size=truth.shape), 1)  # with ties
    return truth, scores, scores > 0.5


def test_against_scikit_learn(drawn):
    truth, scores, predicted = drawn
    assert macro_auc(truth, scores) == pytest.approx(reference.roc_auc_score(truth, scores, average="macro"))
    assert class_f1(truth, predicted) == pytest.approx(reference.f1_score(truth, predicted, average=None))
    assert macro_f1(truth, predicted) == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert hamming_loss(truth, predicted) == pytest.approx(reference.hamming_loss(truth, predicted))
    assert exact_match(truth, predicted) == pytest.approx(reference.accuracy_score(truth, predicted))
    a, b = truth.argmax(1), predicted.argmax(1)
    assert balanced_accuracy(a, b) == pytest.approx(reference.balanced_accuracy_score(a, b))


def test_a_weight_is_a_repetition(drawn):
    truth, scores, predicted = drawn
    weights = bootstrap_weights(np.repeat(np.arange(20), 3), 8, seed=1)
    again = [np.repeat(np.arange(60), row.astype(int)) for row in weights]
    a, b = truth.argmax(1), predicted.argmax(1)
    pairs = [
        (lambda i, w: macro_auc(truth[i], scores[i], w)),
        (lambda i, w: macro_f1(truth[i], predicted[i], w)),
        (lambda i, w: hamming_loss(truth[i], predicted[i], w)),
        (lambda i, w: exact_match(truth[i], predicted[i], w)),
        (lambda i, w: balanced_accuracy(a[i], b[i], w)),
        (lambda i, w: mean_absolute_error(scores[i, 0], scores[i, 1], w)),
        (lambda i, w: within_tolerance(scores[i, 0], scores[i, 1], np.full(len(i), 0.5), w)),
        (lambda i, w: expected_calibration_error(np.clip(scores[i, 0], 0, 1), truth[i, 0], w)),
    ]
    for metric in pairs:
        together = metric(np.arange(60), weights)
        apart = [metric(rows, None) for rows in again]
        assert together == pytest.approx(apart)


def test_auc_by_hand_and_its_invariances(drawn):
    assert roc_auc([True, False], [1, 0]) == 1
    assert roc_auc([True, False], [0, 0]) == 0.5
    assert np.isnan(roc_auc([True, True], [0, 1]))
    with pytest.raises(ValueError, match="not finite"):
        roc_auc([True, False], [np.nan, 0])
    truth, scores, _ = drawn
    slow = np.mean([(p > n) + 0.5 * (p == n) for p in scores[truth[:, 1], 1] for n in scores[~truth[:, 1], 1]])
    assert roc_auc(truth[:, 1], scores[:, 1]) == pytest.approx(slow)
    assert roc_auc(truth[:, 1], np.exp(scores[:, 1])) == pytest.approx(slow)
    assert roc_auc(~truth[:, 1], -scores[:, 1]) == pytest.approx(slow)


def test_resamples_keep_records_together_and_are_seeded():
    groups = ["r1", "r1", "r2", "r3"]
    weights = bootstrap_weights(groups, 500, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(1) == 3).all()
    assert weights[:, 2].mean() == pytest.approx(1, abs=0.15)
    assert (weights == bootstrap_weights(groups, 500, seed=0)).all()
    assert (weights != bootstrap_weights(groups, 500, seed=1)).any()


def test_the_interval_covers_and_widens_with_correlated_questions():
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(100):
        correct = rng.random(80) < 0.7
        found = estimate(lambda w, c=correct: accuracy(c, w), 80, bootstrap_weights(range(80), 300, trial))
        inside += found.ci_low <= 0.7 <= found.ci_high
    assert 86 <= inside <= 100
    same = np.repeat(rng.random(20) < 0.5, 10)  # ten questions of a record, all right or all wrong
    by_record = estimate(lambda w: accuracy(same, w), 200, bootstrap_weights(np.repeat(range(20), 10), 500))
    by_item = estimate(lambda w: accuracy(same, w), 200, bootstrap_weights(range(200), 500))
    assert by_record.ci_high - by_record.ci_low > 2 * (by_item.ci_high - by_item.ci_low)


def test_above_chance_is_decided_by_the_interval():
    truth = np.array(["a"] * 60 + ["b"] * 40)
    weights = bootstrap_weights(range(100), 500)
    constant = best_constant(truth)
    assert constant.sum() == 60

    def judge(correct):
        return estimate(lambda w: accuracy(correct, w), 100, weights, lambda w: accuracy(constant, w))

    assert judge(constant).above_chance is False  # the constant answer itself
    assert judge(np.arange(100) % 10 < 9).above_chance is True
    assert judge(np.arange(100) % 10 < 6).chance == pytest.approx(0.6)
    errors = estimate(lambda w: 1 - accuracy(constant, w), 100, weights, 0.9, lower_is_better=True)
    assert errors.above_chance is True
    assert estimate(lambda w: roc_auc(np.ones(3, bool), np.arange(3.0), w), 3, None) is None


def test_the_best_constant_value_is_the_best():
    rng = np.random.default_rng(2)
    values = rng.normal(70, 20, 50)
    best = best_constant(values, np.full(50, 5.0)).sum()
    slow = max((np.abs(values - c) <= 5).sum() for c in np.arange(0, 150, 0.01))
    assert best == slow


def test_calibration_against_a_slow_loop_and_by_hand():
    rng = np.random.default_rng(4)
    confidence, correct = rng.random(200), rng.random(200) < 0.6
    slow = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        slow += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert expected_calibration_error(confidence, correct) == pytest.approx(slow)
    bins = reliability_bins(confidence, correct)
    assert sum(b["n"] for b in bins) == 200
    assert reliability_bins([1.0, 0.96], [True, False])[-1] == {
        "low": 0.9, "high": 1.0, "n": 2, "confidence": 0.98, "accuracy": 0.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="0 to 1"):
        reliability_bins([1.5], [True])


def test_a_temperature_is_found_that_was_applied():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(4000, 3)) * 2
    target = np.array([rng.choice(3, p=p) for p in option_probabilities(logits)])
    assert fit_temperature(logits * 2.5, target) == pytest.approx(2.5, rel=0.1)
    padded = np.c_[logits * 2.5, np.full(4000, -np.inf)]
    assert fit_temperature(padded, target) == pytest.approx(fit_temperature(logits * 2.5, target), rel=1e-3)


def test_thresholds_reach_the_best_f1(drawn):
    truth, scores, _ = drawn
    found = best_thresholds(truth, scores)
    got = class_f1(truth, scores >= found)
    for column in range(truth.shape[1]):
        tried = [reference.f1_score(truth[:, column], scores[:, column] >= t) for t in np.unique(scores[:, column])]
        assert got[column] == pytest.approx(max(tried))
    assert np.isinf(best_thresholds(np.zeros((3, 1), bool), np.arange(3.0)[:, None])).all()


def test_pairs_told_apart_counts_every_opposite_pair_of_a_record():
    rng = np.random.default_rng(0)
    records = rng.integers(0, 7, 60)
    truth, said = rng.random(60) < 0.4, rng.random(60) < 0.5
    pairs = [(i, j) for i in range(60) for j in range(60) if records[i] == records[j] and truth[i] and not truth[j]]
    slow = np.mean([said[i] != said[j] for i, j in pairs])
    assert pairs_told_apart(records, truth, said) == pytest.approx(slow)
    weights = bootstrap_weights(records, 5)
    counted = [np.average([said[i] != said[j] for i, j in pairs], weights=[w[i] for i, _ in pairs]) for w in weights]
    np.testing.assert_allclose(pairs_told_apart(records, truth, said, weights), counted)
    assert pairs_told_apart(records, truth, np.ones(60)) == 0, "the same to everything: nobody listens"
    assert pairs_told_apart(records, truth, truth) == 1
    assert np.isnan(pairs_told_apart([1, 2], [True, False], [True, False]))
