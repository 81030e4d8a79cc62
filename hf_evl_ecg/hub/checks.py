"""What a folder may hold that is to be published, and what its card must say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from hf_evl_ecg.files import write_text

__all__ = ["check_card", "check_files", "check_repo_id", "place_card"]


def check_repo_id(repo_id: str, option: str = "repo_id") -> None:
    """Check that a repository is named ``namespace/name``.

    Args:
        repo_id: The name.
        option: What the user calls it, for the error.

    Raises:
        ValueError: It is not, or holds what the Hub allows in no name.

    Example:
        >>> check_repo_id("heart-lab/ecg-student")
    """
    if "/" not in repo_id:  # the Hub would take the account of whoever is logged in
        raise ValueError(f"{option}={repo_id!r}: give namespace/name, as in 'heart-lab/ecg-student'")
    validate_repo_id(repo_id)


def check_files(folder: Path, allowed: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by their name in the repository; ``allowed`` are patterns as of `pathlib.Path.glob`.

    Raises:
        ValueError: There is no such folder, or it holds a file that no pattern allows.
    """
    if not folder.is_dir():
        raise ValueError(f"folder={folder}: there is no such folder; give that of a saved model")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    # What is allowed, not what is forbidden: a kind of file that nobody thought of stays at home.
    known = {path for pattern in allowed for path in folder.glob(pattern)}
    if foreign := [name for name, path in files.items() if path not in known]:
        raise ValueError(
            f"folder={folder}: {foreign[:20]} do not belong to what is published; nothing was sent. Give a folder of its own, not "
            "that of a training run: pickles, optimizer states and logs stay where they are"
        )
    return files


def place_card(folder: Path, card: str | Path) -> None:
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
        raise ValueError(f"folder={folder}: it has no README.md, and nothing is published without a card; write one")
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # of the YAML parser, or of the checks of model-index
        raise ValueError(f"{path}: the metadata between the --- lines cannot be read ({error})") from error
    if not card.data.get("license"):
        raise ValueError(
            f"{path}: the metadata between the --- lines names no license; add one, such as license: apache-2.0"
        )
    if left := re.findall(r"\[More Information Needed\]|\{\{.*?\}\}", card.text):
        raise ValueError(f"{path}: placeholders {sorted(set(left))} are left; fill them in")
    if missing := [name for name in _pictures(card.text) if not (folder / name).is_file()]:
        raise ValueError(f"{path}: pictures {missing} are not in the folder; put them there")
