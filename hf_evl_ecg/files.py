"""Files and folders that are whole or not there, also on a full disk, and YAML that people write."""

import errno
import fcntl
import json
import os
import platform
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "FolderInUseError",
    "full_disk_named",
    "held_folder",
    "new_file",
    "new_folder",
    "read_mapping",
    "write_json",
    "write_text",
]

MOST_VALUES, MOST_BRACKETS = 100_000, 1000  # of a YAML file: aliases say much in few bytes, nesting takes yaml long
_FULL_BELOW = 1 << 20  # bytes left: file systems keep a little back, and the last piece of a file may not fit


@contextmanager
def full_disk_named(target: str | Path, written: str | Path) -> Iterator[None]:
    """Name a full disk, whatever a writer says of it: PyTorch calls it ``unexpected pos 7822528 vs 7822416``.

    Args:
        target: What was to be written.
        written: File or folder with what was written so far. It must still be there when the error leaves the block.

    Raises:
        OSError: ``ENOSPC``, with the path, what was written and what is left; its cause is the writer's error.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(Path(written).parent).free
        said = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
        if free >= _FULL_BELOW and not said:
            raise
        paths = [Path(written), *Path(written).rglob("*")]
        size = sum(path.stat().st_size for path in paths if path.is_file())
        text = f"No space left on device after {size / 1e6:,.1f} MB, which are removed again (make room, or write elsewhere)"
        raise OSError(errno.ENOSPC, text, str(target)) from error


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and move it there when all is written.

    An error removes what was written and leaves a file of before as it was. Who may read it is as the user's umask says.

    Args:
        path: Where the file will lie; its folder is made.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(f"{folder}/report.md") as temporary:
        ...         _ = temporary.write_text("# Report")
        ...     Path(folder, "report.md").read_text()
        '# Report'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # Not mkstemp, whose files nobody else may read: the umask acts here, and cannot be asked for safely.
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        with full_disk_named(path, temporary):
            yield temporary
        temporary.chmod(mode)  # some writers put a file of their own in its place
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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_folder(f"{folder}/student") as temporary:
        ...         _ = (temporary / "config.json").write_text("{}")
        ...     os.listdir(f"{folder}/student")
        ['config.json']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True) as outer:
        temporary = Path(outer, path.name)
        temporary.mkdir()  # one inside, as nobody else may open the outer folder
        with full_disk_named(path, temporary):
            yield temporary
        temporary.replace(path)


class FolderInUseError(ValueError):
    """A folder that another process trains in."""


@contextmanager
def held_folder(folder: str | Path) -> Iterator[None]:
    """Keep a folder to this process while the block runs. The system frees it when the process ends, however it ends.

    Args:
        folder: Made if it is not there.

    Raises:
        FolderInUseError: Another process holds it; the text says which, and since when.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, held_folder(folder):
        ...     os.listdir(folder)
        ['.training.lock']
    """
    path = Path(folder, ".training.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        while True:
            file = opened.enter_context(path.open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise FolderInUseError(
                    f"output_dir={folder}: {holder} works there (give another folder, or wait for its end)"
                ) from None
            except OSError:  # a file system without locks
                yield
                return
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break  # else it was removed by its holder after it was opened here
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; folders are made.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/out/report.md", "# Report")
        ...     os.listdir(f"{folder}/out")
        ['report.md']
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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(f"{folder}/cache.json", {"format": 1})
        ...     json.loads(Path(folder, "cache.json").read_text())
        {'format': 1}
    """
    text = json.dumps(content, indent=1, default=default, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that maps names to values.

    Raises:
        ValueError: It is not YAML, is too large, or holds something else.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/run.yaml", "alpha: 0.6")
        ...     read_mapping(f"{folder}/run.yaml")
        {'alpha': 0.6}
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"it holds more than {MOST_BRACKETS:,} brackets")
        values = yaml.safe_load(text)
        if next(islice(_values(values), MOST_VALUES, None), False):
            raise ValueError(f"it holds more than {MOST_VALUES:,} values: write them out without aliases")
    except OSError:
        raise
    except Exception as error:  # also dates and tags that yaml stumbles over in ways of its own
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected lines of NAME: VALUE, got {type(values).__name__}")
    return values


def _values(value: Any) -> Iterator[bool]:
    """True for each value within a value, as often as it is printed."""
    yield True
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list | set) else ():
        yield from _values(inside)
