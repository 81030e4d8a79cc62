"""Funnels: what they find, what they read, whose indexes may come first."""

import numpy as np
import pytest

from hf_mic import Compressor
from hf_mic.frozen import AdaptConfig
from hf_mic.search import CodedStage, FaissStage, Funnel, UsearchStage, VectorStage

WIDTH = 32


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 6)) @ random.normal(size=(6, WIDTH))
    rows = np.repeat(centres, 25, axis=0) + 0.4 * random.normal(size=(1000, WIDTH))
    return (rows * random.uniform(0.5, 2, (1000, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors):
    return vectors[::50] + 0.3 * np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def coded(vectors):
    quick = AdaptConfig(steps=5, batch_size=64, pool_size=128)
    small, large = (Compressor.fit(vectors, size, config=quick) for size in (2, 8))
    return [CodedStage(one, one.transform(vectors)) for one in (small, large)]


def exact(queries, vectors, k):
    """Slow reference."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = asked @ unit.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


def recall(found, wanted):
    return np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, wanted, strict=True)])


def test_floats_alone_are_exact_search(queries, vectors):
    found = Funnel([VectorStage(vectors)]).search(queries, k=7)
    scores, rows = exact(queries, vectors, 7)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert found.bytes_read == (1000 * WIDTH * 4,)


def test_shortlists_of_everything_lose_nothing(queries, vectors, coded):
    found = Funnel([*coded, VectorStage(vectors)], [1000, 1000]).search(queries, k=10)
    np.testing.assert_array_equal(found.rows, exact(queries, vectors, 10)[1])


def test_each_stage_ranks_what_the_one_before_left(queries, vectors, coded):
    """By the definition, with numpy alone between the stages."""
    found = Funnel([*coded, VectorStage(vectors)], [200, 40]).search(queries, k=5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for i, query in enumerate(queries):
        left = np.argsort(-coded[0].compressor.scores(query[None], coded[0].codes)[0], kind="stable")[:200]
        again = coded[1].compressor.scores(query[None], coded[1].codes)[0]
        left = sorted(left, key=lambda row: (-again[row], row))[:40]
        left = sorted(left, key=lambda row: (-unit[row] @ query, row))[:5]
        assert list(found.rows[i]) == left
    assert found.bytes_read == (1000 * 2, 200 * 8, 40 * WIDTH * 4)
    np.testing.assert_allclose(found.scores, np.take_along_axis(exact(queries, vectors, 1000)[0], np.argsort(exact(queries, vectors, 1000)[1], 1), 1)[np.arange(20)[:, None], found.rows], atol=1e-6)  # fmt: skip


def test_deeper_funnels_find_more(queries, vectors, coded):
    wanted = exact(queries, vectors, 10)[1]
    found = [recall(coded[0].best(queries, 10)[1], wanted)]
    found += [
        recall(Funnel([coded[0], VectorStage(vectors)], [size]).search(queries).rows, wanted)
        for size in (10, 50, 300, 1000)
    ]
    assert found[0] == found[1]  # ten in another order
    assert found == sorted(found)
    assert found[2] > found[0] + 0.05
    assert found[-1] == 1.0


def test_only_the_shortlist_of_a_memory_map_is_read(queries, vectors, coded, tmp_path):
    np.save(tmp_path / "v.npy", vectors.astype(np.float16))
    stage = VectorStage(np.load(tmp_path / "v.npy", mmap_mode="r"))
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            read.append(key)
            return np.asarray(self).__getitem__(key)

    stage.vectors = np.asarray(stage.vectors).view(Watched)
    found = Funnel([coded[1], stage], [30]).search(queries[:2], k=5)
    assert [len(rows) for rows in read] == [30, 30]
    assert all((np.diff(rows) > 0).all() for rows in read)  # in the order of the file
    assert {*found.rows[0]} <= {*read[0]}
    assert found.bytes_read[1] == 30 * WIDTH * 2


def test_equal_rows_come_in_their_order(vectors):
    twice = np.concatenate([vectors[:20], vectors[:20]])
    found = Funnel([VectorStage(twice), VectorStage(twice)], [10]).search(vectors[:4], k=2)
    np.testing.assert_array_equal(found.rows, [[i, i + 20] for i in range(4)])


def test_what_cannot_be_searched_is_refused(queries, vectors, coded):
    for stages, shortlists, message in (
        ([], [], "at least one stage"),
        ([coded[0], VectorStage(vectors[:9])], [5], r"they hold \[1000, 9\] rows"),
        ([coded[0], VectorStage(vectors)], [], "must be 1 descending numbers"),
        ([*coded, VectorStage(vectors)], [10, 20], "must be 2 descending numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            Funnel(stages, shortlists)
    funnel = Funnel([coded[0], VectorStage(vectors)], [20])
    with pytest.raises(ValueError, match=r"k=21: must lie in \[1, 20\]"):
        funnel.search(queries, k=21)
    for stages in ([VectorStage(vectors)], [coded[0]], [coded[0], VectorStage(vectors)]):
        with pytest.raises(ValueError, match=r"must have shape \(N, 32\), got \(20, 31\)"):
            Funnel(stages, [20] * (len(stages) - 1)).search(queries[:, :31])
    with pytest.raises(ValueError, match="no queries"):
        funnel.search(queries[:0])
    with pytest.raises(ValueError, match="row 1 is zero"):
        funnel.search(queries * (np.arange(20)[:, None] != 1))
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, 2\), got uint8 of shape \(1000, 8\)"):
        CodedStage(coded[0].compressor, coded[1].codes)


def test_faiss_may_come_first(queries, vectors):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed (extra search)")
    faiss.omp_set_num_threads(1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = exact(queries, vectors, 10)[1]
    flat = faiss.IndexScalarQuantizer(WIDTH, faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT)
    flat.train(unit)
    flat.add(unit)
    found = Funnel([FaissStage(flat), VectorStage(vectors)], [100]).search(queries)
    assert recall(found.rows, wanted) > 0.95
    assert found.bytes_read == (1000 * WIDTH / 2, 100 * WIDTH * 4)
    binary = faiss.IndexBinaryFlat(WIDTH)
    binary.add(np.packbits(unit > 0, axis=1))
    stage = FaissStage(binary, lambda rows: np.packbits(rows > 0, axis=1))
    scores, rows, read = stage.best(queries, 1000)
    assert read == 1000 * WIDTH / 8
    assert (np.diff(scores, axis=1) <= 0).all()
    signs = (queries[0] > 0) != (unit[rows[0]] > 0)
    np.testing.assert_array_equal(-scores[0], signs.sum(axis=1))
    graph = faiss.IndexHNSWFlat(WIDTH, 16, faiss.METRIC_INNER_PRODUCT)
    graph.add(unit)
    found = Funnel([FaissStage(graph), VectorStage(vectors)], [100]).search(queries)
    assert recall(found.rows, wanted) > 0.9
    assert np.isnan(found.bytes_read[0])
    few = faiss.index_factory(
        WIDTH, "IVF100,Flat", faiss.METRIC_INNER_PRODUCT
    )  # one list of about ten rows is searched
    few.train(unit)
    few.add(unit)
    found = Funnel([FaissStage(few), VectorStage(vectors)], [100]).search(queries, k=60)
    assert (found.rows[:, -1] == -1).any()
    assert (np.isneginf(found.scores) == (found.rows == -1)).all()
    with pytest.raises(ValueError, match="FaissStage searches everything"):
        Funnel([VectorStage(vectors), FaissStage(flat)], [10])


def test_usearch_may_come_first(queries, vectors):
    index_module = pytest.importorskip("usearch.index", reason="usearch is not installed (extra search)")
    index = index_module.Index(ndim=WIDTH, metric="cos", dtype="f16")
    index.add(np.arange(1000), vectors)
    found = Funnel([UsearchStage(index), VectorStage(vectors)], [100]).search(queries)
    assert recall(found.rows, exact(queries, vectors, 10)[1]) > 0.95
    assert found.bytes_read[0] >= 100 * WIDTH * 2
    assert found.bytes_read[1] == 100 * WIDTH * 4
    cut = UsearchStage(index_module.Index(ndim=8, metric="cos", dtype="i8"), lambda rows: rows[:, :8])
    cut.index.add(np.arange(5), vectors[:5, :8])
    _, rows, _ = cut.best(queries, 7)
    assert (np.sort(rows, axis=1) == [-1, -1, 0, 1, 2, 3, 4]).all()
