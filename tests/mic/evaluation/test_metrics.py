"""Score functions against hand-made values, SciPy, scikit-learn and slow loops."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from hf_mic.evaluation import metrics


def expand(values, counts):
    """The resample that a row of counts stands for, written out."""
    return np.repeat(np.asarray(values), counts)


@pytest.fixture
def tied():
    rng = np.random.default_rng(0)
    return rng.integers(0, 8, 60).astype(float), rng.normal(size=60).round(1), metrics.bootstrap_counts(60, 20, seed=3)


def test_truncate_renormalises_and_leaves_zero_rows():
    vectors = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 5.0]], dtype=np.float32)
    short = metrics.truncate(vectors, 2)
    np.testing.assert_allclose(short, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert short.dtype == np.float32
    np.testing.assert_allclose(metrics.truncate(metrics.normalize(vectors)[:1], 2), short[:1], rtol=1e-6)
    for dim in (0, 4):
        with pytest.raises(ValueError, match=r"must lie in \[1, 3\]"):
            metrics.truncate(vectors, dim)


def test_bootstrap_counts_are_resamples_of_the_right_size():
    counts = metrics.bootstrap_counts(50, 400, seed=1)
    assert counts.shape == (400, 50)
    assert (counts.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(counts, metrics.bootstrap_counts(50, 400, seed=1))
    assert (counts != metrics.bootstrap_counts(50, 400, seed=2)).any()
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # binomial(50, 1/50)


def test_spearman_equals_scipy_with_ties(tied):
    x, y, _ = tied
    assert metrics.spearman(x, y)[0] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.spearman([1, 2, 3, 4], [10, 30, 20, 40])[0] == pytest.approx(0.8)
    assert math.isnan(metrics.spearman([1, 1, 1], [1, 2, 3])[0])


def test_resampled_spearman_equals_scipy_on_each_resample(tied):
    x, y, counts = tied
    expected = [stats.spearmanr(expand(x, c), expand(y, c)).statistic for c in counts]
    np.testing.assert_allclose(metrics.spearman(x, y, counts), expected, atol=1e-12)


def test_average_precision_equals_sklearn_with_ties(tied):
    labels, scores, counts = (tied[0] > 4).astype(int), tied[1], tied[2]
    assert metrics.average_precision(scores, labels)[0] == pytest.approx(average_precision_score(labels, scores))
    expected = [average_precision_score(expand(labels, c), expand(scores, c)) for c in counts]
    np.testing.assert_allclose(metrics.average_precision(scores, labels, counts), expected, atol=1e-12)
    assert math.isnan(metrics.average_precision([0.1, 0.2], [1, 0], np.array([[0, 2]]))[0])


def test_mean_interval_matches_the_normal_approximation():
    values = np.random.default_rng(0).random(400) < 0.3
    low, high = metrics.mean_interval(values, metrics.bootstrap_counts(400, 4000))
    half = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert low == pytest.approx(values.mean() - half, abs=0.006)
    assert high == pytest.approx(values.mean() + half, abs=0.006)


def test_spearman_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered, truth = np.random.default_rng(5), 0, 6 / math.pi * math.asin(0.6 / 2)
    for trial in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=100).T
        low, high = metrics.percentile_interval(metrics.spearman(x, y, metrics.bootstrap_counts(100, 300, seed=trial)))
        covered += low <= truth <= high
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_beats_every_other_threshold(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random(40).round(1), rng.integers(0, 2, 40)

    def accuracy(threshold):
        return ((scores > threshold) == labels).mean()

    best = metrics.best_threshold(scores, labels)
    assert accuracy(best) == max(accuracy(t) for t in np.linspace(-1, 2, 601))


def test_best_threshold_by_hand():
    assert metrics.best_threshold([0.1, 0.4, 0.8], [0, 0, 1]) == pytest.approx(0.6)
    assert metrics.best_threshold([0.2, 0.3], [1, 1]) < 0.2
    assert metrics.best_threshold([0.2, 0.3], [0, 0]) > 0.3


def test_ties_go_to_the_higher_document_id_as_in_trec_eval():
    ids = ["10", "9", "2"]  # as strings: "9" > "2" > "10"
    ranking = metrics.rank_top_k(np.array([[0.5, 0.5, 0.5], [0.1, 0.5, 0.9]]), ids, 3)
    assert [[ids[i] for i in row] for row in ranking] == [["9", "2", "10"], ["2", "9", "10"]]
    assert metrics.rank_top_k(np.array([[0.5, 0.5, 0.5]]), ids, 1).tolist() == [[1]]


def test_ranking_equals_a_full_sort():
    rng = np.random.default_rng(0)
    scores, ids = rng.random((7, 50)).round(1), [str(i) for i in rng.permutation(50)]
    for k in (1, 10, 50, 99):
        slow = []
        for row in scores:
            order = sorted(range(50), key=lambda i: ids[i], reverse=True)
            slow.append(sorted(order, key=lambda i: -row[i])[:k])
        np.testing.assert_array_equal(metrics.rank_top_k(scores, ids, k), slow)


def slow_ndcg(ranking, relevance, k):
    def gain(grades):
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))

    found = [max(0, relevance.get(doc, 0)) for doc in ranking][:k]
    return gain(found) / gain(sorted((max(0, g) for g in relevance.values()), reverse=True)[:k])


def test_ndcg_and_recall_equal_a_slow_reference():
    rng = np.random.default_rng(1)
    for _ in range(30):
        relevance = {str(doc): int(grade) for doc, grade in zip(rng.permutation(30)[:15], rng.integers(-1, 4, 15))}
        relevance["0"] = 1
        ranking = [str(doc) for doc in rng.permutation(30)[: rng.integers(3, 30)]]
        for k in (1, 5, 10, 100):
            assert metrics.ndcg_at_k(ranking, relevance, k) == pytest.approx(slow_ndcg(ranking, relevance, k))
            relevant = [doc for doc, grade in relevance.items() if grade > 0]
            hits = sum(doc in ranking[:k] for doc in relevant)
            assert metrics.recall_at_k(ranking, relevance, k) == hits / len(relevant)


def test_ndcg_by_hand():
    assert metrics.ndcg_at_k(["x", "a"], {"a": 1}, 10) == pytest.approx(1 / math.log2(3))
    assert metrics.ndcg_at_k(["b", "a"], {"a": 2, "b": 1, "c": 0}, 10) == pytest.approx(
        (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    )
    assert metrics.ndcg_at_k(["x"], {"a": 1}, 10) == 0
    assert metrics.ndcg_at_k(["a"], {"a": 1, "b": 1}, 1) == 1
    assert metrics.recall_at_k(["a"], {"a": 1, "b": 1}, 1) == 0.5


def test_all_names_exist():
    assert all(callable(getattr(metrics, name)) for name in metrics.__all__)
