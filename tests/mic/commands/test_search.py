"""hf-mic search: an index that adapt wrote, searched in stages; what is printed, written and refused."""

import json

import numpy as np
import pytest

from hf_mic.__main__ import main
from hf_mic.search.recall import recall

QUICK = ["--steps", "5", "--batch_size", "64", "--pool_size", "128"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vectors.npy, queries.npy, and folders of 2 and 8 bytes per vector."""
    path, random = tmp_path_factory.mktemp("search"), np.random.default_rng(0)
    vectors = (random.normal(size=(600, 8)) @ random.normal(size=(8, 24)) + 0.3 * random.normal(size=(600, 24))).astype(
        "f4"
    )
    np.save(path / "vectors.npy", vectors)
    np.save(path / "queries.npy", vectors[::30] + 0.2 * random.normal(size=(20, 24)).astype("f4"))
    for size in ("2", "8"):
        assert (
            main(["adapt", str(path / "vectors.npy"), "--bytes", size, "--output_dir", str(path / size), *QUICK]) == 0
        )
    return path


def test_recall_against_bytes_read(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = [
        "search",
        "2",
        "queries.npy",
        "--vectors",
        "vectors.npy",
        "--refine",
        "8",
        "--shortlists",
        "5",
        "20",
        "100",
    ]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    printed, report = capsys.readouterr().out, json.loads((tmp_path / "search.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [
        "2 bytes",
        *(f"2 bytes → float32 of {size}" for size in (20, 100)),  # 5 would not give ten
        *(f"2 bytes → 8 bytes of {10 * size if size < 60 else 600} → float32 of {size}" for size in (20, 100)),
    ]
    assert rows["2 bytes"]["bytes_read"] == 600 * 2
    assert rows["2 bytes → 8 bytes of 200 → float32 of 20"]["bytes_read"] == 600 * 2 + 200 * 8 + 20 * 24 * 4
    assert report["exact_bytes"] == 600 * 24 * 4
    best = rows[report["answer"]]
    assert best["recall"] == max(row["recall"] for row in report["rows"]) > rows["2 bytes"]["recall"] + 0.2
    assert f"| {report['answer']} | {best['bytes_read']:,.0f} | {100 * best['recall']:.1f} |" in printed
    vectors, queries = np.load("vectors.npy"), np.load("queries.npy")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = np.argsort(-(queries @ unit.T), axis=1)[:, :10]
    with np.load(tmp_path / "neighbours.npz") as found:
        assert recall(found["rows"], exact) == pytest.approx(best["recall"])
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_codes_alone_have_no_recall(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["search", "--index", "8", "--queries", "queries.npy", "--k", "3", "--output_dir", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "search.json").read_text())
    assert report["rows"] == [{"name": "8 bytes", "depth": 1, "bytes_read": 4800.0, "recall": None}]
    assert not (tmp_path / "recall.png").exists()
    with np.load(tmp_path / "neighbours.npz") as found:
        assert found["rows"].shape == found["scores"].shape == (20, 3)


def test_what_does_not_fit_is_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    np.save(tmp_path / "narrow.npy", np.ones((5, 20), np.float32))
    np.save(tmp_path / "few.npy", np.load("vectors.npy")[:50])
    for words, message in (
        (["queries.npy", "queries.npy"], "queries.npy holds no compressor.json: give a folder that hf-mic adapt"),
        (["2", str(tmp_path / "narrow.npy")], "narrow.npy must hold vectors of width 24"),
        (["2", "queries.npy", "--vectors", str(tmp_path / "narrow.npy")], "narrow.npy must hold vectors of width 24"),
        (["2", "queries.npy", "--vectors", str(tmp_path / "few.npy")], "they hold [600, 50] rows"),
        (["2", "queries.npy", "--k", "601"], "k=601: must lie in [1, 600]"),
        (["2", "queries.npy", "--k", "0"], "k=0"),
    ):
        assert main(["search", *words, "--output_dir", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
