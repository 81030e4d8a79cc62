"""Questions of a benchmark: json, jsonl or parquet files with a folder of images, or a data set on the Hub."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from hf_evl_ecg.chat.conversations import Turn, read_turns
from hf_evl_ecg.data.instructions import iterate_json
from hf_evl_ecg.drawing.image_file import ImageFile, upright_rgb

from .tasks import BenchmarkTask, benchmark_task

__all__ = ["Benchmark", "BenchmarkQuestion", "RowImages", "load_benchmark"]

HUB = "hub:"
_TEXTS = ("id", "No", "image_path", "conversations")  # columns that are read without decoding an image
_SUFFIXES = ("parquet", "json", "jsonl")


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One record of a benchmark.

    Attributes:
        record: Its name, unique in its task.
        turns: What is asked, with the right answers; several in the arena.
        place: Where its image is: ``{"image": FILE}`` or ``{"row": NUMBER}``.
        ecg: Name of its image; questions that share it are resampled together.
    """

    record: str
    turns: tuple[Turn, ...]
    place: Mapping[str, Any]
    ecg: str


@dataclass(frozen=True)
class Benchmark:
    """The questions of one task.

    Attributes:
        task: Which task it is.
        questions: In the order of the file, which the released scorers draw their letters in.
        load_image: Item with the ``place`` of a question → PIL image.
    """

    task: BenchmarkTask
    questions: tuple[BenchmarkQuestion, ...]
    load_image: ImageFile | RowImages


@dataclass(frozen=True)
class RowImages:
    """Reads the image of row ``item["row"]`` of a data set."""

    rows: Dataset

    def __call__(self, item: Mapping[str, Any]) -> Image.Image:
        """The image as `hf_evl_ecg.drawing.image_file.upright_rgb` gives it.

        Raises:
            ValueError: It is no whole picture.
        """
        try:
            return upright_rgb(self.rows[item["row"]]["image"])
        except Exception as error:  # Pillow has errors of many kinds for damaged bytes, and most name nothing
            raise ValueError(f"image of row {item['row']}: is no whole picture ({error})") from error


def load_benchmark(name: str, data: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> Benchmark:
    """Read the questions of one task.

    Args:
        name: A name in `hf_evl_ecg.benchmarks.tasks.ECGBENCH`.
        data: A folder with ``NAME.json``, ``NAME.jsonl`` or ``NAME.parquet``, or with a folder ``NAME`` of such files; or
            ``hub:OWNER/NAME`` for a data set on the Hub, which is downloaded.
        images: Folder that the file names in json files start from; ``data``/images by default.

    Raises:
        ValueError: No such task, or no file of it, a damaged one, or nothing in it, or ``images`` for files that hold theirs.
        ExampleError: A record whose turns do not alternate.

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> turns = [{"from": "human", "value": "<image> Which? A. AF B. LBBB"}, {"from": "gpt", "value": "A"}]
        >>> with TemporaryDirectory() as folder:
        ...     record = {"id": "r1", "image": "r1.png", "conversations": turns}
        ...     _ = Path(folder, "mmmu-ecg.json").write_text(json.dumps([record]))
        ...     load_benchmark("mmmu-ecg", folder).questions[0].turns
        (Turn(question='Which? A. AF B. LBBB', answer='A'),)
    """
    task = benchmark_task(name)
    files = [] if str(data).startswith(HUB) else _files(Path(data), name)
    if images is not None and (not files or files[0].suffix == ".parquet"):
        raise ValueError(f"images={str(images)!r}: {data} holds the images of {name} itself (leave the folder out)")
    if not files:
        return _from_rows(task, load_dataset(str(data).removeprefix(HUB), name, split="test"))
    if files[0].suffix == ".parquet":
        return _from_rows(task, _read_parquet(files))
    records = [record for file in files for record in iterate_json(file)]
    if other := [type(record).__name__ for record in records if not isinstance(record, Mapping)]:
        raise ValueError(f"{files[0]}: holds a {other[0]}; records of {name}, json objects, are needed")
    places = [{"image": str(record.get("image") or record.get("image_path"))} for record in records]
    return Benchmark(task, _questions(task, records, places), ImageFile(Path(images or Path(data) / "images")))


def _files(folder: Path, name: str) -> list[Path]:
    """The files of one task, all of one kind."""
    for suffix in _SUFFIXES:
        if (file := folder / f"{name}.{suffix}").is_file():
            return [file]
    for suffix in _SUFFIXES:
        if files := sorted((folder / name).glob(f"*.{suffix}")):
            return files
    raise ValueError(
        f"data={str(folder)!r}: {name}.json, .jsonl or .parquet, or a folder {name} of such files, is needed "
        f"(for a data set on the Hub write {HUB}OWNER/NAME)"
    )


def _read_parquet(files: list[Path]) -> Any:
    named = ", ".join(map(str, files))
    try:
        rows = Dataset.from_parquet([str(file) for file in files])
    except Exception as error:  # `datasets` and Arrow stumble over damaged pages in many ways
        reason = error.__cause__ or error
        raise ValueError(f"{named}: cannot be read as parquet ({reason}); download it again") from error
    if lacking := {"image", "conversations"} - set(rows.column_names):
        raise ValueError(
            f"{named}: has no column {', '.join(sorted(lacking))}; there are {', '.join(rows.column_names)}"
        )
    return rows


def _from_rows(task: BenchmarkTask, rows: Any) -> Benchmark:
    texts = rows.select_columns([column for column in _TEXTS if column in rows.column_names])
    places = [{"row": number} for number in range(len(rows))]
    decoded = RowImages(rows.cast_column("image", ImageFeature()))
    return Benchmark(task, _questions(task, texts, places), decoded)


def _questions(
    task: BenchmarkTask, records: Iterable[Mapping[str, Any]], places: list[dict[str, Any]]
) -> tuple[BenchmarkQuestion, ...]:
    records = list(records)
    if not records:
        raise ValueError(f"{task.name}: there are no records")
    names = [str(record["id"] if record.get("id") is not None else record.get("No")) for record in records]
    often = Counter(names)
    found = []
    for number, (record, name, place) in enumerate(zip(records, names, places, strict=True)):
        # Answers are kept by name, question and answer, so two records of one name need names of their own.
        unique = name if often[name] == 1 and name != "None" else f"{name}#{number}"
        ecg = str(record.get("image_path") or record.get("image") or unique)
        found.append(BenchmarkQuestion(unique, read_turns(record, f"{task.name}:{unique}"), place, ecg))
    return tuple(found)
