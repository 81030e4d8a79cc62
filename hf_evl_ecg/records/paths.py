"""Where a record's files lie: its header, its signal files, and nothing outside the folder they must stay in."""

import os
from contextlib import suppress
from pathlib import Path

from .header import ECGRecordError, Header, parse_header

__all__ = ["find_file", "find_header", "resolve_inside", "signal_files"]

OTHER_FORMATS = "read_record takes other formats by their content: DICOM, HL7 aECG, GE MUSE, Philips Sierra, SCP-ECG, EDF, CSV, HDF5, NumPy"


def find_header(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Path:
    """Path of a record's header, from its own or that of the record or its signal file.

    Args:
        path: The record's path without suffix, or its header or signal file; relative to `root` where there is one.
        root: Folder that the header must not leave, symbolic links resolved.

    Raises:
        ECGRecordError: The header would lie outside `root`; or the path is a folder or another kind of file.

    Example:
        >>> find_header("ludb/data/1.dat").as_posix()
        'ludb/data/1.hea'
    """
    if root is None:
        return _header_path(Path(path))
    # Checked twice: before any access, and after links are resolved, as the header itself may be a link.
    return resolve_inside(_header_path(resolve_inside(path, root)), root)


def find_file(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Path | None:
    """The file at ``path``, where it is one and belongs to no WFDB record; None for records, folders and what is not there.

    Args:
        path: A path; relative to `root` where there is one.
        root: Folder that it must not leave, symbolic links resolved.

    Raises:
        ECGRecordError: It would lie outside `root`.
    """
    file = Path(path) if root is None else resolve_inside(path, root)
    is_record = file.suffix.lower() == ".hea" or not file.is_file() or _has_header(file)
    return None if is_record else file


def resolve_inside(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """Return `path` (relative to `root`, unless it is absolute) with links resolved, refusing what leaves `root`.

    Raises:
        ECGRecordError: The resolved path is not inside `root`.

    Example:
        >>> resolve_inside("../secret", "/data")
        Traceback (most recent call last):
        hf_evl_ecg.signals.errors.ECGRecordError: ../secret: path is '/secret'; allowed: a path inside /data
    """
    base = Path(root).resolve()
    try:
        inside = (base / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ECGRecordError(os.fspath(path), "path", str(error), f"a path inside {base}") from error
    if not inside.is_relative_to(base):
        raise ECGRecordError(os.fspath(path), "path", str(inside), f"a path inside {base}")
    return inside


def signal_files(header: Header, root: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Locate the signal files that hold a standard lead, refusing any that a link takes elsewhere; others are not needed."""
    if root is not None:
        folders = [Path(root).resolve()]
    else:  # the header may itself be a link into a cache whose files lie side by side
        folders = [header.path.parent.resolve(), header.path.resolve().parent]
    files = {}
    for name in {line.file_name for line in header.signals if line.lead is not None}:
        try:
            target = (header.path.parent / name).resolve()
        except (OSError, RuntimeError) as error:  # links that lead to themselves
            raise ECGRecordError(header.path, "signal file name", f"{name}: {error}", "an existing file") from error
        if not any(target.is_relative_to(folder) for folder in folders):
            allowed = f"a file inside {folders[0]}"
            raise ECGRecordError(header.path, "signal file name", f"{name} (a link to {target})", allowed)
        files[name] = target
    return files


def _header_path(path: Path) -> Path:
    if path.suffix.lower() == ".hea":
        spelt = [path, path.with_suffix(".hea"), path.with_suffix(".HEA")]
        return next(filter(os.path.exists, spelt), path)
    if ".hea" in (suffix.lower() for suffix in path.suffixes):
        return path
    bare = path.parent / path.stem if path.suffix.lower() in (".dat", ".mat") or _is_named(path) else path
    found = _headers(bare)
    if not found and os.path.isdir(path):
        raise ECGRecordError(
            path, "record", "a folder", "a record in it, without suffix or by its .hea, .dat or .mat file"
        )
    if not found and bare is path and os.path.isfile(path):
        allowed = f"a WFDB record, without suffix or by its .hea, .dat or .mat file ({OTHER_FORMATS}; hf-evl-ecg convert-record writes WFDB)"
        raise ECGRecordError(path, "record", f"a {path.suffix or 'plain'} file", allowed)
    return Path(found[0] if found else f"{bare}.hea")


def _headers(bare: Path) -> list[str]:
    return [header for suffix in (".hea", ".HEA") if os.path.exists(header := f"{bare}{suffix}")]


def _has_header(path: Path) -> bool:
    """Whether a header says what is in this file."""
    of_record = path.suffix.lower() in (".dat", ".mat") and _headers(path.parent / path.stem)
    return bool(of_record or _headers(path)) or _is_named(path)


def _is_named(path: Path) -> bool:
    """Whether the header of the same name lists this file, whatever its suffix: `.xyz` of PTB Diagnostic, for one."""
    header = path.with_suffix(".hea")
    if not path.suffix or not path.is_file() or not header.is_file():
        return False
    with suppress(ECGRecordError):
        return any(line.file_name == path.name for line in parse_header(header).signals)
    return False
