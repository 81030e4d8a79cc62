"""studies/evl_ecg: small models, vision pre-training, whole studies, the demonstration, a section of a page."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText

from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.stages import Stage
from hf_evl_ecg.commands import answer, cache, distil, prepare, teach
from hf_evl_ecg.commands.study import shrink
from hf_evl_ecg.inference.taught_answers import has_taught_answers
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.results import read_results, write_results
from hf_evl_ecg.scores.archive import ArchiveError, pack_answers, pack_questions

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import distance, make_work, run, study_module

CONFIGS = Path(__file__).resolve().parents[3] / "studies" / "configs"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("ecg"))


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_same_seed_gives_the_same_model(work, tmp_path, kind):
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--text_width", 24]
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        given = ["--kind", kind, *tiny, "--data", work / "questions", "--seed", seed]
        run(study_module("small_models"), *given, "--output_dir", tmp_path / name)
    assert distance(tmp_path / "one", tmp_path / "again") == 0
    assert distance(tmp_path / "one", tmp_path / "other") > 0


def test_small_models_are_the_sizes_they_claim():
    small = study_module("small_models")
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


def test_vision_pretraining_learns_and_leaves_the_decoder_alone():
    small, vision = study_module("small_models"), study_module("vision_pretraining")
    model, processor = small.build_student(list(small.training_texts([])), small.Sizes(24, 1, 16, 1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    draw = ImageOptions(448, 224, grid="thick", footer=False).renderer()
    plan = vision.VisionPretraining(steps=25, batch_size=8, learning_rate=5e-3, classes=("NORM", "LBBB"))
    scores = vision.pretrain_vision(model, processor, draw, plan, log_every=1000)
    assert scores["chance"] == 0.5
    assert scores["accuracy"] > 0.65
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("vision_model" in name for name in moved)


def test_a_section_is_filled_from_results(tmp_path):
    row = {"method": "a", "seed": 0, "task": "real:t", "dim": None, "metric": "auc", "value": 0.8, "n": 9}
    row |= {"ci_low": 0.7, "ci_high": 0.9, "chance": 0.5, "above_chance": True}
    write_results(tmp_path / "ecg_x.json", "ecg_x", {}, [row, {**row, "task": "ludb:t"}])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:x -->\nold\n<!-- /results:x -->\nafter\n")
    given = ["--results", tmp_path / "ecg_x.json", "--markdown", page, "--section", "x"]
    for _ in range(2):
        run(study_module("results_section"), *given, "--tasks", "real:t")
        lines = page.read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "| real:t | auc | 9 | 50.0 | 80.0 (1/1) |" in lines
        assert not any("ludb" in line or line == "old" for line in lines)
    with pytest.raises(ValueError, match=r"no row of \['s'\]"):
        run(study_module("results_section"), *given, "--tasks", "s")
    with pytest.raises(ValueError, match="once each"):
        run(study_module("results_section"), *given[:-1], "y")


def test_demo_runs_and_goes_on(tmp_path, monkeypatch, capsys):
    small_study = study_module("small_study")
    config = yaml.safe_load((CONFIGS / "ecg_demo.yaml").read_text())
    config["build"] = {
        kind: {"vision_width": 16, "vision_layers": 1, "text_width": 16, "text_layers": 1}
        for kind in ("teacher", "student")
    }
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(config))
    given = ["--smoke", "--real_records", 0, "--output_dir", tmp_path / "out"]
    rows = run(study_module("demo"), "--study", tmp_path / "demo.yaml", *given)
    out = capsys.readouterr().out
    assert "in a new process without hf_evl_ecg, its logits differ by" in " ".join(out.split())
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "export")
    assert "no ranking" in out
    assert {row["method"] for row in rows} == {"teacher", "sft", "evl_ecg"}
    assert read_results(tmp_path / "out" / "demo_ecg.json")["rows"] == rows
    with Image.open(tmp_path / "out" / "example.png") as picture:
        assert picture.width > 1000
    small, kind = shrink(config, small_study.SMOKE), small_study.SmallStudy
    monkeypatch.setattr(distil, "main", None)
    kind(small, tmp_path / "out").train_students()
    assert "[sft_0] is done already" in capsys.readouterr().out
    small["student"]["learning_rate"] = 0.1
    with pytest.raises(ValueError, match="other settings"):
        kind(small, tmp_path / "out").train_students()
    with pytest.raises(ValueError, match="sections \\['methdos'\\]"):
        kind({**small, "methdos": {}}, tmp_path / "out")


@pytest.mark.parametrize("name", ["ecg_small", "ecg_rivals", "ecg_demo"])
def test_study_files_hold_valid_options(name, tmp_path, monkeypatch):
    """Every stage's options are parsed, and none of the work is done."""
    parsed: list = []
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    ready = config.pop("ready", {})
    assert all((CONFIGS.parents[1] / folder / "model.safetensors").is_file() for folder in ready.values())
    small_study, asked = study_module("small_study"), []
    stages = (prepare, teach, cache, distil, answer, small_study.general_start, small_study.small_models)
    own = (small_study.vision_pretraining, small_study.random_tower, small_study.completed_answers)
    for verb in (*stages, *own):
        monkeypatch.setattr(verb, "main", lambda *given: parsed.append(given))
    monkeypatch.setattr(small_study.SmallStudy, "ask", lambda self, model: asked.append(model))
    kind, other = small_study.SmallStudy, {"methods": {"sft": {"method": "sft"}}, "seeds": [0, 1]}
    other["methods"]["other"] = {"method": "sft", "seeds": [7]}
    for settings, output in ((config, tmp_path / "one"), ({**config, **other}, tmp_path / "other")):
        whole = kind(settings, output, str(tmp_path))
        whole.prepare(), whole.train_teacher(), whole.train_students()
    one, again = (sorted(path.parent.name for path in (tmp_path / o).glob("*/done.json")) for o in ("one", "other"))
    assert len(parsed) == len(one) + len(again)
    budgets = [f"-{budget}" for budget in config.get("budgets", {})] or [""]
    assert {"questions", "teacher_init", "student_init", "teacher_vision", "teacher"} <= set(one)
    assert {f"sft{budget}_0" for budget in budgets} <= set(one)
    assert {f"{stage}{budget.replace('-', '_')}" for budget in budgets for stage in ("cache", "questions")} <= set(one)
    assert {"student_general", "teacher_general"} <= set(one) or "general" not in config
    students = [folder for folder in again if folder[-1].isdigit()]
    assert students == sorted(
        f"{run}{budget}_{seed}" for budget in budgets for run, seed in (("other", 7), ("sft", 0), ("sft", 1))
    )
    one_method = {student.name for student in whole.students(["other"])}
    assert one_method == {f"other{budget}_7" for budget in budgets}
    assert set(asked) == ({"teacher", *students, *(f for f in one if f[-1].isdigit())} if budgets != [""] else set())


def test_a_general_start_keeps_its_parts_and_goes_on(work, tmp_path, capsys):
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--text_width", 16]
    run(
        study_module("small_models"),
        "--kind",
        "student",
        *tiny,
        "--data",
        work / "questions",
        "--output_dir",
        tmp_path / "a",
    )
    start, few = (
        study_module("general_start"),
        ["--reading_steps", 1, "--tower_steps", 1, "--stages", "1:1", "--eval_pages", 8],
    )
    given = ["--model", tmp_path / "a", "--output_dir", tmp_path / "b", *few, "--batch_size", 2, "--use_cpu"]
    scores = run(start, *given)
    assert set(scores) == {"reading", "tower", "up_to_1"}
    assert distance(tmp_path / "a", tmp_path / "b" / "reading") > 0
    assert distance(tmp_path / "b" / "reading", tmp_path / "b" / "tower") > 0
    assert distance(tmp_path / "b" / "up_to_1", tmp_path / "b") == 0
    capsys.readouterr()
    assert run(start, *given) == scores
    assert "reading step" not in capsys.readouterr().out, "what is done is not done again"
    AutoModelForImageTextToText.from_pretrained(tmp_path / "b")


def test_stages_whose_result_lies_ready_are_not_run(tmp_path, monkeypatch, capsys):
    small_study, ran = study_module("small_study"), []
    config = yaml.safe_load((CONFIGS / "ecg_rivals.yaml").read_text())
    config |= {
        "methods": {"sft": {"method": "sft"}},
        "seeds": [0],
        "ready": {"teacher": "weights/t", "student_general": "weights/s"},
    }
    verbs = (prepare, teach, cache, distil, small_study.general_start, small_study.small_models)
    for verb in (*verbs, small_study.vision_pretraining):
        monkeypatch.setattr(verb, "main", lambda *given: ran.append(given[0]))
    monkeypatch.setattr(small_study.SmallStudy, "ask", lambda self, model: None)
    study = small_study.SmallStudy(config, tmp_path / "out", str(tmp_path))
    study.prepare(), study.train_teacher(), study.train_students()
    kinds = {type(options).__name__ for options in ran}
    assert kinds == {"PrepareArguments", "BuildArguments", "CacheArguments", "DistillArguments"}
    assert {options.teacher for options in ran if hasattr(options, "shard_size")} == {"weights/t"}
    assert {options.student for options in ran if hasattr(options, "teacher_cache")} == {"weights/s"}
    assert "[teacher] is taken from weights/t" in capsys.readouterr().out


def test_processes_share_a_study(tmp_path):
    """Who finds a stage begun by another process goes on with the next, and a killed one's is free again."""
    ready, done = tmp_path / "ready", []
    text = "import sys, time, pathlib; from hf_evl_ecg.command_line.stages import Stage; "
    text += f"Stage(pathlib.Path({str(tmp_path / 'a')!r}), {{}}).run(lambda: (pathlib.Path({str(ready)!r}).touch(), time.sleep(60)))"
    other = subprocess.Popen([sys.executable, "-c", text])
    while not ready.exists():
        assert other.poll() is None
        time.sleep(0.05)
    stage = Stage(tmp_path / "a", {})
    stage.run(lambda: done.append("too early"), wait=False)
    other.kill(), other.wait()
    assert done == []
    stage.run(lambda: done.append("a"), wait=False)
    stage.run(lambda: done.append("again"))
    assert done == ["a"]


def test_a_random_tower_is_as_built_and_the_decoder_as_taught(work, tmp_path):
    small, random_tower = study_module("small_models"), study_module("random_tower")
    model, processor = small.build_student(list(small.training_texts([])), small.Sizes(16, 1, 16, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    model.save_pretrained(tmp_path / "taught"), processor.save_pretrained(tmp_path / "taught")
    run(random_tower, "--model", tmp_path / "taught", "--output_dir", tmp_path / "random")
    other = dict(AutoModelForImageTextToText.from_pretrained(tmp_path / "random").named_parameters())
    for name, parameter in model.named_parameters():
        moved = float((parameter - other[name]).abs().max())
        assert (moved > 0.01) == ("vision_model" in name), name
    tower = [p for name, p in other.items() if "vision_model" in name and p.ndim == 1]
    assert {float(value) for p in tower for value in p.unique()} == {0.0, 1.0}


def test_a_teacher_answers_only_what_the_hospital_did_not(tmp_path):
    complete = study_module("completed_answers").complete

    def said(record, *pairs):
        turns = [(role, text) for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=False)]
        return {"record": record, "conversations": [{"from": role, "value": text} for role, text in turns]}

    given = Dataset.from_list([said("a", ("Rhythm?", "AF")), said("b", ("Rhythm?",))])
    taught = Dataset.from_list(
        [
            said("a", ("Rhythm?", "sinus")),
            said("b", ("Rhythm?", "sinus"), ("Axis?", "normal")),
            said("c", ("Axis?", "x")),
        ]
    )
    asked = [said("", (turn[0]["value"],))["conversations"] for turn in taught["conversations"]]
    taught = taught.add_column("given_conversations", asked)
    rows = complete(given, taught)
    assert list(rows) == [{**given[0], "given_conversations": given[0]["conversations"]}, taught[1]]
    assert has_taught_answers(rows)  # else a student that is to learn a teacher's answers refuses them
    with pytest.raises(ValueError, match="no answer about 1 records, such as 'b'"):
        complete(given, taught.select([0]))


def test_answers_of_before_stand_in_for_students(tmp_path, monkeypatch, capsys):
    """A student whose answers are packed is not trained again, and its run is among those that are scored."""
    small_study, results = study_module("small_study"), study_module("small_results")
    item = {"source": "s", "record": "r", "task": "axis", "format": "closed", "answer": "no", "labels": ["LAD"]}
    pack_questions(tmp_path / "kept", [item])
    pack_answers(tmp_path / "kept", "sft-all", 3, [Answer("r", None, (-1.0, -2.0))])
    config = yaml.safe_load((CONFIGS / "ecg_rivals.yaml").read_text())
    config["ready"]["answers"] = str(tmp_path / "kept")
    study, trained = small_study.SmallStudy(config, tmp_path / "out", ""), []
    monkeypatch.setattr(study, "stage", lambda name, *rest, **options: trained.append(name))
    for student in study.students(["sft"]):
        study.train_student(student)
    assert trained[1:] == [
        f"sft-{budget}_{s}" for s in range(5) for budget in ("all", "tenth") if (budget, s) != ("all", 3)
    ]
    monkeypatch.setattr(results, "asked_questions", lambda folder, split: [item])
    given = (tmp_path / "out", "questions", "test", study.models(), tmp_path / "out", tmp_path / "kept")
    assert results.pack_runs(*given) == ([item], [("sft-all", 3, [Answer("r", None, (-1.0, -2.0))])])
    monkeypatch.setattr(results, "asked_questions", lambda folder, split: [item | {"answer": "yes"}])
    with pytest.raises(ArchiveError, match="other questions"):
        results.pack_runs(*given)


def test_students_of_a_budget_learn_from_what_their_method_says(tmp_path, monkeypatch):
    """Which questions and which cache each student of the study reads."""
    small_study = study_module("small_study")
    config = yaml.safe_load((CONFIGS / "ecg_rivals.yaml").read_text())
    study = small_study.SmallStudy(config, tmp_path, "")
    read = {
        s.name: (Path(s.options["data"]).name, Path(s.options.get("teacher_cache", "")).name)
        for s in study.students(["sft", "evl_ecg", "seqkd", "evl_ecg_taught", "random_tower"])
        if s.seed == 0
    }
    assert read == {
        "sft-all_0": ("questions_all", ""),
        "sft-tenth_0": ("questions_tenth", ""),
        "evl_ecg-all_0": ("questions_all", "cache_all"),
        "evl_ecg-tenth_0": ("questions_tenth", "cache_tenth"),
        "seqkd-all_0": ("taught_all", ""),
        "seqkd-tenth_0": ("completed_tenth", ""),
        "evl_ecg_taught-tenth_0": ("completed_tenth", "cache_completed_tenth"),
        "random_tower-all_0": ("questions_all", ""),
    }
    blind = {name: entry[0] for name, entry in study.models().items() if "no_image" in name}
    assert blind == {"teacher_no_image": "teacher_no_image"} | {
        f"sft-all_{s}_no_image": "sft-all_no_image" for s in range(5)
    }
    config["methods"] = {"sft": {"method": "sft", "in_budget": {"tenth": {"max_steps": 7}}, "seeds": [0]}}
    students = small_study.SmallStudy(config, tmp_path, "").students()
    assert [student.options.get("max_steps") for student in students] == [None, 7]
