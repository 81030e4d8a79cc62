"""What kind of question a text is, told by its wording, and the kinds that a model was trained on, kept in its folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_json
from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.qa.grading import FAMILIES
from hf_evl_ecg.qa.labels import LABELS, PTBXL_SUPERCLASSES
from hf_evl_ecg.qa.prompts import CHOICE, CLASS_LIST, MEASUREMENTS, QUESTIONS, without_image_token

__all__ = ["KINDS_FILE", "OTHER", "count_kinds", "question_kind", "read_kinds", "write_kinds"]

KINDS_FILE = "question_kinds.json"
"""In the folder of a trained model: how many training questions there were of each kind."""
OTHER = "other"
"""Kind of a question in words of its own."""

_CODES = {label.text.lower(): code for code, label in LABELS.items()}
_NAMES = {measurement.name.lower(): task for task, measurement in MEASUREMENTS.items()}


@lru_cache(maxsize=2**16)  # data sets ask the same of every record
def question_kind(text: str) -> str:
    """The task that a question belongs to in results, as `hf_evl_ecg.qa.grading.task_name` names it, or `OTHER`.

    Only wordings of `hf_evl_ecg.qa.prompts` are known; case, spaces and the last sign do not matter.

    Example:
        >>> question_kind("Does this ECG show atrial fibrillation?"), question_kind("what is the rhythm of this ECG")
        ('rhythm_closed', 'rhythm_open')
        >>> question_kind("Will it rain?")
        'other'
    """
    asked = _even(without_image_token(text))
    for form, task, pattern in _patterns():
        if not (found := pattern.fullmatch(asked)):
            continue
        parts = found.groupdict()
        if form == "classes":
            codes = {_CODES.get(part.strip()) for part in parts["classes"].split(",")}
            return "diagnosis_superclasses" if codes == set(PTBXL_SUPERCLASSES) else "diagnosis_classes"
        if form == "report":
            return "report"
        if task == "measurement":
            task = _NAMES.get(parts["name"], "")
        elif "label" in parts:
            code = _CODES.get(re.sub("^an? ", "", parts["label"]))
            task = next((name for name, family in FAMILIES.items() if code in family), "")
        if task:
            return f"{task}_{form}"
    return OTHER


def count_kinds(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many questions there are of each kind, most first; of conversations every turn counts.

    Args:
        rows: Questions, or conversations in LLaVA's form.

    Example:
        >>> count_kinds([{"question": "What does this ECG show?"}, {"conversations": [{"from": "human", "value": "Hi"}]}])
        {'diagnosis_open': 1, 'other': 1}
    """
    counts: Counter[str] = Counter()
    for row in rows:
        turns = row.get("conversations") or ()
        texts = [turn["value"] for turn in turns if turn["from"] == "human"] if turns else [row.get("question") or ""]
        counts.update(map(question_kind, texts))
    return dict(counts.most_common())


def write_kinds(folder: str | Path, counts: Mapping[str, int]) -> None:
    """Keep the counts of `count_kinds` beside the model that learnt from the questions."""
    write_json(Path(folder) / KINDS_FILE, dict(counts))


def read_kinds(folder: str | Path) -> dict[str, int] | None:
    """What `write_kinds` wrote; None where there is no such file, or one that is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_kinds(folder, {"rhythm_open": 3})
        ...     read_kinds(folder)
        {'rhythm_open': 3}
    """
    try:
        found = read_json(Path(folder) / KINDS_FILE)
    except (OSError, ValueError):
        return None
    counts = isinstance(found, dict) and all(type(count) is int for count in found.values())
    return found if counts else None


def _even(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".?! ")


@cache
def _patterns() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Format, task and pattern of every wording; those of options and lists first, as they hold others."""
    made = [("classes", "diagnosis", _pattern(CLASS_LIST))]
    for (form, task), wordings in QUESTIONS.items():
        for wording in wordings:
            whole = CHOICE.replace("{question}", wording) if form == "choice" else wording
            made.append((form, task, _pattern(whole)))
    return tuple(made)


def _pattern(wording: str) -> re.Pattern[str]:
    words = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(_even(wording)))
    return re.compile(words, re.IGNORECASE)
