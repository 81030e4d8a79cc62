"""studies/mic/map_search.py: its plan is sound, queries are none of the texts fitted on, a run resumes."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from hf_mic.frozen.config import AdaptConfig

WORDS = [f"w{i}" for i in range(16)]


@pytest.fixture
def search(repo_root, monkeypatch):
    folder = repo_root / "studies" / "mic"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("map_search", folder / "map_search.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "map_search", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("adapt_study", None)


def write_texts(path, column, count, seed):
    rng = np.random.default_rng(seed)
    rows = [" ".join(rng.choice(WORDS, 6, p=np.arange(1, 17) / 136)) for _ in range(count)]
    path.write_text("\n".join([column, *rows]) + "\n")


def test_what_did_best_is_what_a_user_gets(search, repo_root):
    plan = search.read_plan(repo_root / "studies" / "configs" / "map_search.yaml")
    defaults = {k: v for k, v in dataclasses.asdict(AdaptConfig()).items() if k != "seed"}
    assert plan["methods"]["map"]["config"] == defaults
    assert plan["methods"]["map_1bit"]["config"] == {**defaults, "bits": 1}
    assert {"truncation", "pca", "map"} <= {name for name, m in plan["methods"].items() if m.get("test")}
    args = search.SearchArguments(plan="", data_dir="", num_seeds=2)
    runs = search.runs(plan, ["banking77", "stsb"], args)
    assert len(set(runs)) == len(runs)
    assert runs.index(("map", "stsb", 0)) < runs.index(("map", "banking77", 1))


def test_search_and_test_run_and_resume(search, tmp_path, capsys):
    write_texts(tmp_path / "a.csv", "text", 260, seed=0)
    write_texts(tmp_path / "b.csv", "text", 30, seed=1)
    pairs = ["sentence1,sentence2,score"] + [f"w{i} w{i + 1},w{i} w{i + k},{k}" for i in range(8) for k in (1, 2, 3)]
    (tmp_path / "pairs.csv").write_text("\n".join(pairs) + "\n")
    SentenceTransformer(modules=[BoW(WORDS)], device="cpu").save(str(tmp_path / "encoder"))
    fit = {"batch_size": 64, "pool_size": 128, "steps": 5, "dims": [2, 4]}
    plan = {
        "sets": {"a": {"texts": [{"file": "a.csv", "columns": ["text"]}], "held_out": 40}},
        "guard": {"validation": "pairs.csv", "test": "pairs.csv"},
        "dims": [2, 4],
        "codes": [[4, 1]],
        "methods": {
            "truncation": {"type": "truncation"},
            "pca": {"type": "pca", "rotated": True, "test": True},
            "map": {"type": "map", "seeds": 2, "test": True, "config": fit},
        },
    }
    plan["sets"]["a"]["test"] = [{"file": "b.csv", "columns": ["text"]}]
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    settings = {"data_dir": str(tmp_path), "model": str(tmp_path / "encoder"), "cache": str(tmp_path / "cache.npz")}
    args = search.SearchArguments(plan="", output_dir=str(tmp_path / "out"), **settings)

    texts = search.read_set(str(tmp_path), plan["sets"]["a"], test=False)
    tested = search.read_set(str(tmp_path), plan["sets"]["a"], test=True)
    assert len(texts.queries) == 40
    assert texts.fit == tested.fit
    assert not set(texts.fit) & (set(texts.queries) | set(tested.queries))

    results = search.main(args, search.read_plan(tmp_path / "plan.yaml"))
    recalls = {
        (r["method"], r["seed"], r["dim"], r["precision"]): r["value"]
        for r in results["rows"]
        if r["metric"] == search.RECALL
    }
    assert {key[0] for key in recalls} == {"truncation", "pca", "pca_rotated", "map"}
    assert {key[1] for key in recalls if key[0] == "map"} == {0, 1}
    assert recalls["pca", None, 2, "float32"] < recalls["pca", None, 4, "float32"]
    assert {key[3] for key in recalls} == {"float32", "1bit"}
    capsys.readouterr()
    assert search.main(args, search.read_plan(tmp_path / "plan.yaml"))["rows"] == results["rows"]
    assert "seed" not in capsys.readouterr().out  # nothing was fitted again
    args.test = True
    tested_rows = search.main(args, search.read_plan(tmp_path / "plan.yaml"))["rows"]
    assert {row["method"] for row in tested_rows} == {"pca", "pca_rotated", "map"}
    assert (tmp_path / "out" / "map_search_test.md").exists()


def test_recall_is_the_share_found(search):
    expected, found = np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 9]])
    assert search.recall(expected, found).tolist() == [1.0, 0.5]
