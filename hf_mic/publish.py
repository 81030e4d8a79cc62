"""Encoders on the Hub: checked before they are sent, and again as the Hub returns them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import HfApi
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from .hub import PublishError, Push, downloaded, push_folder, tag_push
from .hub_folder import check_card, check_files, write_card

__all__ = ["CHECK_TEXTS", "PublishReport", "publish_encoder", "reload_embeddings"]

CHECK_TEXTS = ("A short sentence.", "Twelve leads were recorded at rest.", "42", "Wo ist der nächste Bahnhof, bitte?")

_CARD_FILES = ("README.md", "LICENSE", "*.png", "*.jpg", "results/*.json", ".eval_results/*.yaml")
_MODULE_FILES = (
    *("config.json", "*_config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt"),
    *("merges.txt", "chat_template.jinja"),
)
_SAME = 1e-5  # of the largest coordinate; the same files on the same machine, so normally 0

# What a user writes, and nothing else: plain sentence-transformers, no trust_remote_code, this package out of reach.
_SCRIPT = """
import json, sys

sys.modules["hf_mic"] = sys.modules["hf_evl_ecg"] = None
folder, dim, output = sys.argv[1:4]

import numpy as np
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder, truncate_dim=int(dim) or None, device="cpu")
np.save(output, model.encode(json.loads(sys.stdin.read()), convert_to_numpy=True).astype(np.float32))
"""


@dataclass(frozen=True)
class PublishReport:
    """What is on the Hub, and how it was checked.

    Attributes:
        push: Where it is.
        tag: Tag of the commit, if one was asked for.
        difference: Largest difference of coordinates between the embeddings of the folder and of what the Hub returned,
            each computed in a new process, over the largest coordinate.
    """

    push: Push
    tag: str | None
    difference: float


def publish_encoder(
    model: SentenceTransformer | str | Path,
    repo_id: str,
    *,
    card: str | Path | None = None,
    truncate_dim: int | None = None,
    private: bool = True,
    revision: str = "main",
    tag: str | None = None,
    commit_message: str = "Publish encoder",
    parent_commit: str | None = None,
    api: HfApi | None = None,
) -> PublishReport:
    """Publish an encoder as `SentenceTransformer.save_pretrained` writes it, and prove that the Hub's copy computes the same.

    Unlike `SentenceTransformer.push_to_hub`, nothing is sent unless the folder holds the encoder and its card alone, in
    safetensors, without pickles or code, and loads in a new process that cannot import this package. Then the branch is
    made to hold exactly this folder (see `hf_mic.hub.push_folder`; the same folder again makes no commit), downloaded into
    a new cache, and run in another such process. Only a commit that passed is tagged.

    Args:
        model: The folder, or a model in memory, which is saved to a temporary one.
        repo_id: ``namespace/name``.
        card: Text of the card, or a file with it and its pictures beside it; None: README.md is in the folder already.
        truncate_dim: Width at which embeddings are compared; None: the full width.
        private: Visibility of a new repository; a public one is refused if this is True.
        revision: Branch.
        tag: Tag for the commit.
        commit_message: First line of the commit.
        parent_commit: Push only if this is the newest commit of the branch; None: whatever is there now.
        api: Endpoint and token; None: those of the environment.

    Raises:
        PublishError: The folder does not load, the Hub refused, the connection broke, or its copy computes something else.
        ValueError: The folder is no encoder, holds something else, or its card is missing or invalid.

    Example:
        >>> publish_encoder("outputs/mic", "ann/mic-minilm", truncate_dim=32, tag="v1.0")  # doctest: +SKIP
    """
    if isinstance(model, SentenceTransformer):
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch, create_model_card=False)
            return publish_encoder(
                scratch,
                repo_id,
                card=card,
                truncate_dim=truncate_dim,
                private=private,
                revision=revision,
                tag=tag,
                commit_message=commit_message,
                parent_commit=parent_commit,
                api=api,
            )
    folder = Path(model)
    allowed = _allowed_files(folder)
    check_files(folder, allowed)
    if card is not None:
        write_card(folder, card)
    check_card(folder)
    try:
        expected = reload_embeddings(folder, CHECK_TEXTS, truncate_dim)
    except PublishError as error:
        raise PublishError(f"{error}\nNothing was sent.") from error
    push = push_folder(
        folder,
        repo_id,
        allowed=allowed,
        private=private,
        revision=revision,
        commit_message=commit_message,
        parent_commit=parent_commit,
        tag=tag,
        api=api,
    )
    warning = f"{repo_id} holds the files at {push.commit}, without a tag; do not use that commit."
    with downloaded(push, folder, api) as copy:
        try:
            found = reload_embeddings(copy, CHECK_TEXTS, truncate_dim)
        except PublishError as error:
            raise PublishError(f"The copy on the Hub fails. {error}\n{warning}") from error
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= _SAME:
        raise PublishError(f"The embeddings of the copy on the Hub differ by {difference:.2g}. {warning}")
    if tag is not None:
        tag_push(push, tag, api)
    return PublishReport(push, tag, difference)


def reload_embeddings(
    folder: str | Path, texts: Sequence[str], truncate_dim: int | None = None, *, timeout_s: float = 1800
) -> NDArray[np.float32]:
    """Embed texts with plain sentence-transformers in a new process that cannot import this package.

    Args:
        folder: The saved encoder.
        texts: What to embed.
        truncate_dim: Width; None: the full width.
        timeout_s: Longest time.

    Returns:
        Shape: (len(texts), width).

    Raises:
        PublishError: The process failed; the text ends with what it printed last.
    """
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "embeddings.npy")
        command = [
            sys.executable,
            "-P",
            "-c",
            _SCRIPT,
            str(Path(folder).resolve()),
            str(truncate_dim or 0),
            str(output),
        ]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        try:
            done = subprocess.run(
                command,
                input=json.dumps(list(texts)),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env=environment,
                cwd=scratch,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PublishError(f"{folder} was not loaded within {timeout_s:g} s.") from error
        if done.returncode or not output.is_file():
            raise PublishError(f"{folder} does not load in a new process:\n{done.stderr.strip()[-2000:]}")
        return np.load(output)


def _allowed_files(folder: Path) -> tuple[str, ...]:
    """Patterns of the files of the modules that modules.json names, and of a card."""
    path = folder / "modules.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no modules.json; give a folder written by SentenceTransformer.save_pretrained")
    modules = json.loads(path.read_text(encoding="utf-8"))
    if own := [module["type"] for module in modules if not module["type"].startswith("sentence_transformers.")]:
        raise ValueError(
            f"{folder} needs code that sentence-transformers does not have: {own}; others could not load it"
        )
    inside = {f"{module['path']}/" if module["path"] else "" for module in modules}
    return (
        *_CARD_FILES,
        "modules.json",
        "config_sentence_transformers.json",
        *(place + name for place in sorted(inside) for name in _MODULE_FILES),
    )
