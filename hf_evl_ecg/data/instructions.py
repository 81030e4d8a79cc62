"""ECGInstruct and ECGBench json (PULSE, arXiv 2410.19008): images or waveforms with conversations.

A record is `{"id": ..., "image": "ptb-xl/.../00001_hr-0.png", "conversations": [{"from": "human", "value": ...}, ...]}`; `"image": [one]`,
`images`, `messages` with `role` and `content`, and the roles `user` and `assistant` are understood too.
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
from hf_evl_ecg.qa.prompts import without_image_token
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.paths import resolve_inside
from hf_evl_ecg.records.reader import check_record
from hf_evl_ecg.sources.table import SPLITS, LoadReport

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
_SURROGATE = re.compile("[\ud800-\udfff]")
_DRAWN_FROM = re.compile(r"-\d+$")
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "model": "gpt", "system": "system"}


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

    The text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ValueError: The text is not json, is in another encoding, or an item is longer than 16 million characters.
    """
    decoder = json.JSONDecoder()
    with Path(path).open("rb") as opened:
        first = opened.read(4)
    if first[:2] in (b"\x1f\x8b", b"PK"):
        raise ValueError(f"{path}: is compressed (unpack it first)")
    encoding = json.detect_encoding(first) if first else "utf-8"
    try:
        yield from _items(path, "utf-8-sig" if encoding == "utf-8" else encoding, decoder)
    except UnicodeError as error:
        raise ValueError(f"{path}: is not the text in {encoding} that its first bytes promise: {error}") from error


def _items(path: str | os.PathLike[str], encoding: str, decoder: json.JSONDecoder) -> Iterator[Any]:
    with Path(path).open(encoding=encoding) as file:
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
    turns = _either(item, "conversations", "messages") if isinstance(item, dict) else None
    if not isinstance(turns, list):
        raise ECGRecordError(where, "conversations", type(item).__name__, "an object with a list 'conversations'")
    image = _either(item, "image", "images")
    if isinstance(image, list):
        if len(image) != 1:
            raise ECGRecordError(where, "image", f"a list of {len(image)}", "one image per record")
        image = image[0]
    if isinstance(image, dict):
        image = image.get("path")
    if not isinstance(image, str) or not image:
        raise ECGRecordError(where, "image", image, "a path relative to the data folder")
    inside = resolve_inside(image, root)
    turns = _turns(turns, where)
    if any(map(_SURROGATE.search, (str(item.get("id")), image, *(turn["value"] for turn in turns)))):
        raise ECGRecordError(
            where, "text", "half of a surrogate pair (an emoji that was cut in two)", "whole characters"
        )
    if not draw:
        if check and not inside.is_file():
            raise ECGRecordError(where, "image", image, f"an image file inside {root}")
        return turns, {"image": image, "record": None, "storage": None}
    record = str(Path(image).with_name(_DRAWN_FROM.sub("", Path(image).stem)))
    if check:
        check_record(record, root=root)
    return turns, {"image": None, "record": record, "storage": "wfdb"}


def _either(item: dict[str, Any], *names: str) -> Any:
    """The first of these fields that is there."""
    return next((item[name] for name in names if item.get(name) is not None), None)


def _text(turn: dict[str, Any]) -> str | None:
    """What a turn says: `value` or `content`, the latter as a text or as a list of parts, of which pictures are left out."""
    said = _either(turn, "value", "content")
    if isinstance(said, list):
        parts = [part.get("text") for part in said if isinstance(part, dict) and part.get("type") == "text"]
        said = "\n".join(part for part in parts if isinstance(part, str))
    return without_image_token(said) if isinstance(said, str) else None


def _turns(conversation: list[Any], where: str) -> list[dict[str, str]]:
    """Check that questions and answers alternate; the image mark is taken out, the collator puts its own in.

    A system prompt is left out: the chat template of a model has its own.
    """
    named = [_either(turn, "from", "role") if isinstance(turn, dict) else None for turn in conversation]
    speakers = [_SPEAKERS.get(str(name).lower(), name) for name in named]
    spoken = [i for i, who in enumerate(speakers) if who != "system"]
    if not spoken or len(spoken) % 2 or [speakers[i] for i in spoken] != ["human", "gpt"] * (len(spoken) // 2):
        allowed = "'human' and 'gpt' (or 'user' and 'assistant') in turns, each question with its answer"
        raise ECGRecordError(where, "conversations", named, allowed)
    texts = [_text(conversation[i]) for i in spoken]
    if not all(texts):
        raise ECGRecordError(where, "conversations", "a message without text", "a text in every 'value' or 'content'")
    return [{"from": str(speakers[i]), "value": text} for i, text in zip(spoken, texts, strict=True) if text]
