"""Publishing encoders to a Hub over HTTP: plain sentence-transformers loads them, and nothing else is sent."""

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer

from hf_mic.frozen.head import add_dense_head
from hf_mic.hub import publish
from hf_mic.hub.legacy_modules import write_legacy_modules
from hf_mic.hub.publish import CHECK_TEXTS, publish_encoder, reload_embeddings
from hf_mic.hub.push import PublishError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
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
    runs = []

    def real_for_the_copy(folder, texts, dim):
        runs.append(folder)
        return (embed_here if len(runs) == 1 else reload_embeddings)(folder, texts, dim)

    monkeypatch.setattr(publish, "reload_embeddings", real_for_the_copy)
    report = publish_encoder(saved, REPO, truncate_dim=8, tag="v1.0", api=api)
    repo = hub.repo(REPO)
    assert repo.private
    assert report.difference <= 1e-6
    assert report.push.commit == repo.branches["main"] == repo.tags["v1.0"]
    assert repo.files() == {p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    assert set(report.push.files) == set(repo.files())
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


def test_the_same_again_makes_no_commit_and_a_tag_is_not_moved(hub, api, saved, in_process):
    first = publish_encoder(saved, REPO, tag="v1", api=api)
    for tag in ("v1", None):
        again = publish_encoder(saved, REPO, tag=tag, api=api)
        assert not again.push.committed
        assert again.push.commit == first.push.commit
    with pytest.raises(PublishError, match=r"returns other files .*README\.md.* is unchanged at"):
        publish_encoder(saved, REPO, card=CARD + "More.", tag="v1", api=api)
    changed = publish_encoder(saved, REPO, card=CARD + "More.", tag="v2", api=api)
    assert changed.push.committed
    with pytest.raises(
        PublishError, match=rf"tag='v1': it already means {first.push.commit} .* is unchanged at {changed.push.commit}"
    ):
        publish_encoder(saved, REPO, tag="v1", api=api)
    repo = hub.repo(REPO)
    assert [commit.title for commit in repo.history()] == ["Publish encoder", "Publish encoder", "initial commit"]
    assert repo.files()["README.md"].decode() == CARD + "More."
    assert repo.tags == {"v1": first.push.commit, "v2": changed.push.commit}
    assert len(hub.served("PUT", "/storage/")) == 2, "the weights of the transformer and of the head, once each"


def test_old_module_names_are_sent_if_asked_and_kept(hub, api, saved, in_process):
    def types():
        return {entry["type"] for entry in json.loads(hub.repo(REPO).files()["modules.json"])}

    publish_encoder(saved, REPO, api=api)
    assert not any(name.startswith("sentence_transformers.models.") for name in types())
    publish_encoder(saved, REPO, legacy_modules=True, api=api)
    assert all(name.startswith("sentence_transformers.models.") for name in types())
    write_legacy_modules(SentenceTransformer(str(saved), device="cpu"), saved)
    assert not publish_encoder(saved, REPO, api=api).push.committed, (
        "the same files, though nothing asked for old names"
    )


def test_a_branch_holds_the_encoder_alone(hub, api, saved, in_process):
    api.create_repo(REPO, private=True)
    api.upload_file(path_or_fileobj=b"old", path_in_repo="pytorch_model.bin", repo_id=REPO)
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    left = (
        "training_args.bin",
        "optimizer.pt",
        "checkpoint-2/model.safetensors",
        "1_Pooling/x.pt",
        "runs/events",
        "x.py",
    )
    beside = ("LICENSE", "results/mic.json", ".eval_results/mic.yaml")
    for name in (*left, *beside):
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_bytes(b"x")
    done = publish_encoder(saved, REPO, revision="next", commit_message="Try", api=api)
    repo = hub.repo(REPO)
    assert set(repo.files("next")) == {*files, *beside}
    assert repo.files("main") == {"pytorch_model.bin": b"old"}
    assert (done.push.revision, repo.history("next")[0].title) == ("next", "Try")


def test_what_is_no_encoder_is_not_sent(hub, api, saved, in_process, monkeypatch):
    model = SentenceTransformer(str(saved), device="cpu")
    monkeypatch.setattr(publish, "_SENT", tuple(kind for kind in publish._SENT if kind != ".safetensors"))
    with pytest.raises(ValueError, match=r"\['model\.safetensors', 'model\.safetensors'\] would be sent; allowed are"):
        publish_encoder(model, REPO, card=CARD, api=api)
    modules = json.loads((saved / "modules.json").read_text())
    modules[1]["type"] = "my_code.MyPooling"
    (saved / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"(?s)my_code\.MyPooling.*trust_remote_code"):
        publish_encoder(saved, REPO, api=api)
    (saved / "modules.json").unlink()
    with pytest.raises(ValueError, match=r"no modules\.json"):
        publish_encoder(saved, REPO, api=api)
    assert not hub.requests


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, r"no README\.md"),
        ("# No metadata", "names no license"),
        (CARD + "[More Information Needed]", r"placeholders \['\[More Information Needed\]'\]"),
        (CARD + "{{ results }}", "placeholders .*results"),
        (CARD + "![scores](scores.png)", r"pictures \['scores.png'\] are not there"),
    ],
)
def test_a_card_must_be_there_and_complete(hub, api, saved, card, message):
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match=message):
        publish_encoder(saved, REPO, card=card, api=api)
    assert not hub.requests


def test_who_may_not_write_is_told_so(hub, api, saved, in_process):
    for token, status in (("hf_wrong", 401), (False, 401), ("hf_read", 403)):
        with pytest.raises(PublishError, match=f"(?s){status}.*Nothing was sent") as error:
            publish_encoder(saved, REPO, api=HfApi(endpoint=hub.url, token=token))
        assert error.value.__cause__.response.status_code == status
    assert not hub.repos
    api.create_repo(REPO, private=False)
    with pytest.raises(PublishError, match=r"is public.*Nothing was sent"):
        publish_encoder(saved, REPO, api=api)
    assert hub.repo(REPO).files() == {}
    assert publish_encoder(saved, REPO, private=False, api=api).push.committed


def test_a_broken_upload_loses_nothing_and_the_next_try_completes_it(hub, api, saved, in_process):
    api.create_repo(REPO, private=True)
    repo = hub.repo(REPO)
    before, digest = repo.branches["main"], sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    hub.cut("PUT", f"/storage/.*{digest}", after_bytes=100, times=6)  # the library itself tries six times
    with pytest.raises(PublishError, match=rf"uploading 'model.safetensors'.* is unchanged at {before}"):
        publish_encoder(saved, REPO, tag="v1", api=api)
    assert (repo.branches["main"], repo.files(), repo.tags) == (before, {}, {})
    done = publish_encoder(saved, REPO, tag="v1", api=api)
    assert repo.tags == {"v1": done.push.commit}
    assert len(hub.served("PUT", "/storage/")) == 2, "the weights of the head arrived once, in the first try"


def test_a_stale_parent_is_refused_before_and_while_sending(hub, api, saved, in_process):
    first = publish_encoder(saved, REPO, api=api).push.commit
    repo = hub.repo(REPO)
    other = repo.add_commit("main", {}, "theirs")
    with pytest.raises(
        PublishError,
        match=rf"parent_commit={first}: .* is at {other}, so somebody has committed.* unchanged at {other}",
    ):
        publish_encoder(saved, REPO, parent_commit=first, api=api)
    hub.before("POST", "/preupload/", lambda: repo.add_commit("main", {}, "theirs, in the meantime"))
    with pytest.raises(
        PublishError,
        match=r"(?s)412.*A commit has happened since.* has a new commit.*none of your changes were written",
    ):
        publish_encoder(saved, REPO, parent_commit=other, api=api)
    assert repo.history()[0].title == "theirs, in the meantime"
    assert publish_encoder(saved, REPO, parent_commit=repo.branches["main"], api=api).push.committed


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_try(hub, api, saved, in_process):
    hub.lose_answer("POST", "/commit/")
    with pytest.raises(
        PublishError, match=r"has a new commit, .* only the Hub's answer to this push was lost: run the same again"
    ):
        publish_encoder(saved, REPO, tag="v1", api=api)
    repo = hub.repo(REPO)
    assert not publish_encoder(saved, REPO, tag="v1", api=api).push.committed
    assert len(repo.history()) == 2
    assert repo.tags == {"v1": repo.branches["main"]}


def test_what_the_hub_returns_is_compared(hub, api, saved, monkeypatch):
    runs = []

    def other_embeddings(folder, texts, dim):
        runs.append(folder)
        return embed_here(folder, texts, dim) * (1.01 if len(runs) == 2 else 1)

    monkeypatch.setattr(publish, "reload_embeddings", other_embeddings)
    with pytest.raises(PublishError, match=r"copy on the Hub differ by 0\.01.*without a tag: do not use that commit"):
        publish_encoder(saved, REPO, tag="v1", api=api)
    assert not hub.repo(REPO).tags

    def other_bytes():
        hub.repo("ann/second").objects.update(dict.fromkeys(hub.repo("ann/second").objects, b"0" * 2000))

    hub.before("GET", "/storage/", other_bytes)
    with pytest.raises(PublishError, match=r"(?s)without a tag: do not use that commit"):
        publish_encoder(saved, "ann/second", tag="v1", api=api)
    assert not hub.repo("ann/second").tags


class Doubled(torch.nn.Module):
    """A module of nobody's package."""

    def forward(self, features):
        return features | {"sentence_embedding": 2 * features["sentence_embedding"]}

    def save(self, output_path, *args, **kwargs):
        pass

    @classmethod
    def load(cls, *args, **kwargs):
        return cls()


def test_an_encoder_that_others_could_not_load_is_not_sent(hub, api, saved):
    model = SentenceTransformer(modules=[*SentenceTransformer(str(saved), device="cpu"), Doubled()], device="cpu")
    with pytest.raises(PublishError, match=r"(?s)does not load in a new process.*Nothing was sent"):
        publish_encoder(model, REPO, card=CARD, api=api)
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
