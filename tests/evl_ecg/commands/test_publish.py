"""publish, and distil with --push_to_hub, send the student or drawn ECGs and nothing else."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load

from hf_evl_ecg.commands.export import is_export
from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.hub import export, publish
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.sources.simulated import load_simulated

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import reload_here
from ecg_work import run as run_verb
from hub_server import go_online, running_hub

REPO = "ann/ecg-student"
CARD = "---\nlicense: apache-2.0\n---\n# A small student\n"
STUDENT = {"config.json", "generation_config.json", "model.safetensors", "chat_template.jinja", "processor_config.json"}
STUDENT |= {"tokenizer.json", "tokenizer_config.json", "README.md"}


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(publish, "reload_logits", reload_here)
    monkeypatch.setattr(export, "reload_logits", reload_here)
    with running_hub() as running:
        go_online(monkeypatch, running)
        yield running


def run(verb: str, *given):
    """A verb with the options of a small page."""
    return run_verb(verb, *given, "--image_width", 112, "--image_height", 56, "--footer", False)


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    rows, _ = load_simulated(3, classes=["AF", "NORM"])
    data = question_dataset(rows, formats=["closed"], tasks=["rhythm"])
    folder = tmp_path_factory.mktemp("questions") / "data"
    DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(str(folder))
    return folder


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "card.md"
    path.write_text(CARD)
    return path


def test_distill_with_push_to_hub_sends_the_student_alone(hub, questions, tiny_vlm, card, tmp_path):
    output, tiny = tmp_path / "out", tiny_vlm("idefics3")
    options = ["--student", tiny.path, "--teacher", tiny_vlm("llava_next").path, "--data", questions, "--use_cpu"]
    options += ["--max_steps", 2, "--save_steps", 1, "--report_to", "none", "--lora_rank", 2, "--learning_rate", 0.1]
    options += ["--output_dir", output, "--push_to_hub", "--hub_model_id", REPO, "--hub_token", "hf_write"]
    with pytest.raises(ValueError, match=r"needs a README\.md whose metadata names a license"):
        run("distil", *options)
    assert not hub.requests
    assert not output.exists()
    trainer = run("distil", *options, "--card", card)
    assert (output / "checkpoint-2" / "optimizer.pt").exists()
    repo = hub.repo(REPO)
    assert repo.private
    assert len(repo.history()) == 2
    files = repo.files()
    assert set(files) == STUDENT
    assert files["README.md"].decode() == CARD
    told = json.loads(files["config.json"])[PROVENANCE_KEY]
    assert told["method"] == "EVL-ECG, arXiv 2605.29977"
    assert told["data"] == ["simulated"]
    assert told["steps"] == 2
    assert told["images"] == RenderConfig(width_px=112, height_px=56, footer=False).to_dict()
    assert told["teacher"] == Path(tiny_vlm("llava_next").path).name
    assert str(tmp_path.parent) not in files["config.json"].decode()
    weights, start = load(files["model.safetensors"]), tiny.load().state_dict()
    assert not [name for name in weights if "lora" in name or "aligner" in name]
    moved = [name for name, weight in weights.items() if not torch.equal(weight, start[name])]
    assert moved
    assert all("proj" in name for name in moved), "the adapters were merged into the linear layers of the decoder"
    assert not list(output.glob(".export*"))
    assert not trainer.args.push_to_hub


def test_publish_script_exports_a_checkpoint_and_goes_on_from_the_export(hub, tiny_vlm, card, tmp_path, capsys):
    tiny, checkpoint = tiny_vlm("idefics3"), tmp_path / "checkpoint"
    tiny.load().save_pretrained(checkpoint)
    tiny.processor.save_pretrained(checkpoint)
    torch.save({}, checkpoint / "training_args.bin")
    row = {"method": "evl_ecg", "seed": 0, "task": "rhythm", "dim": None, "metric": "accuracy", "value": 0.5, "n": 9}
    row |= {"ci_low": 0.4, "ci_high": 0.6}
    results = {"study": "ecg_tiny", "config": {}, "commit": "abc", "machine": {}, "rows": [row]}
    (tmp_path / "ecg_tiny.json").write_text(json.dumps(results))
    options = ["--repo_id", REPO, "--card", card, "--results", tmp_path / "ecg_tiny.json", "--tag", "v1"]
    with pytest.raises(ValueError, match="is no export"):
        run("publish", "--model", checkpoint, *options)
    preview = run("publish", "--model", checkpoint, "--export_dir", tmp_path / "export", *options, "--dry_run")
    assert not hub.requests  # nothing was asked, let alone sent
    assert preview.files.keys() == STUDENT | {"results/ecg_tiny.json"}
    assert preview.card == CARD
    shown = capsys.readouterr().out
    assert "# A small student" in shown
    assert f"Nothing was sent. Without --dry_run, this goes to {REPO} (main), private if it is new." in shown
    assert "  model.safetensors\n" in shown
    first = run("publish", "--model", tmp_path / "export", *options)
    repo = hub.repo(REPO)
    assert repo.private
    assert set(repo.files()) == STUDENT | {"results/ecg_tiny.json"}
    told = json.loads(repo.files()["config.json"])[PROVENANCE_KEY]
    assert told["images"] == RenderConfig(width_px=112, height_px=56, footer=False).to_dict()
    assert told["results"] == {"study": "ecg_tiny", "commit": "abc", "file": "results/ecg_tiny.json"}
    again = run("publish", "--model", tmp_path / "export", *options)
    assert not again.committed
    assert repo.tags == {"v1": first.commit}


def test_publish_script_draws_and_publishes_questions(hub, questions, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: cc0-1.0\n---\n# Simulated ECGs\n")
    preview = run("publish", "--data", questions, "--repo_id", "ann/drawn", "--card", card, "--dry_run")
    assert not hub.requests
    push = run("publish", "--data", questions, "--repo_id", "ann/drawn", "--card", card, "--no_private")
    repo = hub.repo("ann/drawn", "dataset")
    assert not repo.private
    assert set(repo.files()) == {"README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"}
    assert {name: len(content) for name, content in repo.files().items()} == dict(preview.files)
    (tmp_path / "test.parquet").write_bytes(repo.files()["data/test-00000-of-00001.parquet"])
    rows = Dataset.from_parquet(str(tmp_path / "test.parquet"), cache_dir=str(tmp_path / "cache"))
    assert np.asarray(rows[0]["image"]).shape == (56, 112, 3)
    assert rows[0]["answer"] in ("yes", "no")
    assert push.repo_type == "dataset"
    with pytest.raises(ValueError, match="one of them is needed"):
        run("publish", "--repo_id", "ann/drawn")
    with pytest.raises(ValueError, match="needs a card"):
        run("publish", "--repo_id", "ann/drawn", "--data", questions)


def test_export_records_how_pages_were_drawn_and_what_trained_it(monkeypatch, tiny_vlm, tmp_path):
    monkeypatch.setattr(export, "reload_logits", reload_here)
    given = ["--model", tiny_vlm("idefics3").path, "--output_dir", tmp_path / "export", "--method", "answers alone"]
    assert not is_export(tiny_vlm("idefics3").path)
    report = run("export", *given)
    told = json.loads((report.folder / "config.json").read_text())[PROVENANCE_KEY]
    assert told["method"] == "answers alone"
    assert RenderConfig.from_dict(told["images"]) == RenderConfig(width_px=112, height_px=56, footer=False)
    assert is_export(tmp_path / "export")
    assert report.reload_difference < 1e-5
