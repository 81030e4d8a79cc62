"""The one ECG in a zip archive, unpacked into a folder of its own and gone afterwards; what an archive may hold is limited."""

import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hf_evl_ecg.signals.errors import ECGRecordError, ECGRecordWarning

from .content import READ, recognise

__all__ = ["ZIP", "unzipped"]

ZIP = "zip"
MAX_MEMBERS = 64
MAX_BYTES = 512 << 20  # of all members, unpacked
MAX_RATIO = 200  # of a member; text of a long flat line reaches 100
_NAME = re.compile(r"[\w.()+ -]{1,120}")
_PICTURES = ("PDF", "HEIC", "a picture")
_BLOCK = 1 << 20


@contextmanager
def unzipped(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of the one recording or picture in a zip archive, while the context lasts; other paths are given as they are.

    Args:
        path: An archive with one WFDB record (its header and signal files), one file of another format or one picture; or any
            other path.

    Raises:
        ECGRecordError: More members, larger ones or stranger names than such an archive has; none or several ECGs in it.
    """
    path = Path(path)
    if not (path.is_file() and _kind(path) == ZIP):
        yield path
        return
    moved = None
    with tempfile.TemporaryDirectory(prefix="ecg_zip_") as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ECGRecordWarning)
        inside = Path(folder).resolve()
        try:
            yield _only_ecg(path, _unpack(path, inside))
        except ECGRecordError as error:
            moved = _renamed(error, f"{inside}{os.sep}", f"{path}:")
    for warning in caught:
        text = str(warning.message).replace(f"{inside}{os.sep}", f"{path}:")
        warnings.warn(text, warning.category, stacklevel=4)
    if moved is not None:
        raise moved from None  # without the error before it, whose paths no longer exist


def _renamed(error: ECGRecordError, before: str, after: str) -> ECGRecordError:
    value = error.value.replace(before, after) if isinstance(error.value, str) else error.value
    return ECGRecordError(error.file.replace(before, after), error.field, value, error.allowed.replace(before, after))


def _kind(path: Path) -> str | None:
    try:
        return recognise(path)
    except OSError:
        return None  # whoever reads the file says why


def _unpack(path: Path, folder: Path) -> list[Path]:
    """All members flat in one folder: names without the folders they had."""
    files = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not _is_left_out(member)]
            _check(path, members)
            for member in members:
                target = folder / PurePosixPath(member.filename).name
                _copy(path, archive, member, target)
                files.append(target)
    except ECGRecordError:
        raise
    except Exception as error:  # whatever zipfile and its decompressors stumble over in damaged bytes
        found = f"damaged or encrypted ({type(error).__name__})"
        raise ECGRecordError(
            path, "zip archive", found, "a whole archive without a password; unpack it first"
        ) from None
    return files


def _is_left_out(member: zipfile.ZipInfo) -> bool:
    """Folders, and what macOS adds."""
    parts = PurePosixPath(member.filename).parts
    return member.filename.endswith("/") or "__MACOSX" in parts or bool(parts and parts[-1] == ".DS_Store")


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise ECGRecordError(path, "members", len(members), f"1 to {MAX_MEMBERS}, the files of one ECG")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise ECGRecordError(path, "unpacked size", total, f"at most {MAX_BYTES} bytes")
    names = [PurePosixPath(member.filename).name for member in members]
    for member, name in zip(members, names, strict=True):
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if (
            ".." in parts
            or not _NAME.fullmatch(name)
            or name.startswith(".")
            or PurePosixPath(member.filename).is_absolute()
        ):
            allowed = "names of letters, digits, spaces and . _ - + ( ), that lead nowhere else"
            raise ECGRecordError(path, "name of a member", member.filename, allowed)
        if member.external_attr >> 28 == 0xA:  # of Unix, a symbolic link
            raise ECGRecordError(path, "member", f"{name}, a link", "plain files")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            found = f"{member.file_size} bytes out of {member.compress_size}"
            raise ECGRecordError(path, f"member {name}", found, f"at most {MAX_RATIO} times its packed size")
    if len(set(names)) < len(names):
        raise ECGRecordError(path, "names of members", "one twice", "each once; unpack it first")


def _copy(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpack no more than was stated."""
    left = member.file_size
    with archive.open(member) as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise ECGRecordError(path, f"member {target.name}", "larger than stated", f"{member.file_size} bytes")
            copy.write(block)


def _only_ecg(path: Path, files: list[Path]) -> Path:
    headers = [file for file in files if file.suffix.lower() == ".hea"]
    others = [file for file in files if _kind(file) in (*READ, *_PICTURES)]
    found = headers or others
    if len(found) != 1:
        names = ", ".join(file.name for file in found or files)
        raise ECGRecordError(
            path, "ECGs in the archive", f"{len(found)}: {names}", "one; unpack it and give them one by one"
        )
    return found[0]
