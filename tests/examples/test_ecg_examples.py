"""examples/evl_ecg: every script end to end at tiny size, two processes, resuming, valid results."""

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg.distillation.cache import CacheMismatchError
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.results import read_results, write_results
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "evl_ecg"
CONFIGS = FOLDER.parent / "configs"
PAGE = ["--image_width", 448, "--image_height", 224, "--grid", "thick", "--footer", False]
TRAIN = ["--use_cpu", "--report_to", "none", "--disable_tqdm", "True", "--per_device_train_batch_size", 3]
TRAIN += ["--save_strategy", "no", "--logging_steps", 1, "--train_records", 4, "--lr_scheduler_type", "constant"]


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules, by name; a script may bear the name of an installed package, such as evaluate."""

    def load(name: str):
        if not hasattr(sys.modules.get(name), "__file__") or str(FOLDER) in sys.modules[name].__file__:
            return importlib.import_module(name)
        own = f"script_{name}"
        if own not in sys.modules:
            spec = importlib.util.spec_from_file_location(own, FOLDER / f"{name}.py")
            sys.modules[own] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[own])
        return sys.modules[own]

    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    try:
        yield load
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.fixture(scope="module")
def run(scripts):
    """Call a script's main with options as on its command line."""

    def call(name: str, *options):
        module = scripts(name)
        kinds = module.main.__annotations__
        kinds = [kind for argument, kind in kinds.items() if argument != "return"]
        given = [str(option) for option in options]
        return module.main(*scripts("ecg_options").parse_arguments(given, *kinds, description=module.__doc__))

    return call


@pytest.fixture(scope="module")
def work(run, tmp_path_factory) -> Path:
    """Questions, a teacher that was trained for two steps, and a student with random weights."""
    folder = tmp_path_factory.mktemp("ecg")
    classes = ["NORM", "LBBB"]
    asked = ["--formats", "closed", "fill", "--tasks", "diagnosis", "heart_rate", "--classes", *classes]
    simulated = ["--simulated_train", 2, "--simulated_validation", 1, "--simulated_test", 2]
    run("prepare_data", *simulated, "--simulated_classes", *classes, *asked, "--output_dir", folder / "questions")
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--data", folder / "questions"]
    for kind, width in (("teacher", 24), ("student", 16)):
        run("small_models", "--kind", kind, *tiny, "--text_width", width, "--output_dir", folder / f"{kind}_init")
    vision = ["--pretrain_vision_steps", 1, "--pretrain_vision_batch_size", 2, "--pretrain_vision_classes", *classes]
    given = ["--model", folder / "teacher_init", "--data", folder / "questions", *PAGE, *TRAIN, *vision]
    run("train_teacher", *given, "--max_steps", 2, "--output_dir", folder / "teacher")
    return folder


def distil(run, work: Path, output, *more):
    options = ["--student", work / "student_init", "--data", work / "questions", *PAGE, *TRAIN, "--output_dir", output]
    return run("distill", *options, *more)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def distance(a, b) -> float:
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ecg_teacher", "ecg_distill"])
def test_configs_are_options_of_the_scripts(scripts, name, tmp_path):
    options, train, distill = scripts("ecg_options"), scripts("train_teacher"), scripts("distill")
    kinds = (train.TeacherArguments if name == "ecg_teacher" else distill.DistillArguments, options.ImageOptions)
    kinds += (options.LoraOptions, train.TeacherConfig if name == "ecg_teacher" else distill.EVLECGConfig)
    more = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "False", "--learning_rate", "0.5"]
    parsed = options.parse_arguments(["--config", str(CONFIGS / f"{name}.yaml"), *more], *kinds, description=None)
    assert parsed[-1].learning_rate == 0.5
    assert parsed[1].augment == yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["augment"]


def test_wrong_options_are_refused(scripts, run, work, tmp_path):
    with pytest.raises(ValueError, match="--sft_only"):
        scripts("distill").DistillArguments(student="s", data="q")
    with pytest.raises(ValueError, match=r"use distill\.py"):
        scripts("train_teacher").TeacherConfig(output_dir=str(tmp_path), alpha=0.5, use_cpu=True)
    with pytest.raises(ValueError, match="METHOD=FOLDER"):
        run("evaluate", "--models", "folder", "--data", "q", "--output_dir", tmp_path)
    with pytest.raises(ValueError, match="no split 'holdout'"):
        scripts("ecg_options").load_questions(work / "questions", "holdout")
    with pytest.raises(ValueError, match="No records"):
        run("prepare_data", "--output_dir", tmp_path / "none")


def test_records_are_limited_evenly_with_all_their_questions(scripts, work):
    load = scripts("ecg_options").load_questions
    everything, half = load(work / "questions", "train"), load(work / "questions", "train", 2)
    assert len(set(everything["record"])) == 4
    assert set(half["record"]) == {"NORM/0", "NORM/3"}
    assert len(half) == sum(record in set(half["record"]) for record in everything["record"])


# ---- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_same_seed_gives_the_same_model(run, work, tmp_path, kind):
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--text_width", 24]
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        given = ["--kind", kind, *tiny, "--data", work / "questions", "--seed", seed]
        run("small_models", *given, "--output_dir", tmp_path / name)
    assert distance(tmp_path / "one", tmp_path / "again") == 0
    assert distance(tmp_path / "one", tmp_path / "other") > 0


def test_training_in_conversations_goes_through_every_step(run, work, tmp_path):
    """All questions about a record in one sample for training; what is scored stays single questions."""
    asked = ["--formats", "closed", "fill", "--tasks", "diagnosis", "rhythm", "--balanced", "--turns", 4]
    simulated = ["--simulated_train", 2, "--simulated_validation", 1, "--simulated_classes", "AF", "LBBB"]
    questions = tmp_path / "questions"
    data = run("prepare_data", *simulated, *asked, "--output_dir", questions)
    assert data["train"].column_names[-1] == "conversations"
    assert max(map(len, data["train"]["conversations"])) > 2
    assert "question" in data["validation"].column_names
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--text_width", 16]
    run("small_models", "--kind", "student", *tiny, "--data", questions, "--output_dir", tmp_path / "student")
    cache = ["--teacher", work / "teacher", "--data", questions, *PAGE, "--top_k", 8, "--tokens", "answer"]
    run("cache_teacher", *cache, "--output_dir", tmp_path / "cache")
    given = ["--student", tmp_path / "student", "--teacher", work / "teacher", "--teacher_cache", tmp_path / "cache"]
    given += ["--data", questions, *PAGE, *TRAIN, "--hidden_tokens", "answer", "--max_steps", 2]
    trainer = run("distill", *given, "--output_dir", tmp_path / "distilled")
    assert distance(tmp_path / "student", tmp_path / "distilled") > 0
    assert {"ce", "mhca", "ot", "relation"} <= set().union(*trainer.state.log_history)


def test_prepare_data_writes_splits_and_reports_what_it_skips(run, tmp_path):
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
    data = run("prepare_data", *given)
    assert {name: set(part["record"]) for name, part in data.items()} == {"train": {"r0", "r1"}, "test": {"r2"}}
    report = json.loads((tmp_path / "questions" / "report.json").read_text())
    assert [record for record, _ in report["sources"][0]["skipped"]] == ["r3"]
    assert "skipped r3" in (tmp_path / "questions" / "report.md").read_text()
    assert {"split": "train", "source": "records", "records": 2, "questions": len(data["train"])} in report["counts"]
    with pytest.raises(ECGRecordError, match="r3"):
        run("prepare_data", *given, "--stop_on_bad")


@pytest.mark.real_data
def test_prepare_data_reads_every_real_source(run, data_dir, tmp_path):
    ecg = data_dir / "ecg"
    given = ["--ptbxl", ecg / "ptb-xl", "--ludb", ecg / "ludb", "--cinc", ecg / "cinc2021" / "training"]
    given += ["--ptbxl_filtered", ecg / "ptbxl_filtered", "--dx_mapping", ecg / "dx_mapping.csv"]
    data = run("prepare_data", *given, "--formats", "closed", "--per_record", 1, "--output_dir", tmp_path / "questions")
    patients = {name: {p for p in part["patient"] if p} for name, part in data.items()}
    assert patients["train"]
    assert not patients["train"] & (patients["validation"] | patients["test"])
    for part in data.values():
        assert {"ptb-xl-filtered", "ludb"} <= set(part["source"])


# ---- models ---------------------------------------------------------------------------------------------------------


def test_small_models_are_the_sizes_they_claim(scripts):
    small = scripts("small_models")
    texts = list(small.training_texts([]))
    teacher, teacher_processor = small.build_teacher(texts)
    student, student_processor = small.build_student(texts)
    assert 4 * student.num_parameters() <= teacher.num_parameters()
    answer = "Left bundle branch block, 72 beats per minute; ST elevation ≥ 1 mm"
    cut = []
    for processor in (teacher_processor, student_processor):
        ids = processor.tokenizer(answer, add_special_tokens=False).input_ids
        assert processor.tokenizer.decode(ids) == answer
        cut.append(processor.tokenizer.convert_ids_to_tokens(ids))
    assert cut[0] != cut[1]
    page = Image.new("RGB", small.IMAGE_SIZE, "white")
    pixels = [
        p.image_processor([page], return_tensors="pt")["pixel_values"] for p in (teacher_processor, student_processor)
    ]
    assert [tuple(p.flatten(0, -4).shape) for p in pixels] == [(3, 3, 224, 224)] * 2


def test_vision_pretraining_learns_and_leaves_the_decoder_alone(scripts):
    small, vision = scripts("small_models"), scripts("vision_pretraining")
    model, processor = small.build_student(list(small.training_texts([])), small.Sizes(24, 1, 16, 1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    draw = scripts("ecg_options").ImageOptions(448, 224, grid="thick", footer=False).renderer()
    plan = vision.VisionPretraining(steps=25, batch_size=8, learning_rate=5e-3, classes=("NORM", "LBBB"))
    scores = vision.pretrain_vision(model, processor, draw, plan, log_every=1000)
    assert scores["chance"] == 0.5
    assert scores["accuracy"] > 0.65
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("vision_model" in name for name in moved)


def test_teacher_moves_and_loads(work):
    assert distance(work / "teacher_init", work / "teacher") > 0
    assert distance(work / "teacher" / "vision", work / "teacher") > 0
    history = json.loads((work / "teacher" / "trainer_state.json").read_text())["log_history"]
    assert sum("loss" in entry for entry in history) == 2
    AutoModelForImageTextToText.from_pretrained(work / "teacher")
    AutoProcessor.from_pretrained(work / "teacher")
    assert not list((work / "teacher").rglob("*.bin"))


# ---- distillation ---------------------------------------------------------------------------------------------------


def test_student_learns_from_teacher_cache_and_answers(run, work, tmp_path):
    teacher = ["--teacher", work / "teacher", "--max_steps", 2, "--lambda_uld", 1, "--uld_top_k", 16]
    online = distil(run, work, tmp_path / "online", *teacher)
    assert {"ce", "mhca", "ot", "relation", "uld"} <= set(online.state.log_history[0])
    cache = ["--teacher", work / "teacher", "--data", work / "questions", "--output_dir", tmp_path / "cache"]
    cache += [*PAGE, "--dtype", "float32", "--train_records", 4]
    count = len(online.train_dataset)
    assert run("cache_teacher", *cache) == count
    assert run("cache_teacher", *cache) == 0
    cached = distil(run, work, tmp_path / "cached", *teacher, "--teacher_cache", tmp_path / "cache")
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (online, cached)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    names = weights(tmp_path / "online").keys()
    assert names == weights(work / "student_init").keys()
    with pytest.raises(CacheMismatchError, match="teacher"):
        distil(run, work, tmp_path / "x", "--teacher", work / "teacher_init", "--teacher_cache", tmp_path / "cache")
    other = ["--teacher_cache", tmp_path / "cache", "--paper", "blue"]
    with pytest.raises(CacheMismatchError, match="images"):
        distil(run, work, tmp_path / "x", *teacher, *other)
    alone = distil(run, work, tmp_path / "sft", "--sft_only", "--max_steps", 1)
    assert set(alone.state.log_history[0]) & {"ce", "mhca", "ot", "relation", "uld"} == {"ce"}


def test_resumed_equals_uninterrupted(run, work, tmp_path):
    teacher = ["--teacher", work / "teacher"]
    distil(run, work, tmp_path / "whole", *teacher, "--max_steps", 3)
    saved = ["--save_strategy", "steps", "--save_steps", 1]
    distil(run, work, tmp_path / "parts", *teacher, *saved, "--max_steps", 2)
    assert distance(tmp_path / "whole", tmp_path / "parts") > 1e-5
    distil(run, work, tmp_path / "parts", *teacher, *saved, "--max_steps", 3, "--resume_from_checkpoint", "last")
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-6


def test_adapters_and_metrics_while_training(scripts, run, work, tmp_path):
    lora = ["--sft_only", "--lora_rank", 2, "--max_steps", 1, "--eval_strategy", "steps", "--eval_steps", 1]
    lora += ["--eval_predictions", "likelihood", "--candidate_answers", "yes", "no", "--eval_records", 1]
    trainer = distil(run, work, tmp_path / "lora", *lora)
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and "text_model" in name for name in trained)
    model, _ = scripts("ecg_options").load_model(str(tmp_path / "lora"))
    assert {n for n, _ in model.named_parameters() if "lora_" in n}
    scores = [entry["eval_exact_match"] for entry in trainer.state.log_history if "eval_exact_match" in entry]
    assert len(scores) == 1
    assert 0 <= scores[0] <= 1
    generated = ["--sft_only", "--max_steps", 1, "--eval_strategy", "steps", "--eval_steps", 1, "--eval_records", 1]
    trainer = distil(run, work, tmp_path / "gen", *generated, "--eval_predictions", "generate", "--max_new_tokens", 4)
    assert any("eval_exact_match" in entry for entry in trainer.state.log_history)


def test_two_processes(work, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--cpu",
        "--mixed_precision",
        "no",
    ]
    launch += ["--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", str(port)]
    script = [str(FOLDER / "distill.py"), "--student", str(work / "student_init"), "--data", str(work / "questions")]
    script += ["--teacher", str(work / "teacher"), *map(str, [*PAGE, *TRAIN]), "--max_steps", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launch, *script, "--output_dir", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Written:") == 1
    assert distance(work / "student_init", tmp_path / "two") > 0


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_evaluation_writes_valid_results_and_asks_once(scripts, run, work, tmp_path, monkeypatch):
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
    monkeypatch.setattr("hf_evl_ecg.inference.evaluation._Asker.__call__", None)
    assert run("evaluate", *given, "--output_dir", tmp_path, "--min_per_class", 1) == rows


def test_table_marks_what_beats_chance(scripts):
    row = {"method": "a", "seed": None, "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "method": "b", "value": 0.6, "ci_low": 0.4, "ci_high": 0.7, "above_chance": False},
    ]
    lines = scripts("ecg_scores").markdown_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | **80.0 [70.0, 90.0]** | 60.0 [40.0, 70.0] |"


def test_a_teacher_is_not_pushed_with_its_pickles(scripts, tmp_path):
    with pytest.raises(ValueError, match=r"publish\.py"):
        scripts("train_teacher").TeacherConfig(str(tmp_path), push_to_hub=True, use_cpu=True)


def test_seeds_are_summarised(scripts):
    row = {"method": "a", "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "seed": 0, "value": 0.6, "ci_low": 0.4, "ci_high": 0.9, "above_chance": False},
        {**row, "seed": 1, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "method": "b", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "task": "s:t/AF", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
    ]
    lines = scripts("ecg_scores").seed_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | 70.0 ± 14.1 (1/2) | 70.0 (1/1) |"
    assert len(lines) == 5


def test_a_section_is_filled_from_results(scripts, run, tmp_path):
    row = {"method": "a", "seed": 0, "task": "real:t", "dim": None, "metric": "auc", "value": 0.8, "n": 9}
    row |= {"ci_low": 0.7, "ci_high": 0.9, "chance": 0.5, "above_chance": True}
    write_results(tmp_path / "ecg_x.json", "ecg_x", {}, [row, {**row, "task": "ludb:t"}])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:x -->\nold\n<!-- /results:x -->\nafter\n")
    given = ["--results", tmp_path / "ecg_x.json", "--markdown", page, "--section", "x"]
    for _ in range(2):
        run("ecg_scores", *given, "--tasks", "real:t")
        lines = page.read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "| real:t | auc | 9 | 50.0 | 80.0 (1/1) |" in lines
        assert not any("ludb" in line or line == "old" for line in lines)
    with pytest.raises(ValueError, match=r"no row of \['s'\]"):
        run("ecg_scores", *given, "--tasks", "s")
    with pytest.raises(ValueError, match="once each"):
        run("ecg_scores", *given[:-1], "y")


def test_real_sources_are_also_scored_together(scripts):
    group = scripts("ecg_scores")._by_source
    item = {"format": "closed", "answer": "yes", "labels": ["AF"]}
    classes = {"format": "open", "answer": "x", "labels": ["AF"], "options": ["atrial fibrillation"]}
    named = [("ludb", item), ("cinc/ptb", item), ("simulated", item), ("ludb", classes)]
    groups = group([({"source": source, **item}, None) for source, item in named])
    assert {name: len(pairs) for name, pairs in groups.items()} == {"real": 2, "ludb": 2, "cinc/ptb": 1, "simulated": 1}
    assert set(group([({"source": "ludb", **item}, None), ({"source": "simulated", **item}, None)])) == {
        "ludb",
        "simulated",
    }


# ---- whole studies --------------------------------------------------------------------------------------------------


def test_demo_runs_and_goes_on(scripts, run, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load((CONFIGS / "ecg_demo.yaml").read_text())
    config["build"] = {
        kind: {"vision_width": 16, "vision_layers": 1, "text_width": 16, "text_layers": 1}
        for kind in ("teacher", "student")
    }
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(config))
    given = ["--smoke", "--real_records", 0, "--output_dir", tmp_path / "out"]
    rows = run("demo", "--study", tmp_path / "demo.yaml", *given)
    out = capsys.readouterr().out
    assert "in a new process without hf_evl_ecg, its logits differ by" in " ".join(out.split())
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "export")
    assert "no ranking" in out
    assert {row["method"] for row in rows} == {"teacher", "sft", "evl_ecg"}
    assert read_results(tmp_path / "out" / "demo_ecg.json")["rows"] == rows
    with Image.open(tmp_path / "out" / "example.png") as picture:
        assert picture.width > 1000
    study, small = scripts("study"), scripts("study").shrink(config)
    monkeypatch.setattr(scripts("distill"), "main", None)
    study.Study(small, tmp_path / "out").train_students()
    assert "[sft_0] is done already" in capsys.readouterr().out
    small["student"]["learning_rate"] = 0.1
    with pytest.raises(ValueError, match="other settings"):
        study.Study(small, tmp_path / "out").train_students()
    with pytest.raises(ValueError, match="sections \\['methdos'\\]"):
        study.Study({**small, "methdos": {}}, tmp_path / "out")


@pytest.mark.parametrize("name", ["ecg_small", "ecg_demo"])
def test_study_files_hold_valid_options(scripts, name, tmp_path, monkeypatch):
    """Every stage's options are parsed, and none of the work is done."""
    study = scripts("study")
    monkeypatch.setattr(study.Stage, "run", lambda self, work: seen.append((self.folder.name, work)))
    seen: list = []
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    whole = study.Study(config, tmp_path, str(tmp_path))
    whole.prepare()
    whole.train_teacher()
    whole.train_students()
    called = []
    for script in ("prepare_data", "small_models", "train_teacher", "cache_teacher", "distill", "vision_pretraining"):
        monkeypatch.setattr(scripts(script), "main", lambda *a: called.append(a))
    whole = study.Study(config, tmp_path, str(tmp_path))
    seen.clear()
    whole.prepare(), whole.train_teacher(), whole.train_students()
    for _, work in seen:
        work()
    assert len(called) == len(seen) >= 6
    config["methods"] = {"sft": {"sft_only": True}, "other": {"sft_only": True, "seeds": [7]}}
    seen.clear()
    study.Study({**config, "seeds": [0, 1]}, tmp_path, str(tmp_path)).train_students()
    assert [folder for folder, _ in seen if folder[-1].isdigit()] == ["sft_0", "sft_1", "other_7"]
