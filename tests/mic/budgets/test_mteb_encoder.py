"""mteb's scores of prefixes and codes: those of our own evaluation, kept in mteb's files, apart by size."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_mic.budgets import MTEBEncoder, score_coded
from hf_mic.budgets.scoring import CodedTexts
from hf_mic.evaluation import RetrievalTask, STSTask, evaluate_model
from hf_mic.evaluation.metrics import bootstrap_counts, normalize
from hf_mic.frozen import AdaptConfig, Compressor

pytestmark = pytest.mark.skipif(find_spec("mteb") is None, reason="needs mteb (the extra mteb)")

NAME = "me/tiny"
ABOUT = {
    "description": "made up", "dataset": {"path": "none", "revision": "1"}, "reference": None, "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"], "date": ("2026-01-01", "2026-01-02"), "domains": [], "task_subtypes": [], "dialect": [],
    "license": "cc0-1.0", "annotations_creators": "derived", "sample_creation": "created", "bibtex_citation": "", "category": "t2t",
}  # fmt: skip


@pytest.fixture
def texts(make_sentences):
    return list(dict.fromkeys(make_sentences(400, 0, longest=9)))


@pytest.fixture
def sts(texts):
    random = np.random.default_rng(0)
    return STSTask("ToySTS", texts[:60], texts[60:120], random.uniform(0, 5, 60).tolist())


@pytest.fixture
def retrieval(texts):
    corpus = {f"d{i}": text for i, text in enumerate(texts[:150])}
    queries = {f"q{i}": text for i, text in enumerate(texts[150:180])}
    qrels = {f"q{i}": {f"d{i}": 1, f"d{i + 40}": 1, f"d{i + 90}": 1} for i in range(30)}
    return RetrievalTask("ToyRetrieval", corpus, queries, qrels)


@pytest.fixture
def tasks(sts, retrieval):
    """The same two tasks as mteb has them."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    class ToySTS(AbsTaskSTS):
        metadata = TaskMetadata(name="ToySTS", type="STS", main_score="cosine_spearman", **ABOUT)
        min_score, max_score = 0, 5

        def load_data(self, **kwargs):
            columns = {"sentence1": sts.sentences1, "sentence2": sts.sentences2, "score": sts.scores}
            self.dataset, self.data_loaded = DatasetDict({"test": Dataset.from_dict(columns)}), True

    class ToyRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(name="ToyRetrieval", type="Retrieval", main_score="ndcg_at_10", **ABOUT)

        def load_data(self, **kwargs):
            def rows(texts):
                return Dataset.from_list([{"id": key, "text": text} for key, text in texts.items()])

            split = {"queries": rows(retrieval.queries), "corpus": rows(retrieval.corpus), "top_ranked": None}
            split["relevant_docs"] = retrieval.qrels
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return [ToySTS(), ToyRetrieval()]


def run(encoder, tasks, folder):
    """Main scores by task, as mteb returns and as it keeps them."""
    import mteb
    from mteb.cache import ResultCache

    result = mteb.evaluate(encoder, tasks, cache=ResultCache(folder), show_progress_bar=False, co2_tracker=False)
    return {task.task_name: task.get_score() for task in result.task_results}


def test_a_prefix_scores_as_in_our_evaluation(make_model, sts, retrieval, tasks, tmp_path):
    model = make_model()
    ours = evaluate_model(model, [sts, retrieval], [8, 32], method="m", n_bootstrap=0)
    for dim in (8, 32):
        found = run(MTEBEncoder(model, embed_dim=dim, name=NAME), tasks, tmp_path)
        expected = {
            row["task"]: row["value"] for row in ours if row["dim"] == dim and row["metric"] in ("spearman", "ndcg@10")
        }
        assert found == {name: pytest.approx(value, abs=2e-5) for name, value in expected.items()}
    assert len({row["value"] for row in ours if row["metric"] == "spearman"}) == 2


def test_queries_stay_floats_and_documents_are_coded(make_model, texts, sts, retrieval, tasks, tmp_path):
    model = make_model()
    full = model.encode(texts)
    compressor = Compressor.fit(full, 2, config=AdaptConfig(steps=5, batch_size=64, pool_size=128, dims=[8]))

    def queries(rows):
        return compressor.prefix_map.apply(rows, dim=compressor.dims)

    def stored(rows):
        return compressor.reconstruct(compressor.transform(rows))

    found = run(MTEBEncoder(model, compressor=compressor, name=NAME), tasks, tmp_path)
    coded = CodedTexts({text: row for row, text in enumerate(texts)}, full, queries, stored)
    (expected,) = score_coded(retrieval, coded, bootstrap_counts(30, 1))
    assert found["ToyRetrieval"] == pytest.approx(expected.value, abs=2e-5)
    # mteb marks neither sentence of a pair as a query: both are what their bytes stand for.
    one, two = (normalize(stored(model.encode(side))) for side in (sts.sentences1, sts.sentences2))
    assert found["ToySTS"] == pytest.approx(spearmanr((one * two).sum(axis=1), sts.scores).statistic, abs=1e-3)
    float_queries = CodedTexts(coded.rows, full, queries, queries)
    assert score_coded(retrieval, float_queries, bootstrap_counts(30, 1))[0].value != expected.value


def test_results_are_mtebs_files_kept_apart_by_size(make_model, texts, tasks, tmp_path):
    from mteb.cache import ResultCache
    from mteb.models.models_protocols import EncoderProtocol

    model = make_model()
    full = model.encode(texts)
    compressors = [Compressor.fit(full, 2, seed=seed, config=AdaptConfig(steps=2, batch_size=64, pool_size=128, dims=[8])) for seed in (0, 1)]  # fmt: skip
    encoders = [MTEBEncoder(model, embed_dim=dim, name=NAME) for dim in (8, 16)]
    encoders += [MTEBEncoder(model, compressor=compressor, name=NAME) for compressor in compressors]
    assert all(isinstance(encoder, EncoderProtocol) for encoder in encoders)
    scores = [run(encoder, tasks[:1], tmp_path)["ToySTS"] for encoder in encoders]
    files = sorted(tmp_path.rglob("ToySTS.json"))
    assert len(files) == 4
    noted = [json.loads(file.with_name("model_meta.json").read_text()) for file in files]
    assert {meta["name"] for meta in noted} == {NAME}
    assert sorted(meta["experiment_kwargs"].get("bytes", 0) for meta in noted) == [0, 0, 2, 2]
    assert {meta["experiment_kwargs"].get("embed_dim") for meta in noted} == {8, 16, None}
    assert len(set(scores)) == 4
    # Found again instead of computed, each under its own size; files hold six digits.
    for encoder in encoders:
        encoder.encode = None
    again = [run(encoder, tasks[:1], tmp_path)["ToySTS"] for encoder in encoders]
    assert again == pytest.approx(scores, abs=1e-6)
    loaded = ResultCache(tmp_path).load_results(models=[NAME], tasks=["ToySTS"], load_experiments="match_name")
    assert len(loaded.model_results) == 4


def test_an_encoder_of_mteb_is_asked_once(make_model, tasks, tmp_path):
    from mteb.models import CachedEmbeddingWrapper, SentenceTransformerEncoderWrapper

    model = make_model()
    plain = SentenceTransformerEncoderWrapper(model)
    cached = CachedEmbeddingWrapper(plain, tmp_path / "vectors")
    found = run(MTEBEncoder(cached, embed_dim=8, name=NAME), tasks, tmp_path / "a")
    assert found == run(MTEBEncoder(model, embed_dim=8, name=NAME), tasks, tmp_path / "b")
    plain.encode = None
    assert run(MTEBEncoder(cached, embed_dim=16, name=NAME), tasks, tmp_path / "a").keys() == found.keys()


def test_what_is_refused(make_model):
    model = make_model()
    rows = np.random.default_rng(0).normal(size=(200, 16))
    narrow = Compressor.fit(rows, 2, config=AdaptConfig(steps=2, batch_size=64, pool_size=128, dims=[8]))
    for options, message in (
        ({}, "give one of them"),
        ({"embed_dim": 8, "compressor": narrow}, "give one of them"),
        ({"embed_dim": 33}, r"embed_dim=33: must lie in \[1, 32\]"),
        ({"compressor": narrow}, "takes vectors of width 16, the model's have 32"),
        ({"embed_dim": 8, "name": "tiny"}, "must be of the form organisation/model"),
        ({"embed_dim": 8, "name": None}, "results of all models without a name"),
    ):
        with pytest.raises(ValueError, match=message):
            MTEBEncoder(model, **{"name": NAME, **options})
