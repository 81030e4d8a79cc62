"""Files and folders that are whole or not there, folders whose work is done once, and YAML that people write."""

import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "FolderInUseError",
    "Stage",
    "folder_fingerprint",
    "held_folder",
    "new_file",
    "new_folder",
    "read_mapping",
    "write_json",
    "write_text",
]

# What comes and goes beside the content of a folder: notes of stages, checkpoints, logs, what `datasets` remembers of a map.
_PASSING = re.compile(r"\..*|tmp.*|checkpoint-\d+|runs|stage\.(json|lock)|done\.json|cache-.*\.arrow")
_WHOLE_BYTES, _WINDOWS, _WINDOW_BYTES = 4 << 20, 16, 64 << 10


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
                    f"output_dir={folder}: {holder} trains there (give another folder, or wait for its end)"
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


def folder_fingerprint(folder: str | Path) -> str:
    """SHA-256 over the names, sizes and contents of a folder's files, whenever they were written: does it still hold the same?

    Of files above 4 MiB 16 windows of 64 KiB are read, first, last and evenly between, so that weights and caches cost little:
    training moves them all. Checkpoints of the training, hidden files, the notes of a `Stage` and what `datasets` remembers of a map
    do not count.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/config.json", "{}")
        ...     before = folder_fingerprint(folder)
        ...     write_text(f"{folder}/checkpoint-5/config.json", "{}")
        ...     same = folder_fingerprint(folder) == before
        ...     write_text(f"{folder}/config.json", "[]")
        ...     same, folder_fingerprint(folder) == before
        (True, False)
    """
    folder, digest = Path(folder), hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _PASSING.fullmatch(name))
        for path in sorted(Path(place, name) for name in names if not _PASSING.fullmatch(name)):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()}\x1e{size}\x1e".encode())
            with path.open("rb") as file:
                if size <= _WHOLE_BYTES:
                    digest.update(file.read())
                    continue
                for window in range(_WINDOWS):
                    file.seek((size - _WINDOW_BYTES) * window // (_WINDOWS - 1))
                    digest.update(file.read(_WINDOW_BYTES))
    return digest.hexdigest()


class Stage:
    """A folder whose work is done once, by one process at a time.

    Args:
        folder: The folder.
        settings: What the work depends on; kept in ``stage.json``.
        inputs: Name → folder whose content it depends on too; kept as `folder_fingerprint`.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], inputs: Mapping[str, str | Path] | None = None
    ) -> None:
        self.folder = folder
        self.inputs = dict(inputs or {})
        text = json.dumps(settings, sort_keys=True, default=str)
        self.record = {"settings": dict(settings), "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def run(self, work: Callable[[], Any], *, wait: bool = True) -> None:
        """Do the work unless it is done.

        Args:
            work: What to do.
            wait: Wait while another process does it; False goes on without it.

        Raises:
            ValueError: The folder holds, finished or begun, the work of other settings, or of inputs that have changed since.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "stage.lock").open("w") as lock:
            try:  # the system frees the lock of a process that was killed
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                print(f"[{self.folder.name}] is being done by another process", flush=True)
                return
            self._run(work)

    def _run(self, work: Callable[[], Any]) -> None:
        begun, done = self.folder / "stage.json", self.folder / "done.json"
        former: dict[str, Any] = json.loads(begun.read_text(encoding="utf-8")) if begun.is_file() else self.record
        if former["sha256"] != self.record["sha256"]:
            raise ValueError(
                f"{self.folder}: was made with other settings, see stage.json (remove it to run the stage anew)"
            )
        inputs = {name: folder_fingerprint(path) for name, path in self.inputs.items()}
        known = former.get("inputs", inputs)  # stages of before this was kept say nothing of their inputs
        if changed := sorted(name for name in inputs if known.get(name, inputs[name]) != inputs[name]):
            raise ValueError(
                f"{self.folder}: was made from other contents of {', '.join(f'{name}={self.inputs[name]}' for name in changed)} "
                f"than are there now (remove {self.folder} to run the stage anew, or put the former contents back)"
            )
        if done.is_file():
            print(f"[{self.folder.name}] is done already", flush=True)
            return
        print(f"[{self.folder.name}]", flush=True)
        # Settings are written before the work, so that a stage begun with other settings is not continued.
        started = time.monotonic()
        write_text(begun, json.dumps(self.record | {"inputs": inputs}, indent=1, default=str) + "\n")
        work()
        write_text(done, json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")
