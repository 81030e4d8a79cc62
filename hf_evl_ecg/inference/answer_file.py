"""A file of answers, one a line: what was asked already is not asked again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_evl_ecg.json_text import parse_json
from hf_evl_ecg.qa.groups import Answer

__all__ = ["AnswerFile", "AnswerFileError", "StoredAnswers", "read_answers"]


class AnswerFileError(ValueError):
    """A file of answers by another model, to other pictures or with other settings, or a damaged one."""


@dataclass
class StoredAnswers:
    """What an `AnswerFile` holds.

    Attributes:
        settings: What the answers depend on.
        answers: Key of an item → its answer.
        pictures: Key of an item → digest of the picture it was asked about; files of before this was kept have none.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


class AnswerFile:
    """Answers by item, in memory and in a jsonl file that survives being killed: a half-written last line is dropped.

    Args:
        path: The file; None keeps answers in memory only.
        settings: What the answers depend on; a file with other settings is refused.

    Attributes:
        answers: Key of an item → its answer.
        pictures: Key of an item → digest of the picture it was asked about.

    Raises:
        AnswerFileError: The file was written with other settings, does not say which pictures it is about, or a line is no
            answer.
    """

    def __init__(self, path: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.answers: dict[str, Answer] = {}
        self.pictures: dict[str, str] = {}
        self.header = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file() and self.path.stat().st_size:
            self._read(settings)
        if not self.path.is_file() or not self.path.stat().st_size:
            self._append(json.dumps({"settings": dict(settings), "sha256": self.header}) + "\n")

    def add(self, answers: Mapping[str, Answer], pictures: Mapping[str, str]) -> None:
        """Keep answers and the digests of their pictures, on disk too before it returns."""
        self.answers.update(answers)
        self.pictures.update(pictures)
        if self.path is not None:
            lines = [
                json.dumps(
                    {"key": k, "record": a.record, "text": a.text, "scores": a.scores, "picture": pictures[k]},
                    ensure_ascii=False,
                )
                for k, a in answers.items()
            ]
            self._append("".join(f"{line}\n" for line in lines))

    def _append(self, text: str) -> None:
        assert self.path is not None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        assert self.path is not None
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # killed while writing
            os.truncate(self.path, whole)
        stored = read_answers(self.path)
        different = sorted(name for name in settings if stored.settings.get(name) != settings[name])
        if different:
            raise AnswerFileError(
                f"{self.path} holds answers with other {', '.join(different)}; choose another file or remove it"
            )
        if stored.pictures.keys() != stored.answers.keys():
            raise AnswerFileError(
                f"{self.path} does not say which pictures it answers about, so they may be others; remove it"
            )
        self.answers, self.pictures = stored.answers, stored.pictures


def read_answers(path: str | Path) -> StoredAnswers:
    """Read what an `AnswerFile` wrote.

    Raises:
        AnswerFileError: A line is no answer.
    """
    stored = StoredAnswers()
    # By line feeds alone: str.splitlines also splits at U+2028 and others, which json leaves in a text as they are.
    for number, line in enumerate(Path(path).read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        try:
            entry = parse_json(line, f"{path}, line {number}")
            if number == 1:
                stored.settings = _typed(entry, "settings", dict)
                continue
            key, scores = _typed(entry, "key", str), _typed(entry, "scores", list)
            if not all(type(score) in (int, float) for score in scores):
                raise TypeError("scores must be numbers")
            stored.answers[key] = Answer(_typed(entry, "record", str), _typed(entry, "text", str | None), tuple(scores))
            if "picture" in entry:
                stored.pictures[key] = _typed(entry, "picture", str)
        except (ValueError, KeyError, TypeError) as error:
            raise AnswerFileError(
                f"{path}, line {number} is no answer: {error}; remove the file and evaluate the model again"
            ) from error
    return stored


def _typed(entry: Any, name: str, kinds: Any) -> Any:
    value = entry[name]
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is a {type(value).__name__}")
    return value
