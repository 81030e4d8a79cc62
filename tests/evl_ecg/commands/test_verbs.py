"""The verbs end to end at tiny size: questions, teacher, cache, students, scores; resuming; valid results."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg.commands.distil import DistillArguments
from hf_evl_ecg.data import RenderedECG, load_ecg
from hf_evl_ecg.data.stored import load_questions
from hf_evl_ecg.distillation.cache_files import CacheMismatchError
from hf_evl_ecg.distillation.runs import TeacherConfig
from hf_evl_ecg.drawing.trained_pages import PagesError, read_pages
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.results import read_results
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import PAGE, TRAIN, distance, distil, make_work, run, study_module, weights
from written_records import write_normal


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("ecg"))


def test_wrong_options_are_refused(work, tmp_path):
    with pytest.raises(ValueError, match="--method sft"):
        DistillArguments(student="s", data="q")
    with pytest.raises(ValueError, match="use hf-evl-ecg distil"):
        TeacherConfig(output_dir=str(tmp_path), alpha=0.5, use_cpu=True)
    with pytest.raises(ValueError, match="METHOD=FOLDER"):
        run("evaluate", "--models", "folder", "--data", "q", "--output_dir", tmp_path)
    with pytest.raises(ValueError, match="split='holdout'"):
        load_questions(work / "questions", "holdout")
    with pytest.raises(ValueError, match="no records: name"):
        run("prepare", "--output_dir", tmp_path / "none")


def test_training_in_conversations_goes_through_every_step(work, tmp_path):
    """All questions about a record in one sample for training; what is scored stays single questions."""
    asked = ["--formats", "closed", "fill", "--tasks", "diagnosis", "rhythm", "--balanced", "--turns", 4]
    simulated = ["--simulated_train", 2, "--simulated_validation", 1, "--simulated_classes", "AF", "LBBB"]
    questions = tmp_path / "questions"
    data = run("prepare", *simulated, *asked, "--output_dir", questions)
    assert data["train"].column_names[-1] == "conversations"
    assert max(map(len, data["train"]["conversations"])) > 2
    assert "question" in data["validation"].column_names
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--text_width", 16]
    run(
        study_module("small_models"),
        "--kind",
        "student",
        *tiny,
        "--data",
        questions,
        "--output_dir",
        tmp_path / "student",
    )
    cache = ["--teacher", work / "teacher", "--data", questions, *PAGE, "--top_k", 8, "--tokens", "answer"]
    cache += ["--visual_weights", "ink"]
    run("cache", *cache, "--output_dir", tmp_path / "cache")
    given = ["--student", tmp_path / "student", "--teacher", work / "teacher", "--teacher_cache", tmp_path / "cache"]
    given += [
        "--data",
        questions,
        *PAGE,
        *TRAIN,
        "--hidden_tokens",
        "answer",
        "--max_steps",
        2,
        "--visual_weights",
        "ink",
    ]
    trainer = run("distil", *given, "--output_dir", tmp_path / "distilled")
    assert distance(tmp_path / "student", tmp_path / "distilled") > 0
    assert {"ce", "mhca", "ot", "relation"} <= set().union(*trainer.state.log_history)


def test_prepare_data_writes_splits_and_reports_what_it_skips(tmp_path):
    source = tmp_path / "records"
    source.mkdir()
    for i, label in enumerate(["NORM", "AF", "LBBB", "NORM"]):
        ecg = simulate(label, seed=i, fs_hz=100.0)
        record = {"fs": 100, "units": ["mV"] * 12, "sig_name": list(STANDARD_LEADS), "fmt": ["16"] * 12}
        wfdb.wrsamp(f"r{i}", p_signal=ecg.signal_mv.astype(np.float64), write_dir=str(source), **record)
    (source / "r3.dat").write_bytes(b"")
    splits = ["train", "train", "test", "test"]
    lines = [f"r{i},{label},{split}" for i, (label, split) in enumerate(zip(["NORM", "AF", "LBBB", "NORM"], splits))]
    (source / "records.csv").write_text("\n".join(["record,labels,split", *lines]) + "\n")
    given = ["--folder", source, "--formats", "closed", "--output_dir", tmp_path / "questions"]
    data = run("prepare", *given)
    assert {name: set(part["record"]) for name, part in data.items()} == {"train": {"r0", "r1"}, "test": {"r2"}}
    report = json.loads((tmp_path / "questions" / "report.json").read_text())
    assert [record for record, _ in report["sources"][0]["skipped"]] == ["r3"]
    assert "skipped r3" in (tmp_path / "questions" / "report.md").read_text()
    assert {"split": "train", "source": "records", "records": 2, "questions": len(data["train"])} in report["counts"]
    answers = {(row["split"], row["task"]): row for row in report["answers"]}
    rhythm = answers["train", "rhythm_closed"]
    asked = [item["answer"] for item in data["train"] if item["task"] == "rhythm"]
    assert rhythm["answers"] == {answer: asked.count(answer) for answer in ("yes", "no")}
    assert sum(found["yes"] for found in rhythm["classes"].values()) == asked.count("yes") > 0
    text = (tmp_path / "questions" / "report.md").read_text()
    assert f"| train | rhythm_closed | {len(asked)} | yes {asked.count('yes')}, no {asked.count('no')} |" in text
    with pytest.raises(ECGRecordError, match="r3"):
        run("prepare", *given, "--stop_on_bad")


def test_missing_samples_of_prepare_reach_whoever_reads_a_question(tmp_path):
    """Interpolated in preparation, training and evaluation alike: all of them read the row."""
    root = tmp_path / "mine"
    write_normal(root / "a")
    samples = np.fromfile(root / "a.dat", "<i2").reshape(-1, 12)
    samples[100:110, 7] = -(2**15)
    samples.tofile(root / "a.dat")
    (root / "records.csv").write_text("record,split,labels\na,train,SR\n")
    given = ["--folder", root, "--formats", "fill", "--check", "signal", "--output_dir", tmp_path / "questions"]
    with pytest.raises(ValueError, match="--missing interpolate"):
        run("prepare", *given)
    given += ["--simulated_train", 1]
    for more in (["--turns", 1], ["--turns", 4], ["--turns", 4, "--labelled_share", 0.5]):
        run("prepare", *given, "--missing", "interpolate", *more)
        item = next(row for row in load_questions(tmp_path / "questions", "train") if row["record"] == "a")
        assert item["missing"] == "interpolate"
        assert load_ecg(item).metadata["interpolated_samples"] == {"V2": 10}
        assert RenderedECG()(item).size


def test_prepare_refuses_one_recording_of_two_sources_in_two_splits(tmp_path):
    """The Challenge splits at random what the folder's table calls test records."""
    root = tmp_path / "georgia"
    for i in range(4):
        write_normal(root / f"E0000{i}", seed=i, comments=["Dx: 426783006"])
    (root / "records.csv").write_text("record,split,labels\n" + "".join(f"E0000{i},test,SR\n" for i in range(4)))
    given = ["--folder", root, "--output_dir", tmp_path / "questions"]
    run("prepare", *given, "--formats", "fill")
    with pytest.raises(ValueError, match="a recording belongs to one split"):
        run("prepare", *given, "--cinc", tmp_path)


@pytest.mark.real_data
def test_prepare_data_reads_every_real_source(data_dir, tmp_path):
    ecg = data_dir / "ecg"
    given = ["--ptbxl", ecg / "ptb-xl", "--ludb", ecg / "ludb", "--cinc", ecg / "cinc2021" / "training"]
    given += ["--ptbxl_filtered", ecg / "ptbxl_filtered", "--dx_mapping", ecg / "dx_mapping.csv"]
    data = run("prepare", *given, "--formats", "closed", "--per_record", 1, "--output_dir", tmp_path / "questions")
    patients = {name: {p for p in part["patient"] if p} for name, part in data.items()}
    assert patients["train"]
    assert not patients["train"] & (patients["validation"] | patients["test"])
    for part in data.values():
        assert {"ptb-xl-filtered", "ludb"} <= set(part["source"])


def test_teacher_moves_and_loads(work):
    assert distance(work / "teacher_init", work / "teacher") > 0
    history = json.loads((work / "teacher" / "trainer_state.json").read_text())["log_history"]
    assert sum("loss" in entry for entry in history) == 2
    AutoModelForImageTextToText.from_pretrained(work / "teacher")
    AutoProcessor.from_pretrained(work / "teacher")
    assert not list((work / "teacher").rglob("*.bin"))


def test_student_learns_from_teacher_cache_and_answers(work, tmp_path):
    teacher = ["--teacher", work / "teacher", "--max_steps", 2, "--lambda_uld", 1, "--uld_top_k", 16]
    online = distil(work, tmp_path / "online", *teacher)
    assert {"ce", "mhca", "ot", "relation", "uld"} <= set(online.state.log_history[0])
    cache = ["--teacher", work / "teacher", "--data", work / "questions", "--output_dir", tmp_path / "cache"]
    cache += [*PAGE, "--dtype", "float32", "--train_records", 4]
    count = len(online.train_dataset)
    assert run("cache", *cache) == count
    assert run("cache", *cache) == 0
    cached = distil(work, tmp_path / "cached", *teacher, "--teacher_cache", tmp_path / "cache")
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (online, cached)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    names = weights(tmp_path / "online").keys()
    assert names == weights(work / "student_init").keys()
    with pytest.raises(CacheMismatchError, match="teacher"):
        distil(work, tmp_path / "x", "--teacher", work / "teacher_init", "--teacher_cache", tmp_path / "cache")
    other = ["--teacher_cache", tmp_path / "cache", "--augment", 0.5]
    with pytest.raises(CacheMismatchError, match="images"):
        distil(work, tmp_path / "x", *teacher, *other)
    alone = distil(work, tmp_path / "sft", "--sft_only", "--max_steps", 1)
    assert set(alone.state.log_history[0]) & {"ce", "mhca", "ot", "relation", "uld"} == {"ce"}


def test_a_teacher_whose_attention_is_read_runs_eagerly(work, tmp_path):
    given = ["--teacher", work / "teacher", "--max_steps", 1, "--visual_weights", "teacher_attention"]
    trainer = distil(work, tmp_path / "student", *given)
    assert trainer.state.log_history[0]["ot"] > 0
    assert trainer.teacher.model.get_decoder().config._attn_implementation == "eager"
    cache = [
        "--teacher",
        work / "teacher",
        "--data",
        work / "questions",
        *PAGE,
        "--train_records",
        1,
        "--layers",
        -1,
        1,
    ]
    assert run("cache", *cache, "--visual_weights", "teacher_attention", "--output_dir", tmp_path / "cache") > 0


def test_resumed_equals_uninterrupted(work, tmp_path):
    teacher = ["--teacher", work / "teacher"]
    distil(work, tmp_path / "whole", *teacher, "--max_steps", 3)
    saved = ["--save_strategy", "steps", "--save_steps", 1]
    distil(work, tmp_path / "parts", *teacher, *saved, "--max_steps", 2)
    assert distance(tmp_path / "whole", tmp_path / "parts") > 1e-5
    distil(work, tmp_path / "parts", *teacher, *saved, "--max_steps", 3, "--resume_from_checkpoint", "last")
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-6


def test_adapters_and_metrics_while_training(work, tmp_path):
    lora = ["--sft_only", "--lora_rank", 2, "--max_steps", 1, "--eval_strategy", "steps", "--eval_steps", 1]
    lora += ["--eval_predictions", "likelihood", "--candidate_answers", "yes", "no", "--eval_records", 1]
    trainer = distil(work, tmp_path / "lora", *lora)
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and "text_model" in name for name in trained)
    model, _ = load_model(str(tmp_path / "lora"))
    assert {n for n, _ in model.named_parameters() if "lora_" in n}
    scores = [entry["eval_exact_match"] for entry in trainer.state.log_history if "eval_exact_match" in entry]
    assert len(scores) == 1
    assert 0 <= scores[0] <= 1
    generated = ["--sft_only", "--max_steps", 1, "--eval_strategy", "steps", "--eval_steps", 1, "--eval_records", 1]
    trainer = distil(work, tmp_path / "gen", *generated, "--eval_predictions", "generate", "--max_new_tokens", 4)
    assert any("eval_exact_match" in entry for entry in trainer.state.log_history)


def test_evaluation_writes_valid_results_and_asks_once(work, tmp_path, monkeypatch):
    models = [f"teacher={work / 'teacher'}", f"start={work / 'student_init'}"]
    given = ["--models", *models, "--data", work / "questions", *PAGE, "--max_new_tokens", 4, "--n_bootstrap", 20]
    rows = run("evaluate", *given, "--output_dir", tmp_path, "--min_per_class", 1)
    results = read_results(tmp_path / "ecg_scores.json")
    assert results["rows"] == rows
    assert {row["method"] for row in rows} == {"teacher", "start"}
    assert all(row["task"].startswith("simulated:") for row in rows)
    assert {"balanced_accuracy", "auc", "macro_auc", "within_tolerance"} <= {row["metric"] for row in rows}
    table = (tmp_path / "ecg_scores.md").read_text()
    assert "| task | metric | n | chance | teacher | start |" in table
    assert "not patients" in table
    with Image.open(tmp_path / "ecg_scores.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    monkeypatch.setattr("hf_evl_ecg.inference.asking.Asker.__call__", None)
    assert run("evaluate", *given, "--output_dir", tmp_path, "--min_per_class", 1) == rows
    compared = run("evaluate", *given, "--output_dir", tmp_path, "--min_per_class", 1, "--compare", "start")
    assert compared[: len(rows)] == rows
    gains = {(row["method"], row["metric"]) for row in compared[len(rows) :]}
    assert {("teacher", "auc_gain_over_start"), ("teacher", "accuracy_gain_over_start")} <= gains
    assert {method for method, _ in gains} == {"teacher"}
    text = (tmp_path / "ecg_scores.md").read_text()
    assert text.startswith(table), "what is compared stands below"
    assert "| task | metric | n | teacher − start |" in text
    with pytest.raises(ValueError, match=r"compare=\['sft'\].*allowed are \['start', 'teacher'\]"):
        run("evaluate", *given, "--output_dir", tmp_path, "--compare", "sft")


def test_every_verb_draws_as_the_model_was_trained(work, tmp_path, capsys):
    """Without options a model is asked about pages of its training; other pages are refused before anything is asked."""
    assert read_pages(work / "teacher").width_px == 448
    asked = [
        "--models",
        f"teacher={work / 'teacher'}",
        "--data",
        work / "questions",
        "--max_new_tokens",
        2,
        "--n_bootstrap",
        0,
    ]
    run("evaluate", *asked, "--output_dir", tmp_path / "scores")
    results = read_results(tmp_path / "scores" / "ecg_scores.json")
    assert (results["config"]["images"]["width_px"], results["config"]["images"]["grid"]) == (448, "thick")
    assert "drawn as in its training, 448 x 224 px" in capsys.readouterr().out
    for verb, more in (
        ("evaluate", asked),
        ("cache", ["--teacher", work / "teacher", "--data", work / "questions"]),
        ("answer", ["--teacher", work / "teacher", "--data", work / "questions"]),
        ("export", ["--model", work / "teacher"]),
    ):
        with pytest.raises(PagesError, match="image_width 640 against 448"):
            run(verb, *more, "--image_width", 640, "--output_dir", tmp_path / verb)
        assert not (tmp_path / verb).exists() or not any((tmp_path / verb).iterdir())
    distil(work, tmp_path / "student", "--teacher", work / "teacher", "--max_steps", 1)
    assert read_pages(tmp_path / "student") == read_pages(work / "teacher")


def test_a_teacher_is_not_pushed_with_its_pickles(tmp_path):
    with pytest.raises(ValueError, match="hf-evl-ecg publish"):
        TeacherConfig(str(tmp_path), push_to_hub=True, use_cpu=True)
