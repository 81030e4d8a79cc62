"""Writing files and folders so that whoever reads them finds them whole or not at all; reading YAML that people write."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

__all__ = ["new_file", "new_folder", "read_mapping", "write_json", "write_text"]


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and move it there when all is written.

    An error removes what was written and leaves a file of before as it was.

    Args:
        path: Where the file will lie; its folder is made.

    Example:
        >>> with new_file("picture.png") as temporary:  # doctest: +SKIP
        ...     figure.savefig(temporary, format="png")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp lets nobody else read it
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill, and move it there when all is written; an error removes it.

    Args:
        path: Where the folder will lie. It must not exist.

    Example:
        >>> with new_folder("student") as temporary:  # doctest: +SKIP
        ...     model.save_pretrained(temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp lets nobody else open it
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; folders are made.

    Example:
        >>> write_text("out/report.md", "# Report")  # doctest: +SKIP
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Write a json file, whole or not at all; folders are made.

    Args:
        path: Where to write.
        content: What json knows.
        default: Makes something that json knows out of what it does not, such as ``str``.

    Raises:
        ValueError: NaN or infinity, which json has no words for.

    Example:
        >>> write_json("out/cache.json", {"format": 1})  # doctest: +SKIP
    """
    text = json.dumps(content, indent=1, default=default, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that maps names to values.

    Raises:
        ValueError: It is not YAML, or holds something else.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/run.yaml", "alpha: 0.6")
        ...     read_mapping(f"{folder}/run.yaml")
        {'alpha': 0.6}
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected lines of NAME: VALUE, got {type(values).__name__}")
    return values
