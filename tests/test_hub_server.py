"""The Hub of the tests does what the real one documents: visibility, revisions, ranges, large files, errors."""

import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hub_server import go_online, running_hub

REPO = "ann/model"


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as running:
        go_online(monkeypatch, running)
        yield running


@pytest.fixture
def api(hub):
    found = HfApi(endpoint=hub.url, token="hf_write")
    found.create_repo(REPO, private=True)
    found.create_commit(
        REPO,
        [CommitOperationAdd("model.safetensors", bytes(range(256))), CommitOperationAdd("sub/config.json", b"{}")],
        commit_message="first",
    )
    return found


def fetch(hub, path: str, token: str | None = "hf_write", **headers: str):
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    return urllib.request.urlopen(urllib.request.Request(hub.url + path, headers=headers))


def status(error: pytest.ExceptionInfo) -> int:
    return error.value.response.status_code


def test_private_repositories_are_invisible_to_others(hub, api):
    assert api.repo_info(REPO).private
    for token, code in ((False, 401), ("hf_other", 404)):
        stranger = HfApi(endpoint=hub.url, token=token)
        with pytest.raises(RepositoryNotFoundError) as error:
            stranger.repo_info(REPO)
        assert status(error) == code
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=hub.url, token="hf_unknown").repo_info(REPO)
    assert status(error) == 401
    assert not isinstance(error.value, RepositoryNotFoundError)
    api.create_repo("ann/open", private=False)
    assert not HfApi(endpoint=hub.url, token=False).repo_info("ann/open").private
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(REPO)
    assert status(error) == 409


def test_large_files_come_from_another_host_without_the_token(hub, api, tmp_path):
    content = bytes(range(256))
    assert hub.repo(REPO).commits[api.repo_info(REPO).sha].tree["model.safetensors"].lfs
    assert Path(api.hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path)).read_bytes() == content
    assert hub.served("GET", "/storage/")
    info = api.get_paths_info(REPO, ["model.safetensors"])[0]
    assert info.lfs.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(urllib.error.HTTPError, match="400"):
        fetch(hub, f"/storage/models/{REPO}/{info.lfs.sha256}")
    assert fetch(hub, f"/storage/models/{REPO}/{info.lfs.sha256}", None, Range="bytes=10-19").read() == content[10:20]


def test_files_have_the_etag_of_git_and_ranges(hub, api):
    path = f"/{REPO}/resolve/main/sub/config.json"
    whole = fetch(hub, path)
    blob = hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert (whole.status, whole.read(), whole.headers["ETag"]) == (200, b"{}", f'"{blob}"')
    assert whole.headers["X-Repo-Commit"] == api.repo_info(REPO).sha
    part = fetch(hub, path, Range="bytes=1-")
    assert (part.status, part.read(), part.headers["Content-Range"]) == (206, b"}", "bytes 1-1/2")
    with pytest.raises(urllib.error.HTTPError, match="416"):
        fetch(hub, path, Range="bytes=5-")


def test_revisions_tags_and_listings(hub, api):
    first = api.repo_info(REPO).sha
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="feature/x", revision="v1")
    second = api.create_commit(
        REPO, [CommitOperationDelete("sub/")], commit_message="second", revision="feature/x", parent_commit=first
    ).oid
    assert api.list_repo_files(REPO, revision="feature/x") == [".gitattributes", "model.safetensors"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub", revision="v1")] == ["sub/config.json"]
    assert [entry.path for entry in api.list_repo_tree(REPO)] == ["sub", ".gitattributes", "model.safetensors"]
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "feature/x": second}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first)]
    assert [commit.title for commit in api.list_repo_commits(REPO, revision=second)] == [
        "second",
        "first",
        "initial commit",
    ]
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="nowhere")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "nothing.json")


def test_commits_are_checked(hub, api):
    first = api.repo_info(REPO).sha
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(REPO, [CommitOperationAdd("y", b"y")], commit_message="stale", parent_commit=first)
    assert status(error) == 412
    lines = [{"key": "header", "value": {"summary": "s", "description": ""}}]
    lines += [{"key": "lfsFile", "value": {"path": "z.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    request = urllib.request.Request(
        f"{hub.url}/api/models/{REPO}/commit/main", body, {"Authorization": "Bearer hf_write"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    with pytest.raises(ValueError, match="license"):
        api.upload_file(path_or_fileobj=b"---\nlicense: My License\n---\n", path_in_repo="README.md", repo_id=REPO)
    assert sorted(hub.repo(REPO).files()) == ["model.safetensors", "sub/config.json", "x"]


def test_faults_happen_as_often_as_was_asked(hub, api):
    hub.fail("GET", "/api/models/ann/model", status=503, times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as error:
            api.repo_info(REPO)
        assert status(error) == 503
    assert api.repo_info(REPO).private
    seen = []
    hub.before("GET", "/refs", lambda: seen.append("refs"))
    api.list_repo_refs(REPO)
    api.list_repo_refs(REPO)
    assert seen == ["refs"]
    hub.cut("GET", "/refs")
    with pytest.raises(Exception, match=r"(?i)reset|disconnected|broken"):
        api.list_repo_refs(REPO)
