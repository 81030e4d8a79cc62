"""One folder → one commit on the Hub: private, only what is meant to be public, read back, and tagged last.

huggingface_hub creates, compares with what is there, sends large files once, tries again and commits all or nothing. This
adds that nobody else's commit is overwritten, that the branch then holds the folder and nothing else, that what the Hub
returns is checked, and that an error says how far it came.
"""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from transformers import TrainingArguments

from .checks import check_card, check_files, check_repo_id

__all__ = ["Preview", "PublishError", "Push", "PushOptions", "preview_folder", "publish_folder", "take_hub_arguments"]

_KEPT = ".gitattributes"  # the Hub writes it itself: what goes to its large-file storage
_Checked = TypeVar("_Checked")


class PublishError(RuntimeError):
    """Not published: the text says why, what is on the Hub and what is not; ``__cause__`` is the error of the library."""


@dataclass(frozen=True)
class Push:
    """Where a folder now is on the Hub.

    Attributes:
        repo_id: The repository.
        repo_type: model, dataset or space.
        revision: The branch.
        commit: Name of the commit that holds exactly the files of the folder.
        committed: Whether that commit is new.
        tag: Tag of the commit, if one was asked for.
        files: Names of the files.
    """

    repo_id: str
    repo_type: str
    revision: str
    commit: str
    committed: bool
    tag: str | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What would be published: the text of the card, and the size of each file in bytes, by its name in the repository."""

    card: str
    files: Mapping[str, int]


class PushOptions(TypedDict, total=False):
    """Options of `publish_folder` and of its callers, documented there."""

    private: bool
    revision: str
    tag: str | None
    commit_message: str
    parent_commit: str | None
    api: HfApi | None


def preview_folder(folder: Path, prove: Callable[[Path], object], *, allowed: Sequence[str]) -> Preview:
    """What `publish_folder` would send of a folder, after the same checks; no Hub and no login are needed.

    Raises:
        ValueError: The folder holds what is not allowed, or no valid card.
    """
    files = check_files(folder, allowed)
    check_card(folder)
    prove(folder)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return Preview(files["README.md"].read_text(encoding="utf-8"), sizes)


def publish_folder(
    folder: Path,
    repo_id: str,
    prove: Callable[[Path], Callable[[Path], _Checked]],
    *,
    allowed: Sequence[str],
    repo_type: str = "model",
    private: bool = True,
    revision: str = "main",
    tag: str | None = None,
    commit_message: str = "Publish",
    parent_commit: str | None = None,
    api: HfApi | None = None,
) -> tuple[Push, _Checked]:
    """Make a branch hold exactly the files of a folder, check what the Hub then returns, and tag it.

    The repository and the branch are created if they are missing. Without a change there is no commit. After a failure the
    same call goes on: large files that arrived in full are not sent again.

    Args:
        folder: What to publish; with a card.
        repo_id: ``namespace/name``.
        prove: Called with the folder before anything is sent; if it raises, nothing is. What it returns is called with a
            download, which is the folder byte for byte; if that raises, there is no tag.
        allowed: Patterns of file names (see `hf_evl_ecg.hub.checks.check_files`).
        repo_type: model, dataset or space (a static one).
        private: Visibility of a new repository; a public one is refused if this is True.
        revision: Branch.
        tag: Tag for the commit. Tags are not moved: one that is there must mean the newest commit, and just these files.
        commit_message: First line of the commit.
        parent_commit: Push only if this is the newest commit of the branch; None: whatever is there now.
        api: Endpoint and token; None: those of the environment.

    Returns:
        Where it is, and what was returned about the download.

    Raises:
        PublishError: The Hub refused, somebody else committed, the connection broke, or the download is not as it should be.
        ValueError: The folder holds what is not allowed, or no valid card; or repo_id is no name of a repository.
    """
    check_repo_id(repo_id)
    files = check_files(folder, allowed)
    check_card(folder)
    compare = prove(folder)
    branch = _Branch(api or HfApi(), repo_id, repo_type, revision)
    with _explained(lambda: "None of the files was sent."):
        head = branch.open(private, parent_commit)
        tagged = tag is not None and branch.has_tag(tag, head)
    with _explained(lambda: branch.state(head)):
        commit = head if tagged else branch.replace(files, head, commit_message)
    state = f"{branch} holds the files at {commit}, unconfirmed and without a tag; do not use that commit."
    if tagged:
        state = f"Nothing was sent: tag={tag!r} is there already, and tags are not moved; choose another tag for other files."
    # A new cache, so that the files are those that the Hub returns, not those that were just sent from here.
    with _explained(lambda: state), tempfile.TemporaryDirectory() as cache:
        checked = compare(branch.read_back(commit, folder, files, Path(cache)))
    # Last of all: whoever finds the tag finds files that came back whole and compute the same.
    if tag is not None and not tagged:
        with _explained(lambda: f"{branch} holds the files at {commit}, without the tag {tag!r}."):
            branch.api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type)
    return Push(repo_id, repo_type, revision, commit, commit != head, tag, tuple(files)), checked


def take_hub_arguments(training: TrainingArguments) -> dict[str, Any] | None:
    """Take ``push_to_hub`` over from a trainer, which would send its pickled arguments and every checkpoint.

    Returns:
        ``repo_id`` and `PushOptions` from the ``hub_`` arguments, to publish after training, as ``push_to_hub`` is off
        now; None if it was.

    Raises:
        ValueError: ``hub_model_id`` is no ``namespace/name``.
    """
    if not training.push_to_hub:
        return None
    check_repo_id(training.hub_model_id or "", "hub_model_id")  # now, not after hours of training
    training.push_to_hub = False
    private, revision = training.hub_private_repo is not False, training.hub_revision or "main"
    api = HfApi(token=training.hub_token)
    return {"repo_id": training.hub_model_id, "private": private, "revision": revision, "api": api}


@dataclass(frozen=True)
class _Branch:
    api: HfApi
    repo_id: str
    repo_type: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo_id} ({self.revision})"

    def head(self) -> str:
        """The newest commit of the branch."""
        return str(self.api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision).sha)

    def open(self, private: bool, parent_commit: str | None) -> str:
        """Create what is missing; the newest commit."""
        if not self.api.repo_exists(self.repo_id, repo_type=self.repo_type):
            sdk = "static" if self.repo_type == "space" else None  # static: a metric's Space runs nothing
            self.api.create_repo(self.repo_id, repo_type=self.repo_type, private=private, space_sdk=sdk)
        if private and not self.api.repo_info(self.repo_id, repo_type=self.repo_type).private:
            raise PublishError(
                f"private=True: {self.repo_id} is public; make it private there, or pass private=False to publish for all to see."
            )
        if self.revision != "main":
            self.api.create_branch(self.repo_id, branch=self.revision, repo_type=self.repo_type, exist_ok=True)
        head = self.head()
        if parent_commit not in (None, head):
            raise PublishError(
                f"parent_commit={parent_commit}: {self} is at {head}, so somebody has committed since. Look at that commit, then "
                "give it as parent_commit; what it holds is replaced."
            )
        return head

    def has_tag(self, tag: str, commit: str) -> bool:
        """Whether a commit has a tag; none but this one may have it."""
        refs = self.api.list_repo_refs(self.repo_id, repo_type=self.repo_type)
        found = {ref.name: ref.target_commit for ref in refs.tags}.get(tag)
        if found not in (None, commit):
            raise PublishError(
                f"tag={tag!r}: it already means {found} in {self.repo_id}, and tags are not moved; choose another."
            )
        return found is not None

    def replace(self, files: Mapping[str, Path], head: str, message: str) -> str:
        """Commit these files in place of all that is there; the newest commit, which is the old one without a change."""
        there = self.api.list_repo_files(self.repo_id, repo_type=self.repo_type, revision=head)
        # parent_commit makes the Hub refuse this if anybody commits in between: nobody's files are deleted unseen.
        gone = [CommitOperationDelete(name) for name in there if name not in files and name != _KEPT]
        return self.api.create_commit(
            self.repo_id,
            [*gone, *(CommitOperationAdd(name, path) for name, path in files.items())],
            commit_message=message,
            repo_type=self.repo_type,
            revision=self.revision,
            parent_commit=head,
        ).oid

    def state(self, before: str) -> str:
        """What is on the Hub after a commit that failed."""
        try:
            now = self.head()
        except Exception:  # whatever it was, the error that is being explained matters more
            return f"The Hub could not be asked whether {self} is still at {before}; run the same again."
        if now == before:
            kept = "Large files that arrived in full are kept there unseen: the same again sends only the others."
            return f"{self} is unchanged at {before}, and holds none of these changes. {kept}"
        return (
            f"{self} has a new commit, {now} after {before}. If it holds your files, only the Hub's answer to this push was lost: run "
            "the same again, and it goes on from there. If it is somebody else's, none of your changes were written and theirs are "
            "untouched: look at them, and run the same again only if your folder is to replace them."
        )

    def read_back(self, commit: str, folder: Path, names: Iterable[str], cache: Path) -> Path:
        """The files of a commit, downloaded and compared with those of a folder."""
        copy = Path(
            self.api.snapshot_download(self.repo_id, repo_type=self.repo_type, revision=commit, cache_dir=cache)
        )
        # byte for byte: equal sizes and times, which a shallow comparison looks at, do not show a damaged file
        found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if not path.is_dir()} - {_KEPT}
        _, differing, missing = filecmp.cmpfiles(copy, folder, found | set(names), shallow=False)
        if wrong := sorted(differing + missing):
            raise PublishError(f"{self.repo_id} at {commit} returns other files than those of the folder: {wrong}.")
        return copy


@contextmanager
def _explained(state: Callable[[], str]) -> Iterator[None]:
    """Turn whatever goes wrong into one error that also says what is on the Hub."""
    try:
        yield
    except Exception as error:  # includes errors of the HTTP library, of upload threads and of the check
        kind = "" if isinstance(error, PublishError) else f"{type(error).__name__}: "
        raise PublishError(f"{kind}{str(error).strip()} {state()}") from error
