"""studies/evl_ecg/card_data.py: a study's folder → facts and pictures → a card that a stranger can run."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hf_evl_ecg.cards.card import write_card
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.commands.prepare import PrepareArguments
from hf_evl_ecg.commands.prepare import main as prepare
from hf_evl_ecg.data.stored import load_questions
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.scores.models import score_model
from hf_evl_ecg.scores.report import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import run, study_module

IMAGES = {"image_width": 448, "image_height": 224, "grid": "thick", "footer": False}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """What a study leaves behind, with models of random weights."""
    folder = tmp_path_factory.mktemp("study")
    small = study_module("small_models")
    asked = {"simulated_train": 1, "simulated_test": 4, "simulated_classes": ["NORM", "AF"], "formats": ["closed"]}
    prepare(PrepareArguments(str(folder / "questions"), tasks=["diagnosis", "rhythm"], **asked))
    questions = load_questions(str(folder / "questions"), "test")
    rows = []
    for kind, name, method in (("teacher", "teacher", "teacher"), ("student", "evl_ecg_0", "evl_ecg")):
        small.main(small.BuildArguments(kind, data=str(folder / "questions"), output_dir=str(folder / name)))
        model, processor = load_model(str(folder / name))
        found, _ = score_model(
            model.eval(),
            processor,
            questions,
            ImageOptions(**IMAGES).renderer(),
            method=method,
            seed=0,
            answers=folder / f"answers_{name}_test.jsonl",
            n_bootstrap=20,
            max_new_tokens=2,
            progress_bar=False,
        )
        rows += found
        (folder / name / "done.json").write_text(json.dumps({"seconds": 12.5}))
    config = {"study": "ecg_tiny", "images": IMAGES, "questions": {"tasks": ["diagnosis", "rhythm"]}, "student": {}}
    config |= {"methods": {"evl_ecg": {}}, "seeds": [0], "evaluate": {"max_new_tokens": 2}}
    config["questions_report"] = json.loads((folder / "questions" / "report.json").read_text())
    write_report(folder, "ecg_tiny", config, rows)
    return folder


@pytest.fixture(scope="module")
def cards(study, tmp_path_factory) -> Path:
    """The folder of cards, with the card of the study."""
    folder = tmp_path_factory.mktemp("cards")
    out = folder / "results" / "ecg_tiny_card.json"
    given = ["--study_dir", study, "--output", out, "--pictures", folder, "--failures", 2]
    run(study_module("card_data"), *given)
    (folder / "results" / "ecg_tiny.json").write_bytes((study / "ecg_tiny.json").read_bytes())
    spec = {"name": "ECG-tiny", "method": "evl_ecg", "seed": 0, "results": "results/ecg_tiny.json"}
    (folder / "ecg_tiny.yaml").write_text(yaml.safe_dump(spec | {"facts": "results/ecg_tiny_card.json"}))
    write_card(folder / "ecg_tiny.yaml")
    return folder


def test_facts_hold_what_the_card_needs(study, cards):
    facts = json.loads((cards / "results" / "ecg_tiny_card.json").read_text())
    assert (facts["study"], facts["method"], facts["seed"]) == ("ecg_tiny", "evl_ecg", 0)
    assert facts["models"]["student"]["visual_tokens"] == 48
    assert facts["models"]["teacher"]["visual_tokens"] == 200
    assert [stage["stage"] for stage in facts["stages"]] == ["teacher", "evl_ecg_0"]
    assert set(facts["reliability"]) == {"evl_ecg", "teacher"}
    assert facts["failures"], "a model of random weights answers wrongly"
    for case in facts["failures"]:
        with Image.open(cards / case["image"]) as picture:
            assert picture.size == (448, 224)
        assert (cards / case["image"]).stat().st_size < 60_000
    assert str(study) not in (cards / "results" / "ecg_tiny_card.json").read_text()


@pytest.mark.parametrize("name", ["teacher", "evl_ecg_0"])
def test_models_are_described_as_they_are(study, name):
    found = study_module("card_facts").describe_model(study / name, image_width=56, image_height=40)
    model, processor = load_model(str(study / name))
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["architecture"] == type(model).__name__
    assert found["text"]["width"] == model.config.text_config.hidden_size
    assert found["vision"]["layers"] == model.config.vision_config.num_hidden_layers
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    inputs = processor(text=[text], images=[[Image.new("RGB", (56, 40))]], return_tensors="pt")
    assert found["visual_tokens"] == int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert 0 < found["visual_tokens"] < found["prompt_tokens"]


def test_a_teacher_that_lay_ready_is_described_from_there(study, cards, tmp_path):
    moved = tmp_path / "study"
    shutil.copytree(study, moved)
    (moved / "teacher").rename(tmp_path / "ready")
    results = json.loads((moved / "ecg_tiny.json").read_text())
    results["config"]["ready"] = {"teacher": str(tmp_path / "ready")}
    (moved / "ecg_tiny.json").write_text(json.dumps(results))
    found = run(study_module("card_data"), "--study_dir", moved, "--output", tmp_path / "facts.json", "--failures", 0)
    assert found["models"] == json.loads((cards / "results" / "ecg_tiny_card.json").read_text())["models"]


def test_drawings_of_real_records_can_be_left_out(study, tmp_path, monkeypatch):
    module = study_module("card_data")
    read = module.read_answers

    def half_of_them_real(path, items):
        pairs = read(path, items)
        return [({**item, "source": "ludb"} if i % 2 else item, answer) for i, (item, answer) in enumerate(pairs)]

    monkeypatch.setattr(module, "read_answers", half_of_them_real)
    given = ["--study_dir", study, "--output", tmp_path / "facts.json", "--pictures", tmp_path, "--no_draw_real"]
    facts = run(module, *given)
    sources = [case["source"] for case in facts["failures"]]
    assert sources == sorted(sources), "real ones first"
    assert set(sources) == {"ludb", "simulated"}
    assert ["image" in case for case in facts["failures"]] == [source == "simulated" for source in sources]


def test_the_card_is_whole_and_names_no_folder_of_this_machine(study, cards):
    text = (cards / "ecg_tiny.md").read_text()
    assert str(study) not in text
    wanted = [
        "Results",
        "Reliability",
        "Failure cases",
        "Data",
        "Training",
        "Architecture",
        "Cost",
        "Limits",
        "Citation",
    ]
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in wanted] == wanted
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (cards / name).is_file()
    rows = json.loads((study / "ecg_tiny.json").read_text())["rows"]
    value = next(r for r in rows if r["method"] == "evl_ecg" and r["metric"] == "auc")
    assert f"{100 * value['value']:.1f} [{100 * value['ci_low']:.1f}, {100 * value['ci_high']:.1f}]" in text


@pytest.mark.real_data
def test_the_code_of_the_card_runs(study, cards, tmp_path, monkeypatch, data_dir):
    blocks = re.findall(r"```python\n(.+?)```", (cards / "ecg_tiny.md").read_text(), re.DOTALL)
    (run, four_bits, draw) = blocks
    monkeypatch.chdir(tmp_path)
    record = data_dir / "ecg" / "cinc2021" / "training" / "ptb-xl"
    record = next(iter(sorted(record.rglob("*.hea")))).with_suffix("")
    exec(draw.replace("path/to/record", str(record)), {})
    with Image.open("ecg.png") as page:
        assert page.size == (448, 224)
    scope: dict = {}
    exec(run.replace("path/to/this/folder", str(study / "evl_ecg_0")).replace("print(", "answer = ("), scope)
    assert isinstance(scope["answer"], str)
    compile(four_bits, "card", "exec")


def test_wrong_folders_are_refused(study, tmp_path):
    module = study_module("card_data")
    with pytest.raises(ValueError, match="has no model uld_0"):
        module.main(module.CardDataArguments(str(study), str(tmp_path / "x.json"), method="uld"))
    with pytest.raises(ValueError, match="holds 0 results"):
        module.main(module.CardDataArguments(str(tmp_path), str(tmp_path / "x.json")))
    assert list(tmp_path.iterdir()) == []
