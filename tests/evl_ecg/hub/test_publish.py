"""Publishing to a Hub over HTTP: private, whole or not at all, checked as the Hub returns it, and safe to repeat."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainingArguments

from hf_evl_ecg.hub import export, publish
from hf_evl_ecg.hub.checks import check_card, place_card
from hf_evl_ecg.hub.export import check_input, export_student
from hf_evl_ecg.hub.publish import STUDENT_FILES, publish_student
from hf_evl_ecg.hub.push import PublishError, publish_folder, take_hub_arguments
from hf_evl_ecg.models.loading import PROVENANCE_KEY

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from hub_server import go_online, run_clean, running_hub

REPO = "ann/ecg-student"
CARD = "---\nlicense: apache-2.0\ntags: [ecg]\n---\n# A small student\nFor research, not a diagnostic device.\n"


@pytest.fixture
def hub(monkeypatch):
    go_online(monkeypatch)
    with running_hub() as running:
        yield running


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="hf_write")


def reload_here(folder, inputs, *, question=None, device="cpu"):
    """What the new process does, in this one: imports are slow, and one test needs the real thing."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    given, processed = dict(inputs), {}
    if question:
        processor = AutoProcessor.from_pretrained(folder)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        pictures = [[PILImage.fromarray(given.pop("image").numpy())]]
        processed = dict(processor(text=[prompt], images=pictures, return_tensors="pt"))
    read = given or processed
    with torch.no_grad():
        made = {f"processed.{name}": tensor.clone() for name, tensor in processed.items()}
        return {"logits": model(**read).logits.float(), "input_ids": read["input_ids"], **made}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_vlm):
    """An exported student with a card."""
    folder = tmp_path_factory.mktemp("exported") / "student"
    tiny = tiny_vlm("idefics3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "reload_logits", reload_here)
        export_student(tiny.load(), folder, processor=tiny.processor, provenance={"teacher": "tiny", "commit": "abc"})
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def student(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "student"))


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(publish, "reload_logits", reload_here)


def test_a_student_is_published_and_loads_by_name_in_a_clean_process(hub, api, student, tmp_path, monkeypatch):
    real = publish.reload_logits
    monkeypatch.setattr(
        publish, "reload_logits", lambda folder, *a, **k: (reload_here if folder == student else real)(folder, *a, **k)
    )
    report = publish_student(student, REPO, tag="v1.0", provenance={"results": {"macro_auc": 0.75}}, api=api)
    repo = hub.repo(REPO)
    assert repo.private
    assert report.difference <= 1e-6
    assert report.push.committed
    assert report.push.commit == repo.branches["main"] == repo.tags["v1.0"]
    assert len(repo.history()) == 2
    assert repo.files() == {path.name: path.read_bytes() for path in student.iterdir()}
    assert not [name for name in repo.files() if name.endswith((".bin", ".pt", ".pkl", ".pth"))]
    told = json.loads(repo.files()["config.json"])[PROVENANCE_KEY]
    assert told == {"teacher": "tiny", "commit": "abc", "results": {"macro_auc": 0.75}}
    inputs, _ = check_input(AutoProcessor.from_pretrained(student), None)
    save_file(dict(inputs), tmp_path / "inputs.safetensors")
    save_file(reload_here(student, inputs), tmp_path / "expected.safetensors")
    code = f"""
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainingArguments
AutoProcessor.from_pretrained({REPO!r}, revision="v1.0").chat_template[0]
model = AutoModelForImageTextToText.from_pretrained({REPO!r}, revision="v1.0").eval()
with torch.no_grad():
    logits = model(**load_file({str(tmp_path / "inputs.safetensors")!r})).logits
expected = load_file({str(tmp_path / "expected.safetensors")!r})["logits"]
assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
print("same")
"""
    assert run_clean(code, hub, tmp_path) == "same"


def test_the_same_again_makes_no_commit_and_a_change_sends_only_the_change(hub, api, student, in_process):
    first = publish_student(student, REPO, tag="v1", api=api)
    sent = len(hub.requests)
    again = publish_student(student, REPO, tag="v1", api=api)
    assert not again.push.committed
    assert again.push.commit == first.push.commit
    assert not [path for method, path, _ in hub.requests[sent:] if "/commit/" in path or method == "PUT"]
    changed = publish_student(student, REPO, card=CARD + "More.\n", api=api)
    assert changed.push.committed
    repo = hub.repo(REPO)
    assert [commit.title for commit in repo.history()] == ["Publish", "Publish", "initial commit"]
    assert repo.tags == {"v1": first.push.commit}
    assert len(hub.served("PUT", "/storage/")) == 1


def test_a_tag_is_not_moved(hub, api, student, in_process):
    first = publish_student(student, REPO, tag="v1", api=api).push.commit
    repo = hub.repo(REPO)
    with pytest.raises(
        PublishError, match=rf"at {first} returns other .*README\.md.*Nothing was sent: tag='v1' is there"
    ):
        publish_student(student, REPO, card=CARD + "More.\n", tag="v1", api=api)
    assert repo.branches["main"] == first
    second = publish_student(student, REPO, api=api).push.commit
    with pytest.raises(PublishError, match=rf"tag='v1': it already means {first} .*None of the files was sent"):
        publish_student(student, REPO, tag="v1", api=api)
    hub.fail("POST", "/tag/", status=409)
    with pytest.raises(PublishError, match=rf"(?s)409.* holds the files at {second}, without the tag 'v2'"):
        publish_student(student, REPO, tag="v2", api=api)
    assert publish_student(student, REPO, tag="v2", api=api).push.tag == "v2"
    assert repo.tags == {"v1": first, "v2": second}


def test_a_branch_holds_exactly_the_folder(hub, api, student, in_process):
    api.create_repo(REPO, private=True)
    api.upload_file(path_or_fileobj=b"old", path_in_repo="pytorch_model.bin", repo_id=REPO)
    report = publish_student(student, REPO, revision="candidate", commit_message="Try", api=api)
    repo = hub.repo(REPO)
    assert set(repo.files("candidate")) == {path.name for path in student.iterdir()}
    assert repo.files("main") == {"pytorch_model.bin": b"old"}
    assert repo.history("candidate")[0].title == "Try"
    assert report.push.revision == "candidate"
    assert repo.commits[report.push.commit].tree[".gitattributes"].content


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "distillation.safetensors", "checkpoint-1/config.json"]
)
def test_what_is_not_the_student_is_not_sent(hub, api, student, name):
    path = student / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    before = {file: file.read_bytes() for file in student.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=rf"{name}.* do not belong.*nothing was sent"):
        publish_student(student, REPO, card=CARD + "New.", provenance={"steps": 7}, api=api)
    assert not hub.requests
    assert {file: file.read_bytes() for file in student.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 10_000])
def test_a_damaged_configuration_is_named(hub, api, student, content):
    (student / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json: is no json"):
        publish_student(student, REPO, api=api)
    assert not hub.requests


def test_weights_that_are_not_the_student_s_are_not_sent(hub, api, student):
    weights = load_file(student / "model.safetensors")
    save_file(weights | {"aligner.weight": torch.ones(2, 2)}, student / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"unexpected_keys.*aligner\.weight"):
        publish_student(student, REPO, api=api)
    first = sorted(weights)[0]
    save_file({n: w for n, w in weights.items() if n != first}, student / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="missing_keys"):
        publish_student(student, REPO, api=api)
    (student / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
    with pytest.raises(ValueError, match="give what export_student wrote"):
        publish_student(student, REPO, api=api)
    assert not hub.requests


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, r"has no README\.md"),
        ("# No metadata", "names no license"),
        ("---\nlicense: [\n---\n", "cannot be read"),
        (CARD + "[More Information Needed]", "placeholders"),
        (CARD + "{{ results }}", "placeholders"),
        (CARD + "![scores](scores.png)", r"pictures \['scores.png'\] are not in the folder"),
    ],
)
def test_a_card_must_be_there_and_complete(tmp_path, card, message):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    with pytest.raises(ValueError, match=message):
        check_card(tmp_path)


def test_pictures_of_a_card_may_be_in_the_folder_or_on_the_web(tmp_path):
    (tmp_path / "README.md").write_text(CARD + "![a](a.png) ![b](https://example.org/b.png)")
    (tmp_path / "a.png").write_bytes(b"")
    check_card(tmp_path)


def test_a_card_is_copied_with_the_pictures_that_it_shows(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    for name in ("shown.png", "other.png"):
        (source / name).write_bytes(name.encode())
    (source / "card.md").write_text(CARD + "![a](shown.png) ![b](missing.png) ![c](../secret.png)")
    place_card(folder, source / "card.md")
    assert {path.name for path in folder.iterdir()} == {"README.md", "shown.png"}
    with pytest.raises(ValueError, match=r"pictures \['missing.png'\] are not in the folder"):
        check_card(folder)


def test_publishing_is_taken_over_from_a_trainer(tmp_path):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none"}
    assert take_hub_arguments(TrainingArguments(**options)) is None
    given = TrainingArguments(**options, push_to_hub=True, hub_model_id=REPO, hub_token="hf_x", hub_revision="next")
    taken = take_hub_arguments(given)
    assert not given.push_to_hub
    assert taken.pop("api").token == "hf_x"
    assert taken == {"repo_id": REPO, "private": True, "revision": "next"}
    public = TrainingArguments(**options, push_to_hub=True, hub_model_id=REPO, hub_private_repo=False)
    assert not take_hub_arguments(public)["private"]
    with pytest.raises(ValueError, match="hub_model_id='': give namespace/name"):
        take_hub_arguments(TrainingArguments(**options, push_to_hub=True))


def push(student, api, repo_id=REPO, **options):
    return publish_folder(
        student, repo_id, lambda folder: lambda copy: None, allowed=STUDENT_FILES, api=api, **options
    )[0]


@pytest.mark.parametrize(
    ("token", "repo_id", "status", "message"),
    [
        ("hf_wrong", REPO, 401, "Invalid credentials"),
        (False, REPO, 401, "Invalid username or password"),
        ("hf_read", REPO, 403, "don't have the rights to create"),
        ("hf_other", REPO, 403, "don't have the rights to create"),
        ("hf_write", "nobody/x", 403, "don't have the rights to create"),
    ],
)
def test_who_may_not_write_is_told_so(hub, student, token, repo_id, status, message):
    with pytest.raises(PublishError, match=f"(?s){status}.*{message}.*None of the files was sent") as error:
        push(student, HfApi(endpoint=hub.url, token=token), repo_id)
    assert error.value.__cause__.response.status_code == status
    assert not hub.repos


def test_a_token_that_may_read_only_changes_nothing(hub, api, student):
    before = push(student, api)
    (student / "README.md").write_text(CARD + "New.")
    with pytest.raises(PublishError, match=rf"(?s)403.*permissions to write.* is unchanged at {before.commit}"):
        push(student, HfApi(endpoint=hub.url, token="hf_read"))
    assert hub.repo(REPO).branches["main"] == before.commit


def test_a_repository_that_goes_missing_is_told_and_made_again(hub, api, student):
    hub.before("POST", "/preupload/", lambda: hub.repos.clear())
    with pytest.raises(
        PublishError, match=r"(?s)Repository Not Found.*could not be asked whether .* run the same"
    ) as error:
        push(student, api)
    assert isinstance(error.value.__cause__, RepositoryNotFoundError)
    assert push(student, api).committed
    assert hub.repo(REPO).files() == {path.name: path.read_bytes() for path in student.iterdir()}


def test_a_public_repository_is_not_taken_for_a_private_one(hub, api, student):
    api.create_repo(REPO, private=False)
    with pytest.raises(PublishError, match=r"is public.*None of the files was sent"):
        push(student, api)
    assert not hub.repo(REPO).files()
    assert push(student, api, private=False).committed
    with pytest.raises(ValueError, match="repo_id='ecg-student': give namespace/name"):
        push(student, api, "ecg-student")
    with pytest.raises(ValueError, match="Repo id"):
        push(student, api, "ann/not a name")


def test_a_stale_parent_is_refused_before_and_while_sending(hub, api, student):
    first = push(student, api)
    other = api.upload_file(path_or_fileobj=b"theirs", path_in_repo="merges.txt", repo_id=REPO).oid
    (student / "README.md").write_text(CARD + "New.")
    with pytest.raises(
        PublishError,
        match=rf"parent_commit={first.commit}: .* is at {other}, so somebody has committed.*None of the files was sent",
    ):
        push(student, api, parent_commit=first.commit)
    colleague = HfApi(endpoint=hub.url, token="hf_write")
    hub.before("POST", "/preupload/", lambda: hub.repo(REPO).add_commit("main", {}, "theirs, in the meantime"))
    with pytest.raises(
        PublishError,
        match=rf"(?s)412.*has happened since.*has a new commit, .* after {other}.*none of your changes were written",
    ):
        push(student, api, parent_commit=other)
    assert hub.repo(REPO).history()[0].title == "theirs, in the meantime"
    now = colleague.model_info(REPO).sha
    assert push(student, api, parent_commit=now).committed
    assert set(hub.repo(REPO).files()) == {path.name for path in student.iterdir()}


def test_a_connection_that_breaks_once_is_tried_again(hub, api, student):
    hub.cut("PUT", "/storage/", after_bytes=1000)
    hub.fail("POST", "/preupload/", status=503, times=2)
    assert push(student, api).committed
    assert not [fault for fault in hub.faults if fault.times]


def test_a_broken_upload_loses_nothing_and_the_next_try_completes_it(hub, api, student):
    weights = load_file(student / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: weights[name] for name in inside}, student / file, {"format": "pt"})
    (student / "model.safetensors").unlink()
    api.create_repo(REPO, private=True)
    repo = hub.repo(REPO)
    digest = hashlib.sha256((student / "model-00002-of-00002.safetensors").read_bytes()).hexdigest()
    hub.cut("PUT", f"/storage/.*{digest}", after_bytes=1000, times=6)  # the library itself tries six times
    before = repo.branches["main"]
    with pytest.raises(
        PublishError, match=rf"(?s)uploading 'model-00002-of.* is unchanged at {before}.*arrived in full are kept"
    ):
        push(student, api)
    assert repo.branches == {"main": before}
    assert list(repo.objects.values()) == [(student / "model-00001-of-00002.safetensors").read_bytes()]
    assert push(student, api).committed
    assert repo.files() == {path.name: path.read_bytes() for path in student.iterdir()}
    assert len(hub.served("PUT", "/storage/")) == 2, "each part arrived once"


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_try(hub, api, student):
    hub.lose_answer("POST", "/commit/")
    with pytest.raises(
        PublishError, match=r"has a new commit, .* only the Hub's answer to this push was lost: run the same again"
    ):
        push(student, api, tag="v1")
    repo = hub.repo(REPO)
    assert not push(student, api, tag="v1").committed
    assert len(repo.history()) == 2
    assert repo.tags == {"v1": repo.branches["main"]}


def test_a_hub_that_fails_for_good_is_quoted(hub, api, student):
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(PublishError, match=r"(?s)500.*something went wrong on purpose.*is unchanged at"):
        push(student, api)
    hub.fail("POST", "/commit/", status=500)
    hub.fail("GET", "/revision/main", times=100)
    with pytest.raises(PublishError, match=r"(?s)500.*None of the files was sent"):
        push(student, api)
    with pytest.raises(PublishError, match=r"(?s)ConnectError.*None of the files was sent"):
        push(student, HfApi(endpoint="http://127.0.0.1:1", token="hf_write"))


def test_what_the_hub_returns_is_compared(hub, api, student, in_process, monkeypatch):
    def other_bytes():
        hub.repo(REPO).objects.update(dict.fromkeys(hub.repo(REPO).objects, b"0" * 2000))

    hub.before("GET", "/storage/", other_bytes)
    with pytest.raises(PublishError, match=r"(?s)unconfirmed and without a tag; do not use that commit"):
        publish_student(student, REPO, tag="v1", api=api)
    assert not hub.repo(REPO).tags
    runs = []

    def other_logits(folder, inputs, **options):
        runs.append(folder)
        found = reload_here(folder, inputs, **options)
        return found | {"logits": found["logits"] * (1.001 if len(runs) == 2 else 1)}

    monkeypatch.setattr(publish, "reload_logits", other_logits)
    with pytest.raises(PublishError, match=r"copy on the Hub differ by 0.001.*without a tag; do not use that commit"):
        publish_student(student, "ann/second", tag="v1", api=api)
    assert runs[0] == student
    assert runs[1] != student
    assert not hub.repo("ann/second").tags
