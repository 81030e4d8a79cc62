"""What a folder may hold that is to be published, and what its card must say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard

from hf_evl_ecg.files import write_text

__all__ = ["check_card", "check_files", "write_card"]


def check_files(folder: Path, allowed: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by their name in the repository; ``allowed`` are patterns as of `pathlib.Path.glob`.

    Raises:
        ValueError: There is no such folder, or it holds a file that no pattern allows.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give the folder of a saved model")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    known = {path for pattern in allowed for path in folder.glob(pattern)}
    if foreign := [name for name, path in files.items() if path not in known]:
        raise ValueError(
            f"{folder} holds files that do not belong to what is published: {foreign[:20]}; nothing was sent. Publish a "
            "folder of its own, not the folder of a training run: pickles, optimizer states and logs stay where they are"
        )
    return files


def write_card(folder: Path, card: str | Path) -> None:
    """Write README.md: a text, or a copy of a file together with the pictures that it shows from beside it."""
    text = card.read_text(encoding="utf-8") if isinstance(card, Path) else card
    if isinstance(card, Path) and card.parent.resolve() != folder.resolve():
        for name in filter(lambda name: (card.parent / name).is_file(), _pictures(text)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(card.parent / name, folder / name)
    write_text(folder / "README.md", text)


def _pictures(text: str) -> list[str]:
    """Relative addresses of the pictures of a card."""
    return re.findall(r"!\[[^\]]*\]\((?!\w+:|/|\.\.)([^)\s]+)\)", text)


def check_card(folder: Path) -> None:
    """Check that README.md is there, has readable metadata with a license, no placeholders, and its pictures.

    Raises:
        ValueError: Something is wrong with it.
    """
    path = folder / "README.md"
    if not path.is_file():
        raise ValueError(f"{folder} has no README.md; a model or data set without a card is not published")
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # of the YAML parser, or of the checks of model-index
        raise ValueError(f"{path}: the metadata between the --- lines cannot be read: {error}") from error
    if not card.data.get("license"):
        raise ValueError(f"{path}: the metadata between the --- lines names no license")
    if left := re.findall(r"\[More Information Needed\]|\{\{.*?\}\}", card.text):
        raise ValueError(f"{path} still has placeholders: {sorted(set(left))}")
    if missing := [name for name in _pictures(card.text) if not (folder / name).is_file()]:
        raise ValueError(f"{path} shows pictures that are not in the folder: {missing}")
