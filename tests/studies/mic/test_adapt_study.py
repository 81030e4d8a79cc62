"""studies/mic/adapt_study.py: its plan is sound, its runs resume, its cache is of one encoder."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

WORDS = [f"w{i}" for i in range(24)]


def load_script(path):
    spec = importlib.util.spec_from_file_location(f"studies_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_reported_plan_is_valid_and_runs_resume(repo_root, tmp_path):
    study = load_script(repo_root / "studies" / "mic" / "adapt_study.py")
    plan = study.read_plan(repo_root / "studies" / "configs" / "mic_adapt.yaml")
    maps = {name: method for name, method in plan["methods"].items() if method["type"] == "map"}
    runs = study._runs(plan["methods"], 2)
    assert len(set(runs)) == len(runs) == len(plan["methods"]) + len(maps)
    assert [seed for _, seed in runs] == sorted((s for _, s in runs), key=lambda s: -1 if s is None else s)

    cache = tmp_path / "cache.npz"
    encoder = SentenceTransformer(modules=[BoW(WORDS)], device="cpu")
    encoder.save(str(tmp_path / "encoder"))
    first = study.embed_with_cache(str(tmp_path / "encoder"), ["w1 w2", "w3"], cache)
    second = study.embed_with_cache(str(tmp_path / "encoder"), ["w3", "w4"], cache)
    assert np.array_equal(first["w3"], second["w3"])
    assert set(second) == {"w1 w2", "w3", "w4"}
    with pytest.raises(ValueError, match="name another --cache"):
        study.embed_with_cache("other", ["w1"], cache)
    (tmp_path / "texts.txt").write_text("a\nbb\nccc\nbb\ndd\n")
    sources = [{"file": "texts.txt", "columns": ["text"], "max_characters": 2}]
    assert study.read_fit_texts(tmp_path, sources, scored={"dd"}) == ["a", "bb"]
    for spoiled, message in (({"plot": ["nothing"]}, "no methods"), ({"texts": {}}, "fitted on")):
        (tmp_path / "plan.yaml").write_text(json.dumps({**plan, **spoiled}))
        with pytest.raises(ValueError, match=message):
            study.read_plan(tmp_path / "plan.yaml")


def test_reported_rows_are_not_fitted_again(repo_root, tmp_path):
    """The reported json calls an option by its older name."""
    study = load_script(repo_root / "studies" / "mic" / "adapt_study.py")
    plan = study.read_plan(repo_root / "studies" / "configs" / "mic_adapt.yaml")
    path = repo_root / "model_cards" / "results" / "mic_adapt.json"
    reported = json.loads(path.read_text())
    settings = {name: value for name, value in reported["config"].items() if name != "methods"}
    settings["methods"] = {n: {k: m[k] for k in m if k not in ("seeds", "about")} for n, m in plan["methods"].items()}
    assert "uniformity_t" in reported["config"]["methods"]["mic"]["config"]
    assert study._previous_rows(path, settings) == reported["rows"]
    settings["methods"]["mic"]["config"]["t"] = 3.0
    assert {row["method"] for row in study._previous_rows(path, settings)} == set(plan["methods"]) - {"mic"}
