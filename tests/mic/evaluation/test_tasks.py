"""Tasks and their readers: refusals, splits, the BEIR and MTEB layouts, the real files."""

import datasets
import pytest

from hf_mic.evaluation import tasks, text_tasks
from hf_mic.evaluation.loaders import load_pair_classification, load_retrieval, load_sts
from hf_mic.evaluation.scoring import count_test_items
from hf_mic.evaluation.tasks import ClassificationTask, PairClassificationTask, RetrievalTask, STSTask, stratified_split
from hf_mic.evaluation.text_tasks import load_task, load_text_tasks


def test_impossible_tasks_are_refused():
    for make, message in (
        (lambda: STSTask("t", ["a"], ["b", "c"], [1.0]), "equally long"),
        (lambda: STSTask("t", [], [], []), "empty"),
        (lambda: STSTask("t", ["a"], ["b"], [float("nan")]), "finite"),
        (lambda: ClassificationTask("t", ["a", "b"], ["x", "x"], ["c"], ["x"]), "at least two classes"),
        (lambda: ClassificationTask("t", ["a", "b"], ["x", "y"], ["c"], ["z"]), r"\['z'\] do not occur"),
        (lambda: RetrievalTask("t", {"d": "x"}, {"q": "y"}, {"p": {"d": 1}}), "queries are unknown"),
        (lambda: RetrievalTask("t", {"d": "x"}, {"q": "y"}, {"q": {"e": 1}}), "documents are unknown"),
        (lambda: RetrievalTask("t", {"d": "x"}, {"q": "y"}, {"q": {"d": 0}}), "no query has a relevant"),
        (lambda: PairClassificationTask("t", [("a", "b")], [1], [("a", "b")], [1]), "must be 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_stratified_split_keeps_shares_and_is_seeded():
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 2 + ["d"]
    fit, held = stratified_split(labels, 0.2, seed=0)
    assert sorted(fit + held) == list(range(73))
    assert [[labels[i] for i in held].count(c) for c in "abcd"] == [10, 4, 1, 0]
    assert (fit, held) == stratified_split(labels, 0.2, seed=0)
    assert held != stratified_split(labels, 0.2, seed=1)[1]
    with pytest.raises(ValueError, match="strictly between 0 and 1, got 1"):
        stratified_split(labels, 1, seed=0)


def test_beir_folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "1", "title": "T", "text": "body"}\n{"_id": "2", "title": "", "text": "bare"}\n', encoding="utf-8"
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "7", "text": "what"}\n', encoding="utf-8")
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n7\t1\t2\n7\t2\t0\n", encoding="utf-8")
    task = load_retrieval(tmp_path, name="mini")
    assert task == RetrievalTask("mini", {"1": "T body", "2": "bare"}, {"7": "what"}, {"7": {"1": 2.0, "2": 0.0}})


def test_sts_and_pair_files(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,b,same\nx,y,1\nv,w,0\n", encoding="utf-8")
    columns = {"sentence1": "a", "sentence2": "b"}
    sts = load_sts(path, name="s", columns=columns | {"score": "same"})
    assert sts == STSTask("s", ["x", "v"], ["y", "w"], [1.0, 0.0])
    task = load_pair_classification(path, path, name="p", columns=columns | {"label": "same"})
    assert (task.dev_pairs, task.dev_labels) == ([("x", "y"), ("v", "w")], [1, 0])
    path.write_text("a,b,same\nx,y,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev labels must be 0 and 1, both present; found \[2"):
        load_pair_classification(path, path, name="p", columns=columns | {"label": "same"})
    with pytest.raises(ValueError, match=r"Unknown keys .'text'. in columns"):
        load_sts(path, name="s", columns={"text": "a"})


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("corpus", '{"id": "d", "text": "x"}', r"\(corpus\) has no column \['_id'\]"),
        ("corpus", '{"_id": "d"}', r"\(corpus\) has no column \['text'\]"),
        ("queries", '{"_id": "q", "text": null}', r"\(queries\), row 1: _id is 'q' and text is None"),
        ("queries", '{"_id": "q", "text": "x"}\n{"_id": "q", "text": "y"}', "1 ids occur twice"),
        ("queries", "{oops", "queries.jsonl, line 1, cannot be read as json"),
    ],
)
def test_bad_retrieval_files_are_refused(tmp_path, part, line, message):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n", encoding="utf-8")
    for name, content in (("corpus", '{"_id": "d", "text": "x"}'), ("queries", '{"_id": "q", "text": "y"}')):
        (tmp_path / f"{name}.jsonl").write_text(line if name == part else content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_retrieval(tmp_path, name="mini")


def test_tasks_of_ones_own(tmp_path):
    sts, labels, pairs = (tmp_path / name for name in ("my.sts.csv", "labels.tsv", "pairs.jsonl"))
    sts.write_text("sentence1,sentence2,score\nx,y,1\n", encoding="utf-8")
    labels.write_text("text\tlabel\nx\tone\ny\ttwo\n", encoding="utf-8")
    pairs.write_text(
        '{"sentence1": "x", "sentence2": "y", "label": 1}\n{"sentence1": "v", "sentence2": "w", "label": 0}\n'
    )
    assert load_task(f"sts={sts}") == STSTask("my", ["x"], ["y"], [1.0])
    found = load_task(f"classification={labels},{labels}")
    assert found == ClassificationTask("labels", ["x", "y"], ["one", "two"], ["x", "y"], ["one", "two"])
    both = [("x", "y"), ("v", "w")]
    assert load_task(f"pairs={pairs},{pairs}") == PairClassificationTask("pairs", both, [1, 0], both, [1, 0])
    for wrong in ("sts", "sts=", "sts=a,b", "pairs=a", "search=a"):
        with pytest.raises(ValueError, match="Cannot read task"):
            load_task(wrong)


@pytest.mark.real_data
def test_real_tasks_keep_validation_apart_from_test(data_dir):
    final = load_text_tasks(data_dir / "text")
    chosen = load_text_tasks(data_dir / "text", validation=True)
    assert [task.name for task in final] == ["stsb", "banking77", "scifact"]
    assert [task.name for task in chosen] == ["stsb_validation", "banking77_validation", "scifact_validation"]
    assert [count_test_items(task) for task in final] == [1379, 3080, 300]
    assert [count_test_items(task) for task in chosen] == [1500, len(chosen[1].test_texts), 809]
    train = final[1].train_texts
    assert sorted([*chosen[1].train_texts, *chosen[1].test_texts]) == sorted(train)
    assert len(chosen[1].test_texts) / len(train) == pytest.approx(0.2, abs=0.005)
    assert set(chosen[1].test_labels) == set(final[1].train_labels)
    assert not set(chosen[2].qrels) & set(final[2].qrels)
    with pytest.raises(ValueError, match="task='sst2': must be one of 'stsb', 'banking77', 'scifact'"):
        load_text_tasks(data_dir / "text", ["sst2"])
    with pytest.raises(ValueError, match="is not a folder"):
        load_text_tasks(data_dir / "absent")


def test_without_a_folder_the_same_tasks_come_from_the_hub(monkeypatch):
    hub = {
        ("sentence-transformers/stsb", None, "test"): {"sentence1": ["a"], "sentence2": ["b"], "score": [0.5]},
        ("mteb/banking77", None, "train"): {"text": ["a", "b"], "label": [0, 1]},
        ("mteb/banking77", None, "test"): {"text": ["c"], "label": [1]},
        ("mteb/scifact", "corpus", "corpus"): {"_id": ["4"], "title": ["T"], "text": ["body"]},
        ("mteb/scifact", "queries", "queries"): {"_id": ["1"], "text": ["what"]},
        ("mteb/scifact", "default", "test"): {"query-id": ["1"], "corpus-id": ["4"], "score": [1.0]},
    }
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, subset=None, *, split: datasets.Dataset.from_dict(hub[name, subset, split]),
    )
    assert load_text_tasks(None) == [
        STSTask("stsb", ["a"], ["b"], [0.5]),
        ClassificationTask("banking77", ["a", "b"], ["0", "1"], ["c"], ["1"]),
        RetrievalTask("scifact", {"4": "T body"}, {"1": "what"}, {"1": {"4": 1.0}}),
    ]


def test_all_names_exist():
    for module in (tasks, text_tasks):
        assert all(hasattr(module, name) for name in module.__all__)
