"""ECGInstruct and ECGBench json (PULSE, arXiv 2410.19008): images or waveforms with conversations.

A record is `{"id": ..., "image": "ptb-xl/.../00001_hr-0.png", "conversations": [{"from": "human", "value": ...}, ...]}`.
The million records of ECGInstruct are parsed one at a time, and an image can be drawn from the waveform it was drawn from.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, IterableDataset, List, Value

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.qa.prompts import IMAGE_TOKEN
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.reader import check_record

from .table import SPLITS, LoadReport

__all__ = ["INSTRUCT_FEATURES", "iterate_json", "load_instructions"]

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # characters held at once; ECGInstruct has a million records
MAX_RECORD_CHARACTERS = 1 << 24  # a file that is no list of records must not be read into memory whole
INSTRUCT_FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "root": Value("string"),
        "split": Value("string"),
        "image": Value("string"),
        "record": Value("string"),
        "storage": Value("string"),
        "question": Value("string"),
        "answer": Value("string"),
        "conversations": List({"from": Value("string"), "value": Value("string")}),
    }
)

_GAP = re.compile(r"[\s,]*")
_DRAWN_FROM = re.compile(r"-\d+$")


def load_instructions(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    draw: bool = False,
    split: str = "train",
    streaming: bool = False,
    on_bad: Literal["skip", "raise"] = "skip",
    check: bool = True,
) -> tuple[Dataset | IterableDataset, LoadReport]:
    """Read conversations about ECG images: one row per record, `question` and `answer` being the first turn.

    Args:
        path: The json file: a list of records, or one record per line.
        root: Folder of the images, or with `draw` of the WFDB records; nothing outside it is read.
        draw: The image of a row is to be drawn from the record of the same name (`.../00001_hr-0.png` from
            `.../00001_hr`): `record` and `storage` are set for `load_ecg`, and `image` is None.
        split: Split of all rows; ECGInstruct is "train", ECGBench "test".
        streaming: Return an `IterableDataset` that parses while it is read and never holds the file in memory; its report
            fills during iteration.
        on_bad: "skip" leaves bad records out, counts and names them; "raise" stops at the first.
        check: Whether to look for each image or record on disk.

    Returns:
        The dataset with the columns of `INSTRUCT_FEATURES`, and the report.

    Raises:
        ValueError: The file is missing or no json, no good record, or an unknown option.
        ECGRecordError: A bad record, with `on_bad="raise"`.
    """
    path, root = Path(path), Path(root).resolve()
    check_choice("split", split, SPLITS)
    check_choice("on_bad", on_bad, ("skip", "raise"))
    if not path.is_file():
        raise ValueError(f"{path}: missing (give the json file of conversations)")
    report = LoadReport(path.stem, notes=["splits as published: one file is one split"])

    rows = partial(_rows, path, root, report, split=split, draw=draw, on_bad=on_bad, check=check)
    if streaming:
        return IterableDataset.from_generator(rows, features=INSTRUCT_FEATURES), report
    columns: dict[str, list[Any]] = {name: [] for name in INSTRUCT_FEATURES}
    for row in rows():
        for name, values in columns.items():
            values.append(row[name])
    if report.skipped:
        logger.warning("%s: skipped %d bad records", path, len(report.skipped))
    if not report.n_rows:
        raise ValueError(f"{path}: no usable record; {report}")
    return Dataset.from_dict(columns, features=INSTRUCT_FEATURES), report


def _rows(
    path: Path, root: Path, report: LoadReport, *, split: str, draw: bool, on_bad: str, check: bool
) -> Iterator[dict[str, Any]]:
    """Rows of the good records; the report is filled anew by each pass over a streamed dataset."""
    report.n_rows = 0
    report.skipped.clear()
    for position, item in enumerate(iterate_json(path)):
        name = str(item.get("id", position)) if isinstance(item, dict) else str(position)
        try:
            turns, target = _check_item(item, path, position, root, draw, check)
        except ECGRecordError as error:
            if on_bad == "raise":
                raise
            report.skipped.append((name, str(error)))
            continue
        report.n_rows += 1
        yield target | {
            "id": name,
            "source": path.stem,
            "root": str(root),
            "split": split,
            "question": turns[0]["value"],
            "answer": turns[1]["value"],
            "conversations": turns,
        }


def iterate_json(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yield the items of a json list, or of a file with one json value per line, holding one chunk in memory.

    Raises:
        ValueError: The text is not json, or an item is longer than 16 million characters.
    """
    decoder = json.JSONDecoder()
    with Path(path).open(encoding="utf-8") as file:
        buffer = file.read(CHUNK)
        start = _GAP.match(buffer).end()  # type: ignore[union-attr]
        in_list = buffer.startswith("[", start)
        start += in_list
        while True:
            start = _GAP.match(buffer, start).end()  # type: ignore[union-attr]
            if in_list and buffer.startswith("]", start):
                return
            problem = None
            try:
                item, stop = decoder.raw_decode(buffer, start)
            except (ValueError, RecursionError) as error:
                problem, stop = error, len(buffer)
            if stop == len(buffer):  # nothing, half an item, or one that may go on in the next chunk
                chunk = file.read(CHUNK) if stop - start <= MAX_RECORD_CHARACTERS else ""
                if chunk:
                    buffer, start = buffer[start:] + chunk, 0
                    continue
            if problem is not None:
                if not in_list and start == len(buffer):
                    return
                raise ValueError(f"{path}: not json near {buffer[start : start + 60]!r}: {problem}") from problem
            yield item
            start = stop


def _check_item(
    item: Any, path: Path, position: int, root: Path, draw: bool, check: bool
) -> tuple[list[dict[str, str]], dict[str, str | None]]:
    """Return the turns of a record, and the columns that say where its picture comes from."""
    where = f"{path}[{position}]"
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        raise ECGRecordError(where, "conversations", type(item).__name__, "an object with a list 'conversations'")
    image = item.get("image")
    if not isinstance(image, str) or not image:
        raise ECGRecordError(where, "image", image, "a path relative to the data folder")
    inside = resolve_inside(image, root)
    turns = _turns(item["conversations"], where)
    if not draw:
        if check and not inside.is_file():
            raise ECGRecordError(where, "image", image, f"an image file inside {root}")
        return turns, {"image": image, "record": None, "storage": None}
    record = str(Path(image).with_name(_DRAWN_FROM.sub("", Path(image).stem)))
    if check:
        check_record(record, root=root)
    return turns, {"image": None, "record": record, "storage": "wfdb"}


def _turns(conversation: list[Any], where: str) -> list[dict[str, str]]:
    """Check that questions and answers alternate; the image mark is taken out, the collator puts its own in."""
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in conversation]
    if not speakers or len(speakers) % 2 or speakers != ["human", "gpt"] * (len(speakers) // 2):
        raise ECGRecordError(
            where, "conversations", speakers, "'human' and 'gpt' in turns, each question with its answer"
        )
    texts = [turn.get("value") for turn in conversation]
    if not all(isinstance(text, str) and text.replace(IMAGE_TOKEN, "").strip() for text in texts):
        raise ECGRecordError(where, "conversations", "a message without text", "a text in every 'value'")
    return [
        {"from": who, "value": text.replace(IMAGE_TOKEN, "").strip()} for who, text in zip(speakers, texts, strict=True)
    ]
