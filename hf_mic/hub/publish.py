"""Encoders on the Hub: checked before they are sent, and again as the Hub returns them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from hf_mic.files import write_atomically

from .legacy_modules import check_legacy, has_legacy_modules, write_legacy_modules
from .push import PublishError, Push, push_encoder

__all__ = [
    "CHECK_TEXTS",
    "Preview",
    "PublishReport",
    "preview_encoder",
    "publish_encoder",
    "reload_embeddings",
    "write_card",
]

CHECK_TEXTS = ("A short sentence.", "Twelve leads were recorded at rest.", "42", "Wo ist der nächste Bahnhof, bitte?")

# What is allowed, not what is forbidden: no pickles, no code, and no kind of file that nobody thought of.
_SENT = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".yaml", ".png", ".jpg", "LICENSE")
_BESIDE = ("LICENSE", "results/*.json", ".eval_results/*.yaml")  # what belongs to a card, with its pictures

# What a user writes, and nothing else: plain sentence-transformers, no trust_remote_code. In a new process, because this one has
# imported this package, which would hide that the folder needs it.
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
        difference: Largest difference of coordinates between the embeddings of what was sent and of what the Hub returned,
            each computed in a new process, over the largest coordinate.
    """

    push: Push
    difference: float


@dataclass(frozen=True)
class Preview:
    """What would be published: the text of the card, and the size of each file in bytes, by its name in the repository."""

    card: str
    files: Mapping[str, int]


def preview_encoder(
    model: SentenceTransformer | str | Path,
    *,
    card: str | Path | None = None,
    truncate_dim: int | None = None,
    legacy_modules: bool = False,
) -> Preview:
    """What :func:`publish_encoder` would send, after the same checks; no Hub and no login are needed.

    Raises:
        PublishError: The encoder does not load in a new process.
        ValueError: As :func:`publish_encoder`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _save(model, card, folder, legacy_modules)
        reload_embeddings(folder, CHECK_TEXTS, truncate_dim)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
        return Preview((folder / "README.md").read_text(encoding="utf-8"), sizes)


def publish_encoder(
    model: SentenceTransformer | str | Path,
    repo_id: str,
    *,
    card: str | Path | None = None,
    truncate_dim: int | None = None,
    legacy_modules: bool = False,
    private: bool = True,
    revision: str = "main",
    tag: str | None = None,
    commit_message: str = "Publish encoder",
    parent_commit: str | None = None,
    api: HfApi | None = None,
) -> PublishReport:
    """Publish an encoder as `SentenceTransformer.save_pretrained` writes it, and prove that the Hub's copy computes the same.

    Unlike `SentenceTransformer.push_to_hub`, it replaces all that the branch held, is private, has a complete card, and is
    run in a new process that cannot import this package: before it is sent, and again as the Hub returns it. Only a commit
    that passed is tagged. The same again makes no commit.

    Args:
        model: A model, or its folder, of which only the encoder is sent, its card, and what belongs to that: the pictures
            that it shows, ``LICENSE``, ``results/*.json`` and ``.eval_results/*.yaml``.
        repo_id: ``namespace/name``.
        card: Text of the card, or a file with it and its pictures beside it; None: README.md of the folder.
        truncate_dim: Width at which embeddings are compared; None: the full width.
        legacy_modules: Give the modules the names that servers read, see
            :func:`hf_mic.hub.legacy_modules.write_legacy_modules`; those of a folder that has them are kept.
        private: Visibility of a new repository; a public one is refused if this is True.
        revision: Branch.
        tag: Tag for the commit; one that is there already must mean the newest commit, with just these files.
        commit_message: First line of the commit.
        parent_commit: Push only if this is the newest commit of the branch; None: whatever is there now.
        api: Endpoint and token; None: those of the environment.

    Raises:
        PublishError: The encoder does not load, the Hub refused, the connection broke, or its copy computes something else.
        ValueError: The folder is no encoder, the card is missing or incomplete, or servers cannot read the modules.

    See docs/publish.md for a run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _save(model, card, Path(scratch), legacy_modules)
        push, difference = push_encoder(
            Path(scratch),
            repo_id,
            lambda folder: reload_embeddings(folder, CHECK_TEXTS, truncate_dim),
            private=private,
            revision=revision,
            tag=tag,
            commit_message=commit_message,
            parent_commit=parent_commit,
            api=api or HfApi(),
        )
    return PublishReport(push, difference)


def write_card(folder: Path, card: str | Path) -> None:
    """Write README.md: a text, or a copy of a file together with the pictures that it shows from beside it."""
    text = card.read_text(encoding="utf-8-sig") if isinstance(card, Path) else card
    if isinstance(card, Path):
        _copy([name for name in _pictures(text) if (card.parent / name).is_file()], card.parent, folder)
    write_atomically(folder / "README.md", lambda file: file.write(text.encode()))


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
        arguments = [str(Path(folder).resolve()), str(truncate_dim or 0), str(output)]
        # Offline, so that what the folder lacks cannot come from elsewhere; as many threads as here, so that sums round alike.
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        try:
            subprocess.run(
                # -P: or a checkout in the working directory would be imported
                [sys.executable, "-P", "-c", _SCRIPT, *arguments],
                check=True,
                input=json.dumps(list(texts)),
                capture_output=True,
                text=True,
                env=environment,
                cwd=scratch,
                timeout=timeout_s,
            )
        except subprocess.CalledProcessError as error:
            raise PublishError(f"{folder} does not load in a new process:\n{error.stderr.strip()[-2000:]}") from error
        except subprocess.TimeoutExpired as error:
            raise PublishError(f"timeout_s={timeout_s:g}: {folder} was not loaded within that time.") from error
        return np.load(output)


def _save(model: SentenceTransformer | str | Path, card: str | Path | None, folder: Path, legacy_modules: bool) -> None:
    """Write the encoder and its card to an empty folder, with what belongs to the card."""
    if not isinstance(model, SentenceTransformer):
        source = Path(model)
        if not (source / "modules.json").is_file():
            raise ValueError(
                f"model={source}: it has no modules.json; give a folder that SentenceTransformer.save_pretrained wrote"
            )
        card = source / "README.md" if card is None else card
        legacy_modules = legacy_modules or has_legacy_modules(source)
        beside = [path for pattern in _BESIDE for path in source.glob(pattern)]
        _copy([path.relative_to(source).as_posix() for path in beside], source, folder)
        model = SentenceTransformer(str(source), device="cpu")
    if card is None or (isinstance(card, Path) and not card.is_file()):
        raise ValueError(f"card={card}: no README.md, and nothing is published without a card; give a text or a file")
    if legacy_modules:
        check_legacy(model)  # before the weights are written
    model.save_pretrained(str(folder), create_model_card=False)
    if legacy_modules:
        write_legacy_modules(model, folder)
    write_card(folder, card)
    _check_card(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    if foreign := [path.name for path in files if not {path.name, path.suffix} & set(_SENT)]:
        raise ValueError(
            f"model: {foreign} would be sent; allowed are safetensors, text and pictures. Nothing was sent"
        )


def _copy(names: Iterable[str], source: Path, folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _pictures(card: str) -> list[str]:
    """Relative addresses of the pictures that a card shows."""
    return re.findall(r"!\[[^\]]*\]\((?!\w+:|/|\.\.)([^)\s]+)\)", card)


def _check_card(folder: Path) -> None:
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8-sig"))
    if not card.data.get("license"):
        raise ValueError("card: its metadata names no license; add one, such as license: apache-2.0")
    missing = [name for name in _pictures(card.text) if not (folder / name).is_file()]
    left = re.findall(r"\[More Information Needed\]|\{\{.*?\}\}", card.text)
    if missing or left:
        raise ValueError(f"card: pictures {missing} are not there, placeholders {left} are; complete it")
