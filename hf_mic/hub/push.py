"""A folder with an encoder on the Hub: private, read back before it is tagged, with errors that say how far it came."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi
from numpy.typing import NDArray
from transformers import TrainingArguments

__all__ = ["PublishError", "Push", "push_encoder", "take_hub_arguments"]

SAME = 1e-5  # of the largest coordinate; the same files on the same machine, so normally 0


class PublishError(RuntimeError):
    """An encoder that was not published, or that must not be used: why, and what is on the Hub.

    ``__cause__`` is the error of huggingface_hub or of the connection, if there was one.
    """


@dataclass(frozen=True)
class Push:
    """The encoder on the Hub: where it is, whether ``commit`` is a new one, its tag, and the names of its files."""

    repo_id: str
    revision: str
    commit: str
    committed: bool
    tag: str | None
    files: tuple[str, ...]


def push_encoder(
    folder: Path,
    repo_id: str,
    embed: Callable[[Path], NDArray[np.float32]],
    *,
    private: bool,
    revision: str,
    tag: str | None,
    commit_message: str,
    parent_commit: str | None,
    api: HfApi,
) -> tuple[Push, float]:
    """Replace what a branch holds by a folder, in one commit; compare embeddings of a download with its own; tag it.

    `HfApi.upload_folder` sends nothing that is there already, and makes no commit without a change. A tag that is there is
    not moved: then nothing is sent, and it must mean this very folder. Arguments: see `hf_mic.hub.publish.publish_encoder`.

    Returns:
        Where it is, and the largest difference of coordinates, over the largest coordinate.

    Raises:
        PublishError: The Hub refused, the connection broke, somebody else has committed, or the copy does not give the same.
    """
    head = sent = None
    try:
        expected = embed(folder)
        head = _open(api, repo_id, revision, private)
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
        if parent_commit not in (None, head):
            raise PublishError(
                f"parent_commit={parent_commit}: {repo_id} ({revision}) is at {head}, so somebody has committed since. Look at that "
                "commit, then give it as parent_commit; what it holds is replaced."
            )
        if tags.get(tag or "", head) != head:
            raise PublishError(
                f"{tag=}: it already means {tags[tag or '']} in {repo_id}, and tags are not moved; choose another."
            )
        if tag not in tags:
            # parent_commit makes the Hub refuse this if anybody commits in between: nobody's files are deleted unseen.
            sent = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                delete_patterns="*",
                revision=revision,
                commit_message=commit_message,
                parent_commit=head,
            ).oid
        commit = sent or head
        difference = _read_back(api, repo_id, commit, folder, embed, expected)
        # Last of all: whoever finds the tag finds files that came back whole and compute the same.
        if tag is not None and tag not in tags:
            api.create_tag(repo_id, tag=tag, revision=commit)
    except Exception as error:  # includes errors raised by the HTTP library and upload threads
        said = error if isinstance(error, PublishError) else f"{type(error).__name__}: {error}"
        raise PublishError(f"{said} {_how_far(api, repo_id, revision, head, sent)}") from error
    return Push(repo_id, revision, commit, commit != head, tag, tuple(sorted(_names(folder)))), difference


def _open(api: HfApi, repo_id: str, revision: str, private: bool) -> str:
    """Create what is missing, and nothing public unless that was asked for; the newest commit."""
    if not api.repo_exists(repo_id):
        api.create_repo(repo_id, private=private)
    if private and not api.model_info(repo_id).private:
        raise PublishError(
            f"private=True: {repo_id} is public; make it private there, or pass private=False to publish for all to see."
        )
    if revision != "main":
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return str(api.model_info(repo_id, revision=revision).sha)


def _read_back(
    api: HfApi,
    repo_id: str,
    commit: str,
    folder: Path,
    embed: Callable[[Path], NDArray[np.float32]],
    expected: NDArray[np.float32],
) -> float:
    """Download a commit, compare it with the folder byte for byte, and what it computes with what is expected."""
    # A new cache, so that the files are those that the Hub returns, not those that were just sent from here.
    with tempfile.TemporaryDirectory() as cache:
        copy = Path(api.snapshot_download(repo_id, revision=commit, cache_dir=cache))
        # not shallow: equal sizes and times do not show a damaged file
        _, differing, missing = filecmp.cmpfiles(folder, copy, _names(folder) | _names(copy), shallow=False)
        if wrong := sorted(differing + missing):
            raise PublishError(f"{repo_id} at {commit} returns other files than those of the folder: {wrong}.")
        difference = float(np.abs(embed(copy) - expected).max() / np.abs(expected).max())
    if not difference <= SAME:
        raise PublishError(f"The embeddings of the copy on the Hub differ by {difference:.2g}.")
    return difference


def _how_far(api: HfApi, repo_id: str, revision: str, before: str | None, sent: str | None) -> str:
    """What is on the Hub after a failure."""
    if before is None:
        return "Nothing was sent."
    if sent is not None:
        return f"{repo_id} ({revision}) holds the files at {sent}, without a tag: do not use that commit unchecked."
    try:
        now = api.model_info(repo_id, revision=revision).sha
    except Exception:  # whatever it was, the error that is being explained matters more
        return f"The Hub could not be asked whether {repo_id} ({revision}) is still at {before}; run the same again."
    if now == before:
        return (
            f"{repo_id} ({revision}) is unchanged at {before}. The same again sends only what has not arrived in full."
        )
    return (
        f"{repo_id} ({revision}) has a new commit, {now} after {before}. If it holds your files, only the Hub's answer to this push was "
        "lost: run the same again, and it goes on from there. If it is somebody else's, none of your changes were written and theirs "
        "are untouched: look at them, and run the same again only if your encoder is to replace them."
    )


def _names(folder: Path) -> set[str]:
    """Files by their names in the repository, without the one that the Hub writes: what goes to its large-file storage."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".gitattributes"}


def take_hub_arguments(training: TrainingArguments) -> dict[str, Any] | None:
    """Turn ``push_to_hub`` of a trainer off, as it sends every checkpoint, and return where to publish after training.

    Returns:
        Arguments for `hf_mic.hub.publish.publish_encoder`: ``repo_id``, ``private`` unless ``hub_private_repo`` is False,
        ``revision`` and ``api``; None without ``push_to_hub``.

    Raises:
        ValueError: ``hub_model_id`` is not ``namespace/name``.
    """
    if not training.push_to_hub:
        return None
    name, training.push_to_hub = training.hub_model_id or "", False
    if name.count("/") != 1:
        raise ValueError(f"hub_model_id={name!r}: with push_to_hub, give namespace/name")  # now, not after training
    private = training.hub_private_repo is not False
    hub = {"private": private, "revision": training.hub_revision or "main", "api": HfApi(token=training.hub_token)}
    return {"repo_id": name, **hub}
