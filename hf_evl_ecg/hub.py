"""One folder → one commit on the Hub: private, all or nothing, only what is meant to be public, and read back.

This file stands in both packages of this project, word for word, as they do not import each other.
"""

from __future__ import annotations

import filecmp
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments

from .hub_folder import check_card, check_files

__all__ = [
    "PublishError",
    "Push",
    "downloaded",
    "push_folder",
    "tag_push",
    "take_hub_arguments",
]

_KEPT = ".gitattributes"  # written by the Hub


class PublishError(RuntimeError):
    """Publishing did not succeed: the text says why, what is on the Hub and what is not, and what to do."""


@dataclass(frozen=True)
class Push:
    """Where a folder now is on the Hub.

    Attributes:
        repo_id: The repository.
        repo_type: model, dataset or space.
        revision: The branch.
        commit: Name of the commit that holds exactly the files of the folder.
        committed: Whether that commit is new; False where the branch held the same files before.
        files: Names of the files.
    """

    repo_id: str
    repo_type: str
    revision: str
    commit: str
    committed: bool
    files: tuple[str, ...]


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    allowed: Sequence[str],
    repo_type: str = "model",
    private: bool = True,
    revision: str = "main",
    commit_message: str = "Publish",
    parent_commit: str | None = None,
    tag: str | None = None,
    space_sdk: str | None = None,
    api: HfApi | None = None,
) -> Push:
    """Make a branch hold exactly the files of a folder, in one commit; without a change there is no commit.

    The repository and the branch are created if they are missing. Large files are sent first, each of which is kept when
    a later one fails, so trying again goes on where it stopped; the commit comes last and is made whole or not at all.

    Args:
        folder: What to publish; with a card.
        repo_id: ``namespace/name``.
        allowed: Patterns of file names.
        repo_type: model, dataset or space.
        private: Visibility of a new repository; a public one is refused if this is True.
        revision: Branch.
        commit_message: First line of the commit.
        parent_commit: Push only if this is the newest commit of the branch; None: whatever is there now.
        tag: Refuse if this tag means another commit; it is given by `tag_push`.
        space_sdk: Kind of a new Space.
        api: Endpoint and token; None: those of the environment.

    Raises:
        PublishError: The Hub refused, somebody else committed, or the connection broke.
        ValueError: The folder holds what is not allowed, or no valid card; or repo_id is no name of a repository.
    """
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"repo_id={repo_id!r} lacks its namespace; give 'user-or-organisation/{repo_id}'")
    files = check_files(folder, allowed)
    check_card(folder)
    api = api or HfApi()
    branch = _Branch(api, repo_id, repo_type, revision)
    with _explained(branch, "Nothing was sent."):
        try:
            public = not api.repo_info(repo_id, repo_type=repo_type).private
        except RepositoryNotFoundError:
            api.create_repo(repo_id, repo_type=repo_type, private=private, space_sdk=space_sdk)
            public = not private
        if private and public:
            raise PublishError(
                f"{repo_id} exists and is public, but private=True was asked for. Nothing was sent. Pass private=False to "
                "publish for all to see, or make the repository private first."
            )
    with _explained(branch, f"{repo_id} is there, and none of the files was sent."):
        if revision != "main":
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        head = branch.head()
        _check_parent(branch, head, parent_commit)
        operations = branch.changes(files, head)
        if tag is not None and (tagged := branch.tags().get(tag)) and (operations or tagged != head):
            raise PublishError(
                f"The tag {tag!r} of {repo_id} already means {tagged}; published tags are not moved. Nothing was sent. Choose "
                "another tag."
            )
    if not operations:
        return Push(repo_id, repo_type, revision, head, False, tuple(files))
    try:
        with _explained(branch, f"{branch} is unchanged at {head}, and holds none of these changes.", head):
            commit = api.create_commit(
                repo_id,
                operations,
                commit_message=commit_message,
                repo_type=repo_type,
                revision=revision,
                parent_commit=head,
            ).oid
    except PublishError:
        found = branch.arrived(files)  # the answer alone may have been lost
        if found is None:
            raise
        commit = found
    return Push(repo_id, repo_type, revision, commit, True, tuple(files))


def tag_push(push: Push, tag: str, api: HfApi | None = None) -> None:
    """Tag the commit of a push, unless it has that tag.

    Raises:
        PublishError: The tag means another commit, or the Hub refused.
    """
    api = api or HfApi()
    branch = _Branch(api, push.repo_id, push.repo_type, push.revision)
    with _explained(branch, f"{push.repo_id} holds the files at {push.commit}, without the tag {tag!r}."):
        if branch.tags().get(tag) != push.commit:
            api.create_tag(push.repo_id, tag=tag, revision=push.commit, repo_type=push.repo_type)


def take_hub_arguments(training: TrainingArguments) -> dict[str, Any] | None:
    """Take ``push_to_hub`` over from a trainer, which would send its pickled arguments and every checkpoint.

    Args:
        training: ``push_to_hub`` becomes False; ``hub_model_id``, ``hub_private_repo``, ``hub_revision`` and ``hub_token``
            are read.

    Returns:
        ``repo_id``, ``private`` (True unless ``hub_private_repo`` is False), ``revision`` and ``api`` for publishing after
        training; None without ``push_to_hub``.

    Raises:
        ValueError: ``hub_model_id`` is not ``namespace/name``.
    """
    if not training.push_to_hub:
        return None
    training.push_to_hub = False
    if not training.hub_model_id or "/" not in training.hub_model_id:
        raise ValueError(f"--hub_model_id {training.hub_model_id}: with --push_to_hub, give namespace/name")
    return {
        "repo_id": training.hub_model_id,
        "private": training.hub_private_repo is not False,
        "revision": training.hub_revision or "main",
        "api": HfApi(token=training.hub_token),
    }


@contextmanager
def downloaded(push: Push, folder: Path, api: HfApi | None = None) -> Iterator[Path]:
    """The files of a push as the Hub returns them, in a new cache that is removed afterwards.

    Args:
        push: What was pushed.
        folder: From where; every byte is compared.
        api: Endpoint and token; None: those of the environment.

    Raises:
        PublishError: They do not arrive, or are others than those that were sent.
    """
    api = api or HfApi()
    state = f"{push.repo_id} holds the files at {push.commit}, but they were not read back."
    with tempfile.TemporaryDirectory() as cache:
        with _explained(_Branch(api, push.repo_id, push.repo_type, push.revision), state):
            found = Path(
                api.snapshot_download(push.repo_id, repo_type=push.repo_type, revision=push.commit, cache_dir=cache)
            )
        names = {path.relative_to(found).as_posix() for path in found.rglob("*") if not path.is_dir()} - {_KEPT}
        _, differing, missing = filecmp.cmpfiles(found, folder, names | set(push.files), shallow=False)
        if wrong := sorted(differing + missing):
            raise PublishError(
                f"{push.repo_id} at {push.commit} returns other files than were sent: {wrong}. Do not use that commit; "
                "publish again."
            )
        yield found


@dataclass(frozen=True)
class _Branch:
    api: HfApi
    repo_id: str
    repo_type: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo_id} ({self.revision})"

    def head(self) -> str:
        found = self.api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision).sha
        assert found is not None
        return found

    def tags(self) -> dict[str, str]:
        refs = self.api.list_repo_refs(self.repo_id, repo_type=self.repo_type)
        return {ref.name: ref.target_commit for ref in refs.tags}

    def changes(self, files: dict[str, Path], commit: str) -> list[CommitOperationAdd | CommitOperationDelete]:
        """What turns the files of a commit into these."""
        listed = self.api.list_repo_tree(self.repo_id, recursive=True, revision=commit, repo_type=self.repo_type)
        there = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        gone = [CommitOperationDelete(name) for name in there if name not in files and name != _KEPT]
        new = [name for name, path in files.items() if name not in there or not _same(path, there[name])]
        return [*gone, *(CommitOperationAdd(name, str(files[name])) for name in new)]

    def arrived(self, files: dict[str, Path]) -> str | None:
        """Name of the newest commit if it holds exactly these files; None also if the Hub does not say."""
        try:
            head = self.head()
            return None if self.changes(files, head) else head
        except Exception:  # the failure that led here is the one to report
            return None


def _same(path: Path, entry: RepoFile) -> bool:
    if path.stat().st_size != entry.size:
        return False
    if entry.lfs is None:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry.blob_id
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256


def _check_parent(branch: _Branch, head: str, parent_commit: str | None) -> None:
    if parent_commit not in (None, head):
        raise PublishError(
            f"{branch} is at {head}, not at {parent_commit}: somebody has committed since. Nothing was sent. Look at what "
            "is there, then push with parent_commit of that commit, or None to replace whatever is there."
        )


@contextmanager
def _explained(branch: _Branch, state: str, head: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while talking to the Hub into one error that says what is there."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:  # HTTP errors, those of the HTTP library, and of uploads in threads
        if head is not None:
            state = _state(branch, head, state)
        raise PublishError(f"{_reason(branch, error)} {state}") from error


def _state(branch: _Branch, head: str, unchanged: str) -> str:
    try:
        now = branch.head()
    except Exception:  # nothing is known, and that is said
        return f"The Hub could not be asked whether {branch} has changed from {head}. Run the same again."
    if now != head:
        return f"{branch} has moved from {head} to {now} meanwhile; that commit is somebody else's and was not touched."
    return f"{unchanged} Large files that arrived in full are kept there unseen, and not sent again by the next try."


def _reason(branch: _Branch, error: BaseException) -> str:
    """The first cause that the Hub itself gave, in a sentence with what to do."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    if cause is None:
        return f"The connection with {branch.api.endpoint} broke ({type(error).__name__}: {error}). Try again."
    status = cause.response.status_code
    namespace = branch.repo_id.split("/")[0]
    reasons = {
        401: "the token is missing, wrong or expired; log in with `hf auth login`, or pass HfApi(token=...)",
        403: f"the token may not write to {namespace!r}; use a token with write permission there",
        404: f"there is no {branch.repo_type} {branch.repo_id} with a branch {branch.revision!r} that this token may see",
        409: "the tag was given to another commit in the meantime",
        412: "somebody else has committed while the files were being sent; look at their commit, then push again",
    }
    said = str(cause.server_message or cause).strip().splitlines()
    return f"The Hub refuses ({status}): {reasons.get(status, said[0] if said else 'no reason given')}."
