"""Packed answers: small, whole, and enough to find every number of the results again."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.qa.grading import candidate_answers
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.results import write_results
from hf_evl_ecg.scores.archive import (
    ArchiveError,
    list_archive,
    pack_answers,
    pack_questions,
    unpack_answers,
    unpack_questions,
)
from hf_evl_ecg.scores.compare import comparison_rows
from hf_evl_ecg.scores.models import score_by_source
from hf_evl_ecg.scores.replay import ReplayError, replay
from hf_evl_ecg.sources.simulated import load_simulated

OPTIONS = {"n_bootstrap": 20, "min_per_class": 2}


@pytest.fixture(scope="module")
def items():
    rows, _ = load_simulated(4, split="test")
    return list(question_dataset(rows, formats=["closed", "fill"], tasks=["rhythm", "axis"], classes=["AF", "LBBB"]))


@pytest.fixture
def study(tmp_path, items):
    """Results and packed answers of two runs of a method and one of another."""
    pack_questions(tmp_path / "answers", items)
    rows, runs = [], {}
    for method, seed in (("a_b", 0), ("a_b", 1), ("teacher", None)):
        rng = random.Random(f"{method}{seed}")
        given = [Answer(i["record"], None, tuple(rng.gauss(-3, 2) for _ in candidate_answers(i))) for i in items]
        kept = pack_answers(tmp_path / "answers", method, seed, given)
        assert all(
            abs(x - y) <= 0.005 + 1e-9
            for one, other in zip(kept, given, strict=True)
            for x, y in zip(one.scores, other.scores)
        )
        rows += score_by_source(list(zip(items, kept, strict=True)), method=method, seed=seed, **OPTIONS)
        runs.setdefault(method, []).append(kept)
    compare = {"over": ["teacher"], "means": {"simulated:fill": ["simulated:rhythm_fill", "simulated:axis_fill"]}}
    rows += comparison_rows(items, runs, **compare, n_bootstrap=OPTIONS["n_bootstrap"])
    write_results(tmp_path / "study.json", "study", {"evaluate": OPTIONS, "compare": compare}, rows)
    return tmp_path


def test_every_number_is_found_again(study, items):
    done = dict(replay(study / "study.json", study / "answers"))
    assert set(done) == {"a_b_0", "a_b_1", "teacher", "differences of methods"}
    assert min(done.values()) >= 8
    assert dict(replay(study / "study.json", study / "answers", ["a_b"])).keys() == {
        "a_b_0",
        "a_b_1",
        "differences of methods",
    }
    assert dict(replay(study / "study.json", study / "answers", ["a_b_1"])).keys() == {
        "a_b_1",
        "differences of methods",
    }
    assert Counter(item["task"] for item in unpack_questions(study / "answers")) == Counter(i["task"] for i in items)
    assert list_archive(study / "answers") == ["a_b_0", "a_b_1", "teacher"]
    assert unpack_answers(study / "answers", "teacher")[:2] == ("teacher", None)


@pytest.mark.parametrize("value", ["value", "ci_low", "n"])
def test_a_changed_number_is_named(study, value):
    content = json.loads((study / "study.json").read_text())
    row = next(row for row in content["rows"] if row["metric"] == "auc" and row["method"] == "teacher")
    row[value] += 1e-6 if value != "n" else 1
    (study / "study.json").write_text(json.dumps(content))
    with pytest.raises(ReplayError, match=f"teacher: {row['task']}, auc: {value} is"):
        list(replay(study / "study.json", study / "answers"))
    assert list(replay(study / "study.json", study / "answers", ["a_b"])), "the other method is as it was"


def test_a_changed_difference_is_named(study, capsys):
    content = json.loads((study / "study.json").read_text())
    row = next(row for row in content["rows"] if row["metric"] == "mean_macro_auc_gain_over_teacher")
    assert (row["method"], row["seed"], row["task"]) == ("a_b", None, "simulated:fill")
    row["ci_high"] += 0.001
    (study / "study.json").write_text(json.dumps(content))
    run = ["replay", str(study / "study.json"), "--answers", str(study / "answers")]
    assert main([*run, "--names", "teacher"]) == 0
    assert main(run) == 2
    assert "simulated:fill, mean_macro_auc_gain_over_teacher: ci_high is" in capsys.readouterr().err


def test_what_is_missing_is_named(study, items):
    content = json.loads((study / "study.json").read_text())
    gone = content["rows"].pop(5)
    (study / "study.json").write_text(json.dumps(content))
    with pytest.raises(ReplayError, match=f"{gone['task']}.* is only in the answers"):
        list(replay(study / "study.json", study / "answers"))
    with pytest.raises(ReplayError, match=r"names=\['sft'\]: .* holds the answers of a_b_0, a_b_1, teacher"):
        list(replay(study / "study.json", study / "answers", ["sft"]))
    with pytest.raises(ArchiveError, match=r"1 answers of x for \d+ questions"):
        pack_answers(study / "answers", "x", 0, [Answer("r", "yes")])
    (study / "answers" / "teacher.jsonl.xz").write_bytes(b"no archive")
    with pytest.raises(ArchiveError, match="is damaged"):
        unpack_answers(study / "answers", "teacher")
    with pytest.raises(ArchiveError, match="is not there"):
        unpack_questions(study)
    with pytest.raises(ArchiveError, match="holds no packed answers"):
        list_archive(study)


PUBLISHED = sorted((Path(__file__).resolve().parents[3] / "model_cards" / "results").glob("*_answers"))


def test_answers_are_published():
    assert PUBLISHED
    assert sum(path.stat().st_size for folder in PUBLISHED for path in folder.iterdir()) <= 2_000_000


@pytest.mark.parametrize("folder", PUBLISHED, ids=[folder.name for folder in PUBLISHED])
def test_published_numbers_follow_from_published_answers(folder):
    """One run of each study in full, and what its method gains; `hf-evl-ecg replay` without --names does all."""
    names = list_archive(folder)
    one = "evl_ecg-all_0" if "evl_ecg-all_0" in names else names[0]
    done = dict(replay(folder.with_name(f"{folder.name.removesuffix('_answers')}.json"), folder, [one]))
    assert done[one] > 20
    assert done["differences of methods"] > 5
