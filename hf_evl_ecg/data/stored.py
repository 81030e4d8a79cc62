"""Question datasets on disk: written whole or not at all, read by split."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_from_disk

from hf_evl_ecg.files import write_text

__all__ = ["limit_records", "load_questions", "save_questions"]

INDEX = "dataset_dict.json"  # without it a folder holds no dataset


def save_questions(data: Mapping[str, Dataset], folder: str | Path, notes: Mapping[str, str]) -> None:
    """Write a question dataset, in place of one that is there.

    It is written aside first. Then the index of the one before is removed, before any of its splits, and that of the new one comes last:
    after a kill a folder holds one dataset or none, never splits of two, between which records may have moved.

    Args:
        data: Questions by split.
        folder: Where to.
        notes: Name of a file beside them → its text.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_questions({"test": Dataset.from_dict({"question": ["Is it AF?"]})}, folder, {"report.md": "1 question"})
        ...     sorted(os.listdir(folder))
        ['dataset_dict.json', 'report.md', 'test']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new.") as aside:
        DatasetDict(data).save_to_disk(aside)
        for name, text in notes.items():
            write_text(Path(aside, name), text)
        try:
            former = set(_read(folder)) if (folder / INDEX).is_file() else set()
        except ValueError:  # it is damaged, and is to be replaced
            former = set()
        (folder / INDEX).unlink(missing_ok=True)
        for split in {*former, *data}:
            shutil.rmtree(folder / split, ignore_errors=True)
        for name in sorted(os.listdir(aside), key=lambda name: (name == INDEX, name)):
            os.replace(Path(aside, name), folder / name)


def load_questions(folder: str | Path, split: str, limit: int | None = None) -> Dataset:
    """Read one split of a question dataset.

    Args:
        folder: The folder.
        split: train, validation or test.
        limit: Keep this many records (all questions of each), drawn evenly over the dataset.

    Raises:
        ValueError: There is no such dataset or split, it was not written to its end, or it is damaged.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"data={folder}: is no folder (write a question dataset there with hf-evl-ecg prepare)")
    if not Path(folder, INDEX).is_file():
        raise ValueError(
            f"data={folder}: holds no whole question dataset (run hf-evl-ecg prepare for it, again if it was stopped)"
        )
    data = _read(Path(folder), split)
    if split not in data:
        raise ValueError(f"split={split!r}: {folder} has {sorted(data)}")
    questions = data[split].with_format(None)  # a damaged state may name a format that leaves columns out
    if lacking := {"source", "record"} - set(questions.column_names):
        raise ValueError(f"data={folder}: has no column {', '.join(sorted(lacking))} (run hf-evl-ecg prepare for it)")
    return limit_records(questions, limit)


def _read(folder: Path, checked: str | None = None) -> Any:
    """A dataset by split; the rows of one are checked, as damaged ones would end the process when they are used."""
    try:
        data = load_from_disk(str(folder))
        if checked in data:
            data[checked].data.validate(full=True)
    except Exception as error:  # `datasets` and Arrow stumble over damaged files in many ways
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"data={folder}: is damaged ({said[:300]}); run hf-evl-ecg prepare for it again") from error
    return data


def limit_records(questions: Dataset, limit: int | None) -> Dataset:
    """Keep the questions about this many records, drawn evenly over the dataset; all of them if ``limit`` is None."""
    names = list(zip(questions["source"], questions["record"], strict=True))
    records = list(dict.fromkeys(names))
    if limit is None or limit >= len(records):
        return questions
    kept = {records[i * len(records) // limit] for i in range(limit)}
    return questions.select([i for i, name in enumerate(names) if name in kept])
