"""--method: a preset fills in what is not given, in the command, in YAML and in a study; help shows it in full."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from datasets import load_from_disk

from hf_evl_ecg.commands import distil
from hf_evl_ecg.method import DistillationOptions
from hf_evl_ecg.rivals import PRESETS

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import PAGE, make_work, run
from ecg_work import distil as learn


def read(monkeypatch, *given):
    """Arguments that ``main`` gets."""
    got = []
    monkeypatch.setattr(distil, "main", lambda *arguments: got.append(arguments))
    distil.command(["--student", "s", "--data", "d", "--output_dir", "o", "--use_cpu", *given])
    return got[0][0], got[0][-1]


@pytest.mark.parametrize("method", PRESETS)
def test_a_preset_sets_its_options_and_no_other(monkeypatch, method):
    script, training = read(monkeypatch, "--teacher", "t", "--method", method)
    assert script.method == method
    for option in fields(DistillationOptions):
        assert getattr(training, option.name) == PRESETS[method].get(option.name, option.default), option.name


def test_what_is_given_replaces_the_preset_wherever_it_stands(monkeypatch, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("teacher: t\nmethod: rkd\nlambda_rkd_angle: 7.0\n")
    for given in (["--alpha", "0.2"], ["--alpha=0.2", "--method=rkd"]):
        _, training = read(monkeypatch, "--config", str(path), *given)
        assert (training.lambda_rkd_distance, training.lambda_rkd_angle, training.alpha) == (25.0, 7.0, 0.2)
        assert training.lambda_ot == 0
    _, training = read(monkeypatch, "--config", str(path), "--method", "cka")
    assert (training.lambda_rkd_distance, training.lambda_cka) == (0.0, 1.0)


def test_without_a_method_options_have_their_defaults(monkeypatch):
    _, training = read(monkeypatch, "--teacher", "t")
    assert all(getattr(training, option.name) == option.default for option in fields(DistillationOptions))


def test_sft_is_sft_only(monkeypatch):
    for given in (
        ["--method", "sft"],
        ["--method", "seqkd"],
        ["--sft_only"],
        ["--method", "sft", "--sft_only", "--teacher", "t"],
    ):
        script, _ = read(monkeypatch, *given)
        assert script.sft_only
        assert script.teacher is None
    with pytest.raises(ValueError, match="one of the two is allowed"):
        read(monkeypatch, "--method", "uld", "--sft_only")


def test_seqkd_learns_alone_from_answers_of_a_teacher(tmp_path):
    work = make_work(tmp_path / "work")
    with pytest.raises(ValueError, match="holds no answers of a teacher"):
        learn(work, tmp_path / "no", "--method", "seqkd")
    asked = ["--teacher", work / "teacher", "--data", work / "questions", *PAGE, "--max_new_tokens", 6]
    with pytest.raises(ValueError, match="is the folder of the questions"):
        run("answer", *asked, "--output_dir", work / "questions")
    taught = run("answer", *asked, "--output_dir", tmp_path / "taught")
    assert len(taught.questions) > 1
    data, before = load_from_disk(str(tmp_path / "taught")), load_from_disk(str(work / "questions"))
    assert data["train"]["answer"][:] == taught.questions["answer"][:] != before["train"]["answer"][:]
    assert set(data["train"]["given_answer"]) <= set(before["train"]["answer"])
    assert {name: len(data[name]) for name in ("validation", "test")} == {
        n: len(before[n]) for n in ("validation", "test")
    }
    assert "given_answer" not in data["test"].column_names
    report = json.loads((tmp_path / "taught" / "report.json").read_text())
    assert (report["answers"], report["teacher"]) == (taught.written, "teacher")
    lines = (tmp_path / "taught" / "answers.jsonl").read_text()
    assert run("answer", *asked, "--output_dir", tmp_path / "taught").written == taught.written
    assert (tmp_path / "taught" / "answers.jsonl").read_text() == lines
    trainer = learn(work, tmp_path / "student", "--method", "seqkd", "--data", tmp_path / "taught", "--max_steps", 1)
    assert trainer.teacher is None
    assert "given_answer" in trainer.train_dataset.column_names


def test_an_unknown_method_is_refused_with_those_there_are(monkeypatch):
    with pytest.raises(ValueError, match=r"method='ulr': allowed are 'evl_ecg', .*'feature_mse'"):
        read(monkeypatch, "--method", "ulr", "--teacher", "t")


def test_help_prints_every_preset_in_full(capsys):
    with pytest.raises(SystemExit):
        distil.command(["--help"])
    text = capsys.readouterr().out
    assert "{presets}" not in text
    for name, values in PRESETS.items():
        line = next(line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert line.split()[1:] == [word for option, value in values.items() for word in (f"--{option}", str(value))]
