"""Folders whose work is done once, from inputs that are still the same."""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_text
from hf_evl_ecg.json_text import read_json

__all__ = ["Stage", "folder_fingerprint"]

# What comes and goes beside the content of a folder: notes of stages, checkpoints, logs, what `datasets` remembers of a map.
_PASSING = re.compile(r"\..*|tmp.*|checkpoint-\d+|runs|stage\.(json|lock)|done\.json|cache-.*\.arrow")
_WHOLE_BYTES, _WINDOWS, _WINDOW_BYTES = 4 << 20, 16, 64 << 10


def folder_fingerprint(folder: str | Path) -> str:
    """SHA-256 over the names, sizes and contents of a folder's files, whenever they were written: does it still hold the same?

    Of files above 4 MiB 16 windows of 64 KiB are read, first, last and evenly between, so that weights and caches cost little:
    training moves them all. Checkpoints of the training, hidden files, the notes of a `Stage` and what `datasets` remembers of a map
    do not count.

    Example:
        >>> import tempfile
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
        former: dict[str, Any] = read_json(begun) if begun.is_file() else self.record
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
