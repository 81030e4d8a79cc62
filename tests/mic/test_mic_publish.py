"""Publishing encoders to a Hub over HTTP: plain sentence-transformers loads them, and nothing else is sent."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from hf_mic import publish
from hf_mic.head import add_dense_head
from hf_mic.hub import PublishError
from hf_mic.publish import CHECK_TEXTS, publish_encoder, reload_embeddings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hub_server import go_online, run_clean, running_hub

REPO = "ann/mic-tiny"
CARD = "---\nlicense: apache-2.0\n---\n# A tiny encoder\n"


@pytest.fixture
def hub(monkeypatch):
    go_online(monkeypatch)
    with running_hub() as running:
        yield running


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="hf_write")


@pytest.fixture
def saved(make_model, tmp_path):
    """An encoder with a dense head, saved as a trainer saves it."""
    model = make_model(normalize=True)
    add_dense_head(model)
    folder = tmp_path / "encoder"
    model.save_pretrained(str(folder))
    (folder / "README.md").write_text(CARD)
    return folder


def embed_here(folder, texts, truncate_dim=None):
    """What the new process does, in this one."""
    return SentenceTransformer(str(folder), truncate_dim=truncate_dim, device="cpu").encode(list(texts))


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(publish, "reload_embeddings", embed_here)


def test_an_encoder_is_published_and_loads_by_name_in_a_clean_process(hub, api, saved, tmp_path, monkeypatch):
    def real_for_the_copy(folder, texts, dim):
        return (embed_here if folder == saved else reload_embeddings)(folder, texts, dim)

    monkeypatch.setattr(publish, "reload_embeddings", real_for_the_copy)
    report = publish_encoder(saved, REPO, truncate_dim=8, tag="v1.0", api=api)
    repo = hub.repo(REPO)
    assert repo.private
    assert report.difference <= 1e-6
    assert report.push.commit == repo.branches["main"] == repo.tags["v1.0"]
    assert repo.files() == {p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    assert {Path(name).suffix for name in repo.files()} == {".json", ".md", ".safetensors"}
    np.save(tmp_path / "expected.npy", embed_here(saved, CHECK_TEXTS, 8))
    code = f"""
import numpy as np
from sentence_transformers import SentenceTransformer
found = SentenceTransformer({REPO!r}, truncate_dim=8, revision="v1.0").encode({list(CHECK_TEXTS)!r})
assert found.shape == (4, 8) and np.abs(found - np.load("expected.npy")).max() < 1e-6
print("same")
"""
    assert run_clean(code, hub, tmp_path) == "same"


def test_the_same_again_makes_no_commit(hub, api, saved, in_process):
    first = publish_encoder(saved, REPO, tag="v1", api=api)
    again = publish_encoder(saved, REPO, tag="v1", api=api)
    assert not again.push.committed
    assert again.push.commit == first.push.commit
    changed = publish_encoder(saved, REPO, card=CARD + "More.", tag="v2", api=api)
    assert changed.push.committed
    assert hub.repo(REPO).files()["README.md"].decode() == CARD + "More."
    assert hub.repo(REPO).tags == {"v1": first.push.commit, "v2": changed.push.commit}
    assert len(hub.served("PUT", "/storage/")) == 2, "the weights of the transformer and of the head, once each"


def test_what_training_leaves_is_not_sent(hub, api, saved, in_process):
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "checkpoint-2/model.safetensors",
        "1_Pooling/optimizer.pt",
        "runs/events",
        "model.py",
    ):
        path = saved / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        with pytest.raises(ValueError, match=rf"do not belong.*{name}.*nothing was sent"):
            publish_encoder(saved, REPO, api=api)
        path.unlink()
    modules = json.loads((saved / "modules.json").read_text())
    modules[1]["type"] = "my_code.MyPooling"
    (saved / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"needs code .*my_code\.MyPooling"):
        publish_encoder(saved, REPO, api=api)
    (saved / "modules.json").unlink()
    with pytest.raises(ValueError, match=r"no modules\.json"):
        publish_encoder(saved, REPO, api=api)
    assert not hub.requests


def test_a_card_is_needed(hub, api, saved, in_process):
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match=r"no README\.md"):
        publish_encoder(saved, REPO, api=api)
    with pytest.raises(ValueError, match="names no license"):
        publish_encoder(saved, REPO, card="# No license", api=api)
    assert not hub.requests
    assert publish_encoder(saved, REPO, card=CARD, api=api).push.committed


def test_a_refused_or_broken_push_says_what_is_there(hub, api, saved, in_process):
    with pytest.raises(PublishError, match=r"refuses \(401\).*Nothing was sent"):
        publish_encoder(saved, REPO, api=HfApi(endpoint=hub.url, token="hf_wrong"))
    hub.cut("PUT", "/storage/", after_bytes=100, times=12)
    with pytest.raises(PublishError, match=r"connection .* broke .*is unchanged at"):
        publish_encoder(saved, REPO, api=api)
    assert hub.repo(REPO).files() == {}
    hub.faults.clear()
    done = publish_encoder(saved, REPO, api=api)
    assert done.push.committed
    with pytest.raises(PublishError, match=rf"is at {done.push.commit}, not at {'0' * 40}"):
        publish_encoder(saved, REPO, parent_commit="0" * 40, api=api)


def test_embeddings_of_the_copy_are_compared(hub, api, saved, monkeypatch):
    monkeypatch.setattr(publish, "reload_embeddings", lambda f, t, d: embed_here(f, t, d) * (1 if f == saved else 1.01))
    with pytest.raises(PublishError, match=r"copy on the Hub differ by 0\.01.*do not use that commit"):
        publish_encoder(saved, REPO, tag="v1", api=api)
    assert not hub.repo(REPO).tags


def test_a_folder_that_does_not_load_is_not_sent(hub, api, saved):
    weights = load_file(saved / "model.safetensors")
    wrong = {name: torch.zeros(3) if "word_embeddings" in name else weight for name, weight in weights.items()}
    save_file(wrong, saved / "model.safetensors", {"format": "pt"})
    with pytest.raises(PublishError, match=r"(?s)does not load in a new process.*Nothing was sent"):
        publish_encoder(saved, REPO, api=api)
    assert not hub.requests


def test_a_model_in_memory_is_published_with_the_card_and_pictures_of_its_run(hub, api, saved, in_process):
    (saved / "README.md").write_text(CARD + "![scores](scores.png)")
    (saved / "scores.png").write_bytes(b"png")
    (saved / "training_args.bin").write_bytes(b"x")
    model = SentenceTransformer(str(saved), device="cpu")
    report = publish_encoder(model, REPO, card=saved / "README.md", truncate_dim=8, api=api)
    assert report.difference == 0
    files = hub.repo(REPO).files()
    assert files["README.md"].decode() == CARD + "![scores](scores.png)"
    assert files["scores.png"] == b"png"
    assert "training_args.bin" not in files


@pytest.mark.parametrize("name", ["hub.py", "hub_folder.py"])
def test_both_packages_hold_the_same_module(repo_root, name):
    assert (repo_root / "hf_mic" / name).read_text() == (repo_root / "hf_evl_ecg" / name).read_text()
