"""Replays of published rows: they agree with what the same code published, and refuse, with both numbers, what differs."""

import csv
import json

import numpy as np
import pytest

from hf_mic.__main__ import main
from hf_mic.budgets.published import ReplayError, replay, replayable
from hf_mic.budgets.texts import fit_texts
from hf_mic.results import write_results

WORDS = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)


def sentence(random):
    return " ".join(str(number) for number in random.integers(40, size=6))


def embed(texts):
    return np.stack([WORDS[[int(word) for word in text.split()]].mean(axis=0) for text in texts])


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made, random = tmp_path_factory.mktemp("texts"), np.random.default_rng(1)
    for name, count in (("train", 120), ("dev", 20), ("test", 60)):
        rows = []
        for _ in range(count):
            first, second = sentence(random), sentence(random)
            score = 5 * float(np.corrcoef(*embed([first, second]))[0, 1])
            rows.append((first, second, score))
        write_csv(made / "stsb" / f"{name}.csv", ("sentence1", "sentence2", "score"), rows)
    for name, count in (("train", 200), ("test", 50)):
        texts = [sentence(random) for _ in range(count)]
        rows = [(text, f"class {int(embed([text])[0, 0] > 0)}") for text in texts]
        write_csv(made / "classification/banking77" / f"{name}.csv", ("text", "category"), rows)
    return made


METHODS = {
    "pca": {"type": "pca", "text": "task", "turned": True},
    "mic": {
        "type": "map",
        "text": "task",
        "turned": None,
        "config": {"dims": [8, 16], "batch_size": 64, "pool_size": 128, "steps": 10},
    },
    "elsewhere": {"type": "pca", "text": "general"},
}


def row(method, task, metric, value, **other):
    common = {"dim": 16, "bits": 1, "turned": True, "bytes": 2, "n": 60, "ci_low": 0.0, "ci_high": 1.0}
    return {"method": method, "seed": None, "task": task, "metric": metric, "value": value, **common, **other}


def publish(path, rows, tolerance=1e-6):
    config = {"methods": METHODS, "tolerance": {"map": tolerance, "other": tolerance}}
    write_results(path, "mic_bytes", config, rows)
    return path


def found_by(folder, path, name):
    """What a replay finds, from its refusal of a row that cannot be right."""
    with pytest.raises(ReplayError) as error:
        replay(name, path, data_dir=folder, embed=embed)
    assert "-100.00 in" in str(error.value)
    return float(str(error.value).split(" is ")[1].split(" now")[0]) / 100


def test_a_row_agrees_with_itself_and_with_nothing_else(folder, tmp_path):
    wrong = [
        row("pca", "stsb", "spearman", -1.0),
        row("mic", "stsb", "spearman", -1.0, seed=0, turned=False),
        row("pca", "banking77", "accuracy_10nn", -1.0),
    ]
    path = publish(tmp_path / "wrong.json", wrong)
    names = ["stsb/pca@2B", "stsb/mic@2B", "banking77/pca@2B"]
    found = [found_by(folder, path, name) for name in names]
    assert len(set(found)) == 3
    assert min(found) > 0.4
    right = [{**one, "value": value} for one, value in zip(wrong, found, strict=True)]
    path = publish(tmp_path / "right.json", right, tolerance=6e-5)  # two decimals of a score × 100 were read
    for name in names:
        done = replay(name, path, data_dir=folder, embed=embed)
        assert done.agrees
        assert done.seconds > 0


def test_only_rows_without_long_texts_are_offered(tmp_path):
    rows = [
        row("pca", "stsb", "spearman", 0.5),
        row("pca", "scifact", "ndcg@10", 0.5),
        row("elsewhere", "stsb", "spearman", 0.5),
        row("mic", "stsb", "spearman", 0.5, seed=3),
        row("mic", "stsb", "difference_to_best_rival", 0.1),
    ]
    path = publish(tmp_path / "results.json", rows)
    assert list(replayable(json.loads(path.read_text()))) == ["stsb/pca@2B"]
    with pytest.raises(ValueError, match=r"no row 'stsb/pcb@2B' \(did you mean 'stsb/pca@2B'\?\)"):
        replay("stsb/pcb@2B", path)
    with pytest.raises(ValueError, match="names are TASK/METHOD@BYTESB"):
        replay("stsb", path)


def test_the_verb(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_mic.budgets.published._encoder", lambda model: embed)
    path = publish(tmp_path / "results.json", [row("pca", "stsb", "spearman", 0.0)])
    words = ["replay", "stsb/pca@2B", "--results", str(path), "--data_dir", str(folder)]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "and 0.00 in" in message
    assert "they may differ by 0.00" in message
    found = float(message.split(" is ")[1].split(" now")[0]) / 100
    publish(path, [row("pca", "stsb", "spearman", found)], tolerance=6e-5)
    assert main(words) == 0
    assert f"is {100 * found:.2f}, published {100 * found:.2f}" in capsys.readouterr().out
    assert main(["replay", "list", "--results", str(path)]) == 0
    assert capsys.readouterr().out == "stsb/pca@2B\n"


def test_nothing_is_fitted_on_what_is_scored(data_dir):
    from hf_mic.budgets.published import scored_texts

    scored = scored_texts(data_dir / "text")
    texts = fit_texts("task", data_dir / "text", scored)
    assert len(texts) == len(set(texts)) > 20_000
    assert not set(texts) & scored
    few = fit_texts("few", data_dir / "text", scored)
    assert len(few) == 4000
    assert set(few) < set(texts)
