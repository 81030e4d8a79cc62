"""Scores with float queries and stored rows: by hand, against slow references, and blind to the order of an index."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_mic.budgets.coders import Code, ScalarCoder, candidate_codes
from hf_mic.budgets.maps import Method, fit_mapping
from hf_mic.budgets.scoring import CodedTexts, few_shot_rows, nearest_label, score_coded
from hf_mic.evaluation.metrics import bootstrap_counts, ndcg_at_k, normalize
from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask, STSTask
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map

RANDOM = np.random.default_rng(0)
VECTORS = normalize(RANDOM.normal(size=(300, 6)) @ RANDOM.normal(size=(6, 16)) + 0.3).astype(np.float32)
NAMES = [f"t{i}" for i in range(len(VECTORS))]


def coded(coder):
    return CodedTexts({name: i for i, name in enumerate(NAMES)}, VECTORS, coder.queries, coder.index)


@pytest.fixture(scope="module")
def coder():
    return ScalarCoder(VECTORS, Code(8, 2))


def test_only_what_is_stored_is_rounded(coder):
    texts = coded(coder)
    queries, stored = texts.queries(NAMES), texts.stored(NAMES)
    np.testing.assert_allclose(queries, normalize(VECTORS[:, :8]), atol=1e-6)
    assert [len(np.unique(coder.index(VECTORS)[:, j])) for j in range(8)] == [4] * 8
    assert np.abs(queries - stored).max() > 0.05
    assert (queries * stored).sum(axis=1).mean() > 0.85


def test_sts_is_asymmetric_spearman(coder):
    gold = RANDOM.normal(size=150)
    task = STSTask("s", NAMES[:150], NAMES[150:], gold)
    (outcome,) = score_coded(task, coded(coder), bootstrap_counts(150, 20))
    decoded = normalize(coder.index(VECTORS[150:]))
    cosines = (normalize(VECTORS[:150, :8]) * decoded).sum(axis=1)
    assert outcome.value == pytest.approx(spearmanr(cosines, gold).statistic, abs=1e-6)
    assert outcome.resampled.shape == (20,)
    assert outcome.resampled.std() > 0.01


def test_ten_nearest_neighbours_against_a_slow_loop(coder):
    labels = [str(int(vector[0] > 0.3)) + str(int(vector[1] > 0.3)) for vector in VECTORS]
    task = ClassificationTask("c", NAMES[:200], labels[:200], NAMES[200:], labels[200:])
    (outcome,) = score_coded(task, coded(coder), bootstrap_counts(100, 5))
    stored = normalize(coder.index(VECTORS[:200]))
    right = 0
    for i in range(200, 300):
        nearest = sorted(range(200), key=lambda j: (-np.float32(normalize(VECTORS[i : i + 1, :8])[0] @ stored[j]), j))
        votes = [labels[j] for j in nearest[:10]]
        most = max(votes.count(label) for label in votes)
        right += next(label for label in votes if votes.count(label) == most) == labels[i]
    assert outcome.value == pytest.approx(right / 100, abs=0.011)  # one equal score may be rounded the other way
    assert outcome.value > 0.5


def test_probes_are_logistic_regressions_on_stored_vectors(coder):
    labels = ["a" if vector[0] > np.median(VECTORS[:, 0]) else "b" for vector in VECTORS]
    task = ClassificationTask("c", NAMES[:200], labels[:200], NAMES[200:], labels[200:])
    found = {o.metric: o for o in score_coded(task, coded(coder), bootstrap_counts(100, 5), probes=True)}
    assert set(found) == {"accuracy_10nn", "accuracy", "accuracy_few_shot"}
    assert found["accuracy"].value > 0.85
    assert 0.5 < found["accuracy_few_shot"].value <= found["accuracy"].value


def test_few_shot_draws():
    labels = ["a"] * 50 + ["b"] * 9 + ["c"] * 3
    draws = few_shot_rows(labels)
    assert len(draws) == 10
    assert {tuple(np.unique([labels[i] for i in rows], return_counts=True)[1]) for rows in draws} == {(8, 8, 3)}
    assert len({tuple(sorted(rows)) for rows in draws}) == 10
    assert all(np.array_equal(one, two) for one, two in zip(draws, few_shot_rows(labels), strict=True))


def test_retrieval_is_ndcg_of_the_cosines(coder):
    corpus = {f"d{i}": NAMES[i] for i in range(250)}
    relevant = {f"q{i}": {f"d{i}": 1.0, f"d{i + 1}": 2.0} for i in range(0, 200, 5)}
    queries = {query: NAMES[int(query[1:])] for query in relevant}
    task = RetrievalTask("r", corpus, queries, relevant)
    (outcome,) = score_coded(task, coded(coder), bootstrap_counts(40, 5))
    stored = normalize(coder.index(VECTORS[:250]))
    values = []
    for query, grades in relevant.items():
        cosines = stored @ normalize(VECTORS[[int(query[1:])], :8])[0]
        values.append(ndcg_at_k([f"d{i}" for i in np.argsort(-cosines, kind="stable")[:10]], grades, 10))
    assert outcome.value == pytest.approx(np.mean(values), abs=0.02)
    assert outcome.n == 40


def test_votes_of_equal_number_go_to_the_nearest():
    assert nearest_label(["b", "a", "a", "b"]) == "b"
    assert nearest_label(["c", "a", "a", "b"]) == "a"


@pytest.mark.parametrize("kind", ["truncation", "pca", "random"])
def test_maps_without_training_are_rotations(kind):
    mapped = fit_mapping(Method(kind), VECTORS)(VECTORS)
    np.testing.assert_allclose(mapped @ mapped.T, VECTORS @ VECTORS.T, atol=1e-5)


def test_principal_axes_come_in_order_and_centred_ones_have_no_mean():
    mapped = fit_mapping(Method("pca", centred=True), VECTORS)(VECTORS)
    assert np.abs(mapped.mean(axis=0)).max() < 1e-6
    spread = mapped.std(axis=0)
    assert (np.diff(spread) <= 1e-6).all()
    assert np.abs(fit_mapping(Method("pca"), VECTORS)(VECTORS).mean(axis=0)).max() > 0.05


def test_a_fitted_map_is_that_of_fit_map():
    config = {"dims": [2, 4], "batch_size": 32, "pool_size": 64, "steps": 3}
    mapped = fit_mapping(Method("map", config=config), VECTORS, seed=2)(VECTORS)
    expected = fit_map(VECTORS, AdaptConfig(**config, seed=2), progress=False).apply(VECTORS)
    # The map's own scale is not that of unit vectors; directions are the same.
    np.testing.assert_allclose(normalize(mapped), normalize(expected), atol=1e-5)


def test_candidates_are_those_of_most_dimensions():
    assert [(c.dims, c.bits, c.turned) for c in candidate_codes(Method("pca", turned=None), 384, 64)] == [
        (256, 2, False),
        (256, 2, True),
        (128, 4, False),
        (128, 4, True),
        (64, 8, False),
        (64, 8, True),
    ]
    assert candidate_codes(Method("truncation", bits=(32,)), 384, 64) == [Code(16, 32)]
    assert candidate_codes(Method("truncation", bits=(1,)), 384, 64) == []
    assert {code.bytes for code in candidate_codes(Method("truncation"), 384, 48)} == {48}


def test_settings_without_effect_are_refused():
    with pytest.raises(ValueError, match="centred=True has no effect with type='random'"):
        Method("random", centred=True)
    with pytest.raises(ValueError, match="config has no effect"):
        Method("pca", config={"steps": 3})
    with pytest.raises(ValueError, match="type"):
        Method("itq")


def test_product_quantisation_of_faiss():
    pytest.importorskip("faiss")
    from hf_mic.budgets.product import ProductCoder

    rows = np.tile(VECTORS, (4, 1)) + RANDOM.normal(scale=0.01, size=(1200, 16)).astype(np.float32)
    errors = {}
    for rotate in (False, True):
        coder = ProductCoder(rows, 4, rotate=rotate)
        decoded, turned = coder.index(VECTORS), coder.queries(VECTORS)
        np.testing.assert_allclose(turned @ turned.T, VECTORS @ VECTORS.T, atol=1e-4)
        assert all(len(np.unique(decoded[:, j : j + 4], axis=0)) <= 256 for j in range(0, 16, 4))
        errors[rotate] = np.square(decoded - turned).sum(axis=1).mean()
    assert errors[True] < errors[False] < 0.2
    with pytest.raises(ValueError, match="size=5"):
        ProductCoder(rows, 5)
