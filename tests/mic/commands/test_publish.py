"""The verb publish, and train with --push_to_hub, send the encoder and its card and nothing else."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load
from sentence_transformers import SentenceTransformer

from hf_mic.commands import publish, train
from hf_mic.hub import publish as hub_publish

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from hub_server import go_online, running_hub

REPO = "ann/mic-tiny"
ENCODER = {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "config.json"}
ENCODER |= {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json", "README.md"}


@pytest.fixture
def hub(monkeypatch):
    def embed_here(folder, texts, dim):
        return SentenceTransformer(str(folder), truncate_dim=dim, device="cpu").encode(list(texts))

    monkeypatch.setattr(hub_publish, "reload_embeddings", embed_here)
    with running_hub() as running:
        go_online(monkeypatch, running)
        yield running


@pytest.fixture
def encoder(make_model, tmp_path) -> Path:
    """An encoder without a card."""
    make_model().save_pretrained(str(tmp_path / "encoder"), create_model_card=False)
    return tmp_path / "encoder"


def test_publish_script(hub, encoder, tmp_path, capsys):
    def publish_with(*options):
        return publish.main(*publish.parse(["--model", str(encoder), "--repo_id", REPO, *options]))

    with pytest.raises(ValueError, match="name the card with --card"):
        publish_with()
    card = tmp_path / "card.md"
    card.write_text("---\nlanguage: en\n---\n# Tiny\n![scores](scores.png)\n")
    (tmp_path / "scores.png").write_bytes(b"png")
    with pytest.raises(ValueError, match="names no license"):
        publish_with("--card", str(card))
    row = {"method": "mic", "seed": 0, "task": "sts", "dim": 8, "metric": "spearman", "value": 0.5, "n": 9}
    row |= {"ci_low": 0.4, "ci_high": 0.6}
    results = {"study": "mic_tiny", "config": {}, "commit": "abc", "machine": {}, "rows": [row]}
    (tmp_path / "mic_tiny.json").write_text(json.dumps(results))
    options = ["--card", str(card), "--license", "mit", "--results", str(tmp_path / "mic_tiny.json"), "--tag", "v1"]
    preview = publish_with(*options, "--dry_run")
    assert not hub.requests  # nothing was asked, let alone sent
    assert preview.files.keys() == ENCODER | {"scores.png", "results/mic_tiny.json"}
    assert preview.files["scores.png"] == 3
    assert ModelCard(preview.card).data.license == "mit"
    shown = capsys.readouterr().out
    assert "# Tiny" in shown
    assert re.search(r"^ +3  scores.png$", shown, re.MULTILINE)
    assert f"Nothing was sent. Without --dry_run, this goes to {REPO} (main), private if it is new." in shown
    report = publish_with(*options, "--truncate_dim", "8", "--revision", "next")
    repo = hub.repo(REPO)
    assert repo.private
    assert repo.tags == {"v1": report.push.commit}
    assert repo.files("main") == {}
    assert set(repo.files("next")) == preview.files.keys()
    assert repo.files("next")["README.md"].decode() == preview.card
    published = ModelCard(repo.files("next")["README.md"].decode())
    assert published.data.license == "mit"
    assert published.data.language == "en"
    assert not publish_with(*options, "--revision", "next").push.committed
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(ValueError, match="the card names mit"):
        publish.add_license(tmp_path / "README.md", "apache-2.0")


def test_train_with_push_to_hub_sends_the_encoder_alone(hub, encoder, make_sentences, tmp_path):
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("anchor", "positive"), *zip(make_sentences(8, 0), make_sentences(8, 1), strict=True)]
        )
    output = tmp_path / "out"
    options = (
        f"--model {encoder} --data {tmp_path}/pairs.csv --output_dir {output} --use_cpu --report_to none --max_steps 2 "
    )
    options += "--save_steps 1 --per_device_train_batch_size 4 --matryoshka_dims 32 8 "
    arguments = (options + f"--push_to_hub --hub_model_id {REPO} --hub_token hf_write").split()
    with pytest.raises(ValueError, match="needs --license"):
        train.main(*train.parse(arguments))
    assert not hub.requests
    train.main(*train.parse([*arguments, "--license", "apache-2.0"]))
    assert (output / "checkpoint-2" / "optimizer.pt").exists()
    repo = hub.repo(REPO)
    assert repo.private
    assert [commit.title for commit in repo.history()] == ["Publish encoder", "initial commit"]
    assert set(repo.files()) == ENCODER
    card = repo.files()["README.md"].decode()
    assert ModelCard(card).data.license == "apache-2.0"
    assert f'SentenceTransformer("{REPO}")' in card
    trained, start = load(repo.files()["model.safetensors"]), load((encoder / "model.safetensors").read_bytes())
    name = next(name for name in start if "query.weight" in name)
    assert not torch.equal(trained[name], start[name])
    local = SentenceTransformer(str(output), device="cpu")
    assert np.array_equal(trained[name], dict(local[0].auto_model.named_parameters())[name].detach())
