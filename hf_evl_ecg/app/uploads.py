"""What a visitor of the page gives → one ECG or picture in memory; uploaded files are deleted as soon as they are read."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hf_evl_ecg.clinical.archive import unzipped
from hf_evl_ecg.drawing.image_file import open_picture
from hf_evl_ecg.interpret.pictures import IMAGE_SUFFIXES, is_image_file, read_source
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.records.header import Header
from hf_evl_ecg.records.reader import check_record, read_header
from hf_evl_ecg.records.warned import gather_warnings
from hf_evl_ecg.signals.ecg import ECG
from hf_evl_ecg.signals.simulation import simulate

__all__ = ["MAX_KEPT_PX", "GivenECG", "UploadError", "main_file", "read_uploads", "simulated_ecg"]

SIGNAL_SUFFIXES = (".dat", ".mat", ".xyz")  # the last holds the Frank leads of PTB Diagnostic
RECORD_SUFFIXES = (".hea", *SIGNAL_SUFFIXES)
MAX_PIXELS = 50_000_000  # of a picture that is opened
MAX_KEPT_PX = (2400, 2400)
"""Width and height (px) to which a larger picture is reduced: a page at some 200 dots per inch, as it is shown."""
MAX_SAMPLES = 20_000_000  # of all signals together; FLAC files of silence hold thousands in a byte
_WANTED = (
    "give a WFDB record (its .hea and its .dat or .mat, both at once), one DICOM, XML, SCP-ECG or EDF file, one picture (also PDF or HEIC), "
    "or one zip archive with these"
)


class UploadError(ValueError):
    """Uploaded files that are refused, and what to upload instead."""


@dataclass(frozen=True)
class GivenECG:
    """One ECG to ask about.

    Attributes:
        name: What it is called.
        source: The recording, or a picture of one.
        notes: What a reader should know about it, one sentence each.
        simulated: Whether it comes from a simulator and not from a patient.
    """

    name: str
    source: ECG | Image.Image
    notes: tuple[str, ...] = ()
    simulated: bool = False


def main_file(names: Sequence[str]) -> str:
    """Pair uploaded files: the header of a record with its signal files, an array with its description, or one file alone.

    Args:
        names: Bare file names.

    Returns:
        The name of the header, array or single file, whose content says what it is.

    Raises:
        UploadError: Anything else, with what is missing or too much.

    Example:
        >>> main_file(["JS00001.mat", "JS00001.hea"])
        'JS00001.hea'
    """
    shown = ", ".join(names) or "nothing"
    described = [name for name in names if f"{name}.json" in names]
    if len(described) == 1 and len(names) == 2:
        return described[0]
    if len(names) == 1 and Path(names[0]).suffix.lower() not in RECORD_SUFFIXES:
        return names[0]
    unknown = [name for name in names if Path(name).suffix.lower() not in (*RECORD_SUFFIXES, *IMAGE_SUFFIXES)]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    pictures = [name for name in names if is_image_file(name)]
    headers = [name for name in names if Path(name).suffix.lower() == ".hea"]
    signals = [name for name in names if Path(name).suffix.lower() in SIGNAL_SUFFIXES]
    for wrong, why in (
        (unknown, f"{', '.join(unknown)} cannot be read together with others; {_WANTED}"),
        (doubled, f"{', '.join(doubled)} was given twice; {_WANTED}"),
        (pictures or len(headers) > 1 or not names, f"got {shown}; {_WANTED}, one ECG at a time"),
        (not headers, f"{shown} came without a header; {_WANTED}"),
        (not signals, f"{', '.join(headers)} came without its signal file; {_WANTED}"),
    ):
        if wrong:
            raise UploadError(why)
    return headers[0]


def read_uploads(
    paths: Sequence[str | Path], folder: str | Path, max_megabytes: float, *, gain_per_mv: float | None = None
) -> GivenECG:
    """Read uploaded files into memory and delete them, also if they cannot be read.

    Args:
        paths: The files; each must lie inside ``folder``, symbolic links resolved, or nothing is read.
        folder: Where uploads arrive.
        max_megabytes: Largest size of all files together (1e6 bytes).
        gain_per_mv: Stored units per mV of a record whose header is known to be wrong.

    Raises:
        UploadError: Files outside the folder, too large, not one ECG, or unreadable; then its cause is the `ECGRecordError` or
            `UnreadableImageError`, and its text is that one's without the folder.
    """
    root = Path(folder).resolve()
    given = [Path(path) for path in paths]
    if outside := [path.name for path in given if not _inside(path, root)]:
        raise UploadError(f"{', '.join(outside)} is not an uploaded file; {_WANTED}")
    try:
        size = sum(path.stat().st_size for path in given)
        if size > max_megabytes * 1e6:
            raise UploadError(f"{size / 1e6:.1f} MB were uploaded; at most {max_megabytes:g} MB are read")
        main = main_file([path.name for path in given])
        with tempfile.TemporaryDirectory(dir=root) as together:
            for path in given:
                shutil.move(path, Path(together) / path.name)
            return _read(Path(together), main, gain_per_mv)
    finally:
        for path in given:
            path.unlink(missing_ok=True)
            if path.parent.resolve() != root:
                with suppress(OSError):  # other uploads lie there
                    path.parent.rmdir()


def simulated_ecg(label: str, seed: int) -> GivenECG:
    """A simulated ECG of one of `hf_evl_ecg.signals.simulation.LABELS`.

    Raises:
        ValueError: An unknown label or a negative seed.

    Example:
        >>> simulated_ecg("AF", 0).name
        'simulated-AF-0'
    """
    ecg = simulate(label, seed=seed)
    truth = ecg.metadata
    parts = [label_text(label), f"{truth['heart_rate_bpm']:.0f} beats per minute"]
    parts += [f"PR {truth['pr_ms']:.0f} ms"] if truth["pr_ms"] is not None else []
    parts += [f"QRS {truth['qrs_ms']:.0f} ms", f"QT {truth['qt_ms']:.0f} ms", f"axis {truth['axis_deg']:.0f}°"]
    return GivenECG(ecg.record_name, ecg, (f"What was simulated: {', '.join(parts)}.",), simulated=True)


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root) and path.is_file() and not path.is_symlink()


def _read(folder: Path, main: str, gain_per_mv: float | None) -> GivenECG:
    """Read what lies alone in a folder; messages do not name the folder."""
    try:
        renamed = _name_as_header(folder, main) if Path(main).suffix.lower() == ".hea" else {}
        with gather_warnings(folder) as warned, unzipped(folder / main) as inside:  # two steps may warn of the same
            if inside.suffix.lower() == ".hea":
                _check_samples(check_record(inside, root=inside.parent), inside.name)
            elif is_image_file(inside):
                _check_pixels(inside)
            found = read_source(inside, gain_per_mv=gain_per_mv)
    except ValueError as error:
        raise UploadError(str(error).replace(f"{folder}/", "")) from error
    if isinstance(found, Image.Image):
        return _reduced(main, found)
    return GivenECG(Path(main).stem, found, tuple(_notes(found, main, renamed, warned)))


def _reduced(name: str, picture: Image.Image) -> GivenECG:
    """A picture at the size it is kept: a few KB of PNG can hold 150 MB of pixels, and each visitor's are held for an hour."""
    width, height = picture.size
    picture.thumbnail(MAX_KEPT_PX)
    if picture.size == (width, height):
        return GivenECG(name, picture)
    note = f"Reduced from {width} × {height} to {picture.width} × {picture.height} pixels before it was shown and read."
    return GivenECG(name, picture, (note,))


def _notes(ecg: ECG, main: str, renamed: dict[str, str], warned: list[str]) -> list[str]:
    notes = [f"{given} was read as {name}, which {main} names." for given, name in renamed.items()]
    notes += warned
    if derived := ecg.metadata.get("derived_leads"):
        notes.append(f"{', '.join(derived)} computed from I and II.")
    if ecg.flat_leads:
        notes.append(f"Flat: {', '.join(ecg.flat_leads)}.")
    return notes


def _name_as_header(folder: Path, main: str) -> dict[str, str]:
    """Give signal files the names by which the header calls them, and return old name → new name.

    Browsers and systems change names ("r (1).dat", "R.DAT"), people too: what is left over fits together where it is one file of a kind.

    Raises:
        UploadError: The header names a file that none of those given can be.
    """
    lines = read_header(folder / main, root=folder).signals
    given = [path.name for path in folder.iterdir() if path.name != main]
    spare = sorted(set(given) - {line.file_name for line in lines})
    wanted = sorted({line.file_name for line in lines if line.lead is not None} - set(given))
    renamed: dict[str, str] = {}
    for same in (_plain_name, lambda name: Path(name).suffix.lower()):
        for name in wanted:
            fitting = [other for other in spare if same(other) == same(name) and other not in renamed]
            if name not in renamed.values() and len(fitting) == 1:
                renamed[fitting[0]] = name
    if lacking := [name for name in wanted if name not in renamed.values()]:
        raise UploadError(
            f"{main} names {', '.join(lacking)}, and {', '.join(spare) or 'nothing else'} was given; {_WANTED}"
        )
    for other, name in renamed.items():
        (folder / other).rename(folder / name)
    return renamed


def _plain_name(name: str) -> str:
    """A file's name without the number of a copy, in small letters.

    Example:
        >>> _plain_name("JS00001 (2).MAT")
        'js00001.mat'
    """
    path = Path(name)
    return (re.sub(r"\s*\(\d+\)$", "", path.stem) + path.suffix).lower()


def _check_samples(header: Header, name: str) -> None:
    assert header.n_samples is not None
    count = header.n_samples * sum(line.samples_per_frame for line in header.signals)
    if count > MAX_SAMPLES:
        raise UploadError(f"{name} has {count:,} samples; at most {MAX_SAMPLES / 1e6:g} million are read")


def _check_pixels(path: Path) -> None:
    try:
        with open_picture(path) as opened:
            width, height = opened.size
    except Exception:  # load_picture says what is wrong with it
        return
    if width * height > MAX_PIXELS:
        raise UploadError(f"{path.name} has {width} × {height} pixels; at most {MAX_PIXELS / 1e6:g} million are read")
