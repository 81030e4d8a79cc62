"""A study on models that the user names: stages once, a teacher that is trained or given, wrong files refused."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from hf_evl_ecg.commands import cache, distil, prepare, teach
from hf_evl_ecg.commands.study import Study
from hf_evl_ecg.results import read_results

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import make_work, run

IMAGES = {"image_width": 448, "image_height": 224, "grid": "thick", "footer": False}
TRAINING = {"per_device_train_batch_size": 3, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("ecg"))


@pytest.fixture
def config(work) -> dict:
    asked = {"simulated_train": 2, "simulated_test": 1, "simulated_classes": ["NORM", "LBBB"]}
    return {
        "study": "own",
        "images": IMAGES,
        "questions": {**asked, "formats": ["closed"], "tasks": ["diagnosis"]},
        "teacher": str(work / "teacher"),
        "student": {"student": str(work / "student_init"), **TRAINING},
        "methods": {"sft": {"sft_only": True}},
        "evaluate": {"max_new_tokens": 4, "n_bootstrap": 20, "progress_bar": False},
    }


def test_a_given_teacher_is_scored_and_not_trained(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teach, "main", None)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    rows = run("study", tmp_path / "own.yaml", "--smoke", "--output_dir", tmp_path / "out")
    assert {(row["method"], row["seed"]) for row in rows} == {("teacher", None), ("sft", 0)}
    report = read_results(tmp_path / "out" / "own.json")["config"]["questions_report"]
    assert report["answers"]
    assert report["config"]["output_dir"] == "questions", "no folder of one machine"
    stages = sorted(path.parent.name for path in (tmp_path / "out").glob("*/done.json"))
    assert stages == ["questions", "sft_0"]
    settings = json.loads((tmp_path / "out" / "sft_0" / "stage.json").read_text())["settings"]
    assert settings["max_steps"] == 2
    assert settings["resume_from_checkpoint"] == "last"
    capsys.readouterr()
    assert run("study", tmp_path / "own.yaml", "--smoke", "--output_dir", tmp_path / "out") == rows
    assert "[sft_0] is done already" in capsys.readouterr().out


def test_a_student_of_another_teacher_at_the_same_path_is_not_taken_for_done(config, tmp_path, monkeypatch):
    ran = []
    for verb in (prepare, cache, distil):
        monkeypatch.setattr(verb, "command", lambda given, prog: ran.append(prog))
    for name in ("teacher", "ptbxl", "ludb"):
        (tmp_path / name).mkdir()
    (tmp_path / "teacher" / "model.safetensors").write_text("first")
    config |= {"teacher": str(tmp_path / "teacher"), "cache": {}, "methods": {"evl_ecg": {}}}
    config["questions"] |= {"ludb": "ludb"}

    def run_stages():
        study = Study(config, tmp_path / "out", str(tmp_path))
        study.prepare(), study.train_teacher(), study.train_students()

    run_stages(), run_stages()
    assert ran == ["stage questions", "stage cache", "stage evl_ecg_0"]
    inputs = {
        n: json.loads((tmp_path / "out" / n / "stage.json").read_text())["inputs"]
        for n in ("questions", "cache", "evl_ecg_0")
    }
    assert [sorted(found) for found in inputs.values()] == [
        [],
        ["data", "teacher"],
        ["data", "student", "teacher", "teacher_cache"],
    ]
    (tmp_path / "teacher" / "model.safetensors").write_text("again")
    with pytest.raises(ValueError, match=r"cache: was made from other contents of teacher="):
        run_stages()


def test_the_stages_get_the_options_of_their_sections(config, tmp_path, monkeypatch):
    seen: dict = {}
    monkeypatch.setattr(Study, "stage", lambda self, name, verb, options, wait=True: seen.update({name: options}))
    own = {"alpha": 0.3, "seeds": [3, 4]}
    config |= {"teacher": {"model": "hub/model", "seed": 5}, "cache": {"top_k": 8}, "methods": {"evl_ecg": own}}
    config["questions"] |= {"ludb": "ludb"}
    study = Study(config, tmp_path, "data")
    study.prepare(), study.train_teacher(), study.train_students()
    assert list(seen) == ["questions", "teacher", "cache", "evl_ecg_3", "evl_ecg_4"]
    assert seen["questions"]["ludb"] == str(Path("data", "ludb"))
    assert seen["teacher"]["model"] == "hub/model"
    assert seen["cache"] == {
        "teacher": str(tmp_path / "teacher"),
        "data": str(tmp_path / "questions"),
        **IMAGES,
        "top_k": 8,
    }
    assert seen["evl_ecg_4"]["teacher_cache"] == str(tmp_path / "cache")
    assert (seen["evl_ecg_4"]["alpha"], seen["evl_ecg_4"]["seed"]) == (0.3, 4)
    assert "seeds" not in seen["evl_ecg_4"]
    assert study.models()["teacher"] == ("teacher", 5, str(tmp_path / "teacher"))
    assert study.models()["evl_ecg_3"] == ("evl_ecg", 3, str(tmp_path / "evl_ecg_3"))


def test_wrong_files_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"unknown sections \['methdos'\]"):
        Study({**config, "methdos": {}}, tmp_path)
    with pytest.raises(ValueError, match=r"missing sections \['questions'\]"):
        Study({name: value for name, value in config.items() if name != "questions"}, tmp_path)
    with pytest.raises(ValueError, match=r"student\.student: is missing"):
        Study({**config, "student": {}}, tmp_path).student_start()
    with pytest.raises(ValueError, match=r"methods=\['uld'\]: are not in the study"):
        Study(config, tmp_path).train_students(["uld"])
