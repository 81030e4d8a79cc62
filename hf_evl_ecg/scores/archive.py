"""Answers of a study, packed: small enough to be kept beside its results, enough to compute every number anew without a model."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import new_file
from hf_evl_ecg.json_text import parse_json
from hf_evl_ecg.qa.groups import Answer

__all__ = ["ArchiveError", "list_archive", "pack_answers", "pack_questions", "unpack_answers", "unpack_questions"]

QUESTIONS = "questions.jsonl.xz"
UNIT = 0.01
"""Log-likelihoods are kept as whole numbers of this (nats): results are computed from what is kept, so nothing is lost later."""
_LARGEST = 10**9  # of a likelihood, in units; beyond any sum over an answer
MOST_BYTES = 1 << 30  # of a file, unpacked; a study of a million questions stays below
_MOST_MEMORY = 128 << 20  # of unpacking; the strongest packing needs half
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("source", "record", "task", "format"), str),
    **dict.fromkeys(("answer", "unit"), str | None),
    **dict.fromkeys(("options", "labels"), list | None),
    **dict.fromkeys(("value", "tolerance"), int | float | None),
}
_KEPT = ("source", "record", "task", "format", "answer", "options", "labels", "value", "tolerance", "unit")


class ArchiveError(ValueError):
    """Packed answers that are missing, damaged or of another study's questions."""


def pack_questions(folder: str | Path, items: Sequence[Mapping[str, Any]]) -> None:
    """Keep what scoring needs of the questions: where they come from, what is asked in which form, and the truth.

    Args:
        folder: The archive.
        items: Questions, from `hf_evl_ecg.data.questions.question_dataset`.

    Example:
        >>> import tempfile
        >>> item = {"source": "s", "record": "r", "task": "axis", "format": "closed", "answer": "no", "labels": ["LAD"]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pack_questions(folder, [item])
        ...     unpack_questions(folder)[0]["labels"]
        ['LAD']
    """
    _write(
        Path(folder) / QUESTIONS, [{name: item[name] for name in _KEPT if item.get(name) is not None} for item in items]
    )


def unpack_questions(folder: str | Path) -> list[dict[str, Any]]:
    """The questions of an archive, in their order.

    Raises:
        ArchiveError: There are none, or the file is damaged.
    """
    path = Path(folder) / QUESTIONS
    items = _read(path)
    for number, item in enumerate(items, 1):
        if wrong := [
            name for name in _KINDS if not isinstance(item, dict) or not isinstance(item.get(name), _KINDS[name])
        ]:
            raise ArchiveError(
                f"{path}: is damaged (line {number}: {wrong[0]} is missing or of another type; pack the study again)"
            )
    return [dict.fromkeys(_KEPT) | item for item in items]


def pack_answers(folder: str | Path, method: str, seed: int | None, answers: Sequence[Answer]) -> list[Answer]:
    """Keep the answers of one model.

    Args:
        folder: The archive.
        method: Name of the method.
        seed: Its training seed.
        answers: One for each question of the archive, in their order.

    Returns:
        The answers as they are kept, with rounded likelihoods: what results are to be computed from.

    Raises:
        ArchiveError: Not one answer for each question.
    """
    asked = len(unpack_questions(folder))
    if len(answers) != asked:
        raise ArchiveError(f"{folder}: {len(answers)} answers of {method} for {asked} questions (one each is needed)")
    header = {"method": method, "seed": seed, "unit": UNIT}
    lines = [
        [[round(score / UNIT) for score in answer.scores], *([] if answer.text is None else [answer.text])]
        for answer in answers
    ]
    name = method if seed is None else f"{method}_{seed}"
    _write(Path(folder) / f"{name}.jsonl.xz", [header, *lines])
    return unpack_answers(folder, name)[2]


def unpack_answers(folder: str | Path, name: str) -> tuple[str, int | None, list[Answer]]:
    """Method, training seed and answers of one model of an archive.

    Args:
        folder: The archive.
        name: Name of its file, without the ending.

    Raises:
        ArchiveError: They are not there, damaged, or not of the archive's questions.
    """
    path = Path(folder) / f"{name}.jsonl.xz"
    header, *lines = _read(path)
    if problem := _problem(header, lines):
        raise ArchiveError(f"{path}: is damaged ({problem}; pack the answers again)")
    records = [item["record"] for item in unpack_questions(folder)]
    if len(lines) != len(records):
        raise ArchiveError(f"{path}: holds {len(lines)} answers for {len(records)} questions (pack both again)")
    return (
        header["method"],
        header["seed"],
        [
            Answer(record, line[1] if len(line) > 1 else None, tuple(score * header["unit"] for score in line[0]))
            for record, line in zip(records, lines, strict=True)
        ],
    )


def _problem(header: Any, lines: Sequence[Any]) -> str | None:
    """What is not as `pack_answers` writes it."""
    kinds: dict[str, Any] = {"method": str, "seed": int | None, "unit": float}
    if wrong := [
        name
        for name in kinds
        if not isinstance(header, dict) or name not in header or not isinstance(header[name], kinds[name])
    ]:
        return f"{wrong[0]} of the first line is missing or of another type"
    if not 0 < header["unit"] < math.inf:
        return f"unit={header['unit']}: a positive number is needed"
    for number, line in enumerate(lines, 2):
        scores, *text = line if isinstance(line, list) and line else (None,)
        whole = isinstance(scores, list) and all(type(score) is int and abs(score) < _LARGEST for score in scores)
        if not whole or len(text) > 1 or not all(isinstance(said, str) for said in text):
            return f"line {number} is no list of whole numbers and a text"
    return None


def list_archive(folder: str | Path) -> list[str]:
    """Names of the models whose answers an archive holds.

    Raises:
        ArchiveError: The folder holds none.
    """
    names = sorted(path.name.removesuffix(".jsonl.xz") for path in Path(folder).glob("*.jsonl.xz"))
    if not (found := [name for name in names if name != QUESTIONS.removesuffix(".jsonl.xz")]):
        raise ArchiveError(f"{folder}: holds no packed answers (*.jsonl.xz)")
    return found


def _write(path: Path, lines: Sequence[Any]) -> None:
    text = "".join(f"{json.dumps(line, ensure_ascii=False, separators=(',', ':'))}\n" for line in lines)
    with new_file(path) as temporary:
        temporary.write_bytes(lzma.compress(text.encode(), preset=9))


def _read(path: Path) -> list[Any]:
    try:
        packed = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
        content = packed.decompress(path.read_bytes(), max_length=MOST_BYTES)
        if not packed.eof or packed.unused_data:
            raise ValueError(f"it is cut short, goes on behind its end, or holds more than {MOST_BYTES} bytes")
        # By line feeds alone: str.splitlines also splits at U+2028 and others, which json leaves in a text as they are.
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        found = [parse_json(line, f"line {number}") for number, line in enumerate(lines, 1)]
    except FileNotFoundError:
        raise ArchiveError(f"{path}: is not there") from None
    except (lzma.LZMAError, ValueError) as error:
        raise ArchiveError(f"{path}: is damaged ({error})") from error
    if not found:
        raise ArchiveError(f"{path}: is damaged (it holds nothing)")
    return found
