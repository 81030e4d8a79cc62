"""Files: written whole or not at all, values as json can hold them; json, and YAML of ``name: value`` lines, read and checked."""

from __future__ import annotations

import difflib
import errno
import json
import os
import reprlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

import yaml

if TYPE_CHECKING:  # --help must not wait for numpy
    import numpy as np
    from numpy.typing import DTypeLike

__all__ = [
    "did_you_mean",
    "full_disk_named",
    "new_array",
    "parse_json",
    "plain",
    "plain_fields",
    "read_json",
    "read_mapping",
    "replaced_file",
    "replaced_files",
    "write_atomically",
    "write_text",
]

MOST_VALUES, MOST_BRACKETS = 100_000, 1000  # of a YAML file: aliases say much in few bytes, nesting takes yaml long


_FULL_BELOW = 1 << 20  # bytes left: file systems keep a little back, and the last piece of a file may not fit


@contextmanager
def full_disk_named(target: str | os.PathLike[str], written: str | os.PathLike[str]) -> Iterator[None]:
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
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to, moved there when the block ends without an error.

    Readers never see half a file, and an error leaves what was there before. Folders are created; who may read the file is as the
    user's umask says.

    Args:
        path: The file to write.

    Yields:
        Where to write.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replaced_file(Path(folder, "a.txt")) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    mode = _create(temporary)
    try:
        with full_disk_named(target, temporary):
            yield temporary
        temporary.chmod(mode)  # some writers put a file of their own in its place
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create(path: Path) -> int:
    """Make an empty file that was not there, and return its mode: what the umask leaves, which cannot be asked for safely."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


@contextmanager
def replaced_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder to write several files to; they are moved into ``folder`` when the block ends without an error.

    Args:
        folder: Where the files go, made if missing; other files in it are left alone. Of several the last one, a json file if there
            is one, goes before any other of a former set and comes after all others: whoever finds it finds files of one set.

    Yields:
        The temporary folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".incomplete.") as made:
        with full_disk_named(target, made):
            yield Path(made)
        mode = _create(probe := Path(made, ".mode"))
        probe.unlink()
        paths = sorted(Path(made).iterdir(), key=lambda path: (path.suffix == ".json", path.name))
        if len(paths) > 1:
            (target / paths[-1].name).unlink(missing_ok=True)
        for path in paths:
            path.chmod(mode)
            os.replace(path, target / path.name)


def new_array(path: str | os.PathLike[str], dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file to be written through memory, whose space is taken first: on a full disk a mapped write ends the process.

    Args:
        path: The file; one that is there is replaced.
        dtype: Type of its numbers.
        shape: Its shape.

    Raises:
        OSError: There is no space for it. No file is left.

    Example:
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     new_array(Path(folder, "codes.npy"), np.uint8, (1000, 8)).shape
        (1000, 8)
    """
    import numpy as np

    array: np.memmap = np.lib.format.open_memmap(os.fspath(path), "w+", dtype, shape)
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        size = Path(path).stat().st_size
        Path(path).unlink()
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} for {size:,} bytes", os.fspath(path)) from error
    return array


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill an open binary file, then move it to ``path``, as :func:`replaced_file`."""
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        write(file)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8, whole or not at all.

    Args:
        path: The file; folders are created.
        text: Its content, to which nothing is added.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


@runtime_checkable
class _Array(Protocol):
    """Arrays and numbers of numpy, torch and pandas, none of which is imported for this."""

    def tolist(self) -> Any: ...


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy or torch as Python numbers and lists, also inside lists, tuples and dicts; all else as it is.

    Example:
        >>> import numpy as np
        >>> plain({"dims": np.array([8, 16]), "gamma": (np.float64(0.5), "auto")})
        {'dims': [8, 16], 'gamma': (0.5, 'auto')}
    """
    if isinstance(value, _Array):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return (tuple if type(value) is tuple else list)(map(plain, value))
    return {plain(key): plain(item) for key, item in value.items()} if type(value) is dict else value


def plain_fields(config: Any) -> None:
    """Make the fields of a dataclass :func:`plain`, so that json can hold them; also of a frozen one."""
    for field in filter(lambda field: field.init, fields(config)):
        object.__setattr__(config, field.name, plain(getattr(config, field.name)))


def parse_json(text: str | bytes, where: object) -> Any:
    """What a json text says.

    Raises:
        ValueError: If it is no json; ``where`` it stands is named.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also bytes of no encoding, endless numbers, lists in lists
        raise ValueError(f"{where} cannot be read as json: {error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a json file says, with or without a byte order mark; errors are those of :func:`parse_json`, and OSError."""
    return parse_json(Path(path).read_bytes(), path)


def read_mapping(path: str | Path, known: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
    """Read a YAML file that maps names to values: ``known`` ones, of which the ``required`` must be there.

    Raises:
        ValueError: If it is not YAML or no mapping, or too large, or a name is unknown or missing.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "run.yaml").write_text("gamma: 0.3")
        ...     read_mapping(Path(folder, "run.yaml"), ["gamma", "seed"])
        {'gamma': 0.3}
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"it holds more than {MOST_BRACKETS:,} brackets")
        values = yaml.safe_load(text)
        if next(islice(_values(values), MOST_VALUES, None), False):
            raise ValueError(f"it holds more than {MOST_VALUES:,} values: write them out without aliases")
    except OSError:
        raise
    except Exception as error:  # also dates and tags that yaml stumbles over in ways of its own
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{path} must hold lines of `name: value`; it holds {reprlib.repr(values)}.")
    if unknown := [str(name) for name in values if name not in known]:
        named = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        raise ValueError(f"{path}: there is no {named}; known are {', '.join(sorted(known))}.")
    if missing := sorted(set(required) - set(values)):
        raise ValueError(f"{path}: {', '.join(map(repr, missing))} must be given.")
    return values


def _values(value: Any) -> Iterator[bool]:
    """True for each value within a value, as often as it is printed."""
    yield True
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list | set) else ():
        yield from _values(inside)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The closest of the known names as a remark in brackets, nothing if none is close.

    Example:
        >>> did_you_mean("gama", ["gamma", "seed"])
        " (did you mean 'gamma'?)"
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
