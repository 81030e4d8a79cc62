"""Answers of a study, packed: small enough to be kept beside its results, enough to compute every number anew without a model."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import new_file
from hf_evl_ecg.qa.groups import Answer

__all__ = ["ArchiveError", "list_archive", "pack_answers", "pack_questions", "unpack_answers", "unpack_questions"]

QUESTIONS = "questions.jsonl.xz"
UNIT = 0.01
"""Log-likelihoods are kept as whole numbers of this (nats): results are computed from what is kept, so nothing is lost later."""
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
    return [dict.fromkeys(_KEPT) | item for item in _read(Path(folder) / QUESTIONS)]


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
        return [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
    except FileNotFoundError:
        raise ArchiveError(f"{path}: is not there") from None
    except (lzma.LZMAError, ValueError) as error:
        raise ArchiveError(f"{path}: is damaged ({error})") from error
