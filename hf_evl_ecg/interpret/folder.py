"""A folder of ECGs: which of its files are recordings or pictures, and what has been said about each already."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hf_evl_ecg.clinical.content import ARRAYS, READ, recognise
from hf_evl_ecg.clinical.pages import PAGE_KINDS
from hf_evl_ecg.inference.digests import picture_digest
from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.records.header import ECGRecordError, parse_header

from .pictures import is_image_file

__all__ = ["FolderContent", "answer_key", "find_sources", "kept_answer", "summary_table"]


@dataclass(frozen=True)
class FolderContent:
    """What lies in a folder.

    Attributes:
        sources: Recordings and pictures, relative to the folder, in order of their names; of a WFDB record its path without suffix.
        others: What the other files are ("csv without a description", or their suffix) → how many there are.
    """

    sources: tuple[Path, ...]
    others: Mapping[str, int]


def find_sources(folder: str | Path, leave_out: str | Path | None = None) -> FolderContent:
    """Find the ECGs of a folder and the folders in it: WFDB records by their headers, all else by content.

    Hidden files, links that lead out of the folder, and segments of a record that is found itself are passed over.

    Args:
        folder: Where to look.
        leave_out: A folder in it that holds none, such as that of the results.

    Raises:
        NotADirectoryError: It is no folder.

    Example:
        >>> find_sources("records").sources[0].as_posix()
        'af'
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no folder (give one with ECGs, or use hf-evl-ecg interpret for one file)")
    files = list(_files(folder, leave_out))
    headers = [path for path in files if path.suffix.lower() == ".hea"]
    belonging, segments = set(headers), set()
    for path in headers:
        try:
            header = parse_header(path)
        except ECGRecordError:
            continue  # it stands as a record, and is named when it is read
        belonging |= {path.parent / line.file_name for line in header.signals}
        segments |= {path.parent / f"{name}{path.suffix}" for name, _ in header.segments}
    found = [path.with_suffix("") for path in headers if path not in segments]
    others: Counter[str] = Counter()
    for path in files:
        if path in belonging:
            continue
        if (what := _no_source(path)) is None:
            found.append(path)
        else:
            others[what] += 1
    return FolderContent(tuple(sorted(path.relative_to(folder) for path in found)), dict(sorted(others.items())))


def _files(folder: Path, leave_out: str | Path | None) -> Iterator[Path]:
    inside, skipped = folder.resolve(), None if leave_out is None else Path(leave_out).resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != skipped]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.is_file() and path.resolve().is_relative_to(inside):
                yield path


def _no_source(path: Path) -> str | None:
    """What a file is that holds no ECG; None where it may hold one."""
    kind = recognise(path)
    if kind in ARRAYS:
        return None if Path(f"{path}.json").is_file() else f"{kind} without a description"
    known = kind in (*READ, *PAGE_KINDS, "zip", "a picture") or is_image_file(path)
    return None if known else kind or path.suffix.lower() or "no suffix"


def answer_key(image: Image.Image, about: Mapping[str, Any]) -> str:
    """What an answer is known by: the picture that the model saw, and all else that it depends on. 32 hexadecimal digits.

    Args:
        image: The picture.
        about: Model, question and options, as plain data.

    Example:
        >>> white = Image.new("RGB", (4, 4), "white")
        >>> answer_key(white, {"question": "Rhythm?"}) == answer_key(white, {"question": "Axis?"})
        False
    """
    text = json.dumps({**about, "picture": picture_digest(image)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_answer(path: str | Path, key: str) -> dict[str, Any] | None:
    """What a former run wrote, if it was about the same; None where there is nothing, or something else, or a damaged file."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("key") == key else None


def summary_table(contents: Iterable[Mapping[str, Any]]) -> str:
    """One line of CSV for each interpretation: file, answer, number of doubts and warnings, and a column for each label's score.

    Args:
        contents: As `hf_evl_ecg.interpret.report.ECGReport.to_dict` with the ``source`` beside it; of several models the first.

    Example:
        >>> said = {"answer": "AF", "doubts": [], "label_scores": {"AF": 0.9}}
        >>> print(summary_table([{"source": "af", "warnings": [], "opinions": [said]}]), end="")
        source,answer,doubts,warnings,AF
        af,AF,0,0,0.9
    """
    contents = list(contents)
    opinions = [content["opinions"][0] for content in contents]
    labels = list(dict.fromkeys(label for opinion in opinions for label in opinion["label_scores"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "answer", "doubts", "warnings", *labels])
    for content, opinion in zip(contents, opinions, strict=True):
        scores = [_rounded(opinion["label_scores"].get(label)) for label in labels]
        writer.writerow(
            [content["source"], opinion["answer"], len(opinion["doubts"]), len(content["warnings"]), *scores]
        )
    return text.getvalue()


def _rounded(score: float | None) -> str:
    return "" if score is None else f"{score:.4g}"
