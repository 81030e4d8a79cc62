"""Columns of local files or Hub data sets, with messages that name file, row and column."""

import csv
import gzip
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow.parquet

from hf_mic.files import parse_json

__all__ = ["check_texts", "parse_scores", "pick_columns", "read_columns", "read_table", "require_columns"]

_SURROGATE = re.compile("[\ud800-\udfff]")
EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def read_table(source: str | Path, *, split: str = "train", subset: str | None = None) -> dict[str, list[Any]]:
    """Read a local file if ``source`` is one, else a data set from the Hub.

    Files: csv and tsv (with a header), jsonl (one object per line), txt (one text per line, column ``text``), each also
    with a further ``.gz``, and parquet, in UTF-8 with or without byte order mark. Nothing is inferred from the cells: the text
    "null" stays a text.

    Args:
        source: Path of a file, or name of a Hub data set.
        split: Split of a Hub data set; ignored for a file.
        subset: Configuration of a Hub data set, such as ``triplet``; ignored for a file.

    Returns:
        Column name → values.

    Raises:
        FileNotFoundError: If ``source`` has the ending of a data file but does not exist.
        ValueError: If the ending is unknown, or the content is malformed or empty.
    """
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{source} is a folder: name one of the files in it.")
    ending = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if not path.exists():
        if ending in EXTENSIONS:
            raise FileNotFoundError(f"{source} does not exist (and is no name of a data set on the Hub).")
        rows = datasets.load_dataset(str(source), subset, split=split)
        table = {column: list(rows[column]) for column in rows.column_names}
    elif ending in EXTENSIONS and (ending != ".parquet" or path.suffix == ".parquet"):
        table = _read_file(path, ending)
    else:
        allowed = ", ".join(EXTENSIONS)
        raise ValueError(f"{source}: unknown ending {path.suffix!r}. Give one of {allowed} (all but parquet also .gz).")
    if not any(table.values()):
        raise ValueError(f"{source} is empty: it has no rows.")
    return table


def _read_file(path: Path, ending: str) -> dict[str, list[Any]]:
    """Columns of a file; errors name the file."""
    try:
        if ending == ".parquet":
            return _read_parquet(path)
        # newline="": csv reads line breaks within quotes by itself
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(
                encoding="utf-8-sig", newline=""
            )  # -sig: Windows programs begin a file with a byte order mark
        ) as lines:
            return _parse(lines, ending, path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8.") from error
    except (csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as {ending[1:]}: {error}") from error


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever Arrow stumbles over in damaged pages, and values that Python has no form for
        raise ValueError(f"{path} cannot be read as parquet: {error}") from error


def _parse(lines: TextIO, ending: str, path: Path) -> dict[str, list[Any]]:
    if ending == ".txt":
        return {"text": [line.strip() for line in lines if line.strip()]}
    if ending == ".jsonl":
        return _parse_json_lines(lines, path)
    reader = csv.reader(lines, delimiter="\t" if ending == ".tsv" else ",")
    header = [name.strip() for name in next(reader, [])]
    if len(header) == 1 and (other := next((mark for mark in (";", "\t", ",") if mark in header[0]), None)):
        raise ValueError(
            f"{path}: the header {header[0]!r} is one column with {other!r} in it: cells of a csv are separated by commas, of a tsv by "
            "tabs. Save the file so, or rename it."
        )
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: the header {header} names a column twice.")
    table: dict[str, list[Any]] = {name: [] for name in header}
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}, line {reader.line_num}: {len(row)} cells, but the header names {len(header)}.")
        for name, cell in zip(header, row, strict=True):
            table[name].append(cell)
    return table


def _parse_json_lines(lines: TextIO, path: Path) -> dict[str, list[Any]]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number},")
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
        if any(isinstance(value, str) and _SURROGATE.search(value) for value in row.values()):
            raise ValueError(
                f"{path}, line {number}: holds half of a surrogate pair (an emoji that was cut in two), which is no text: remove it."
            )
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def read_columns(
    source: str | Path, columns: Sequence[str], *, split: str = "train", subset: str | None = None
) -> dict[str, list[Any]]:
    """Read some columns and refuse missing ones and blank cells.

    Args:
        source: As for :func:`read_table`.
        columns: Names of the columns.
        split: Split of a Hub data set; ignored for a file.
        subset: Configuration of a Hub data set; ignored for a file.

    Returns:
        Column name → values, in the order of ``columns``.

    Raises:
        ValueError: If a column is missing (the message names those that are there) or a cell is blank, None or NaN (the
            message names the row, counted from 1 without the header).
    """
    return pick_columns(read_table(source, split=split, subset=subset), columns, source)


def pick_columns(table: Mapping[str, list[Any]], columns: Sequence[str], source: str | Path) -> dict[str, list[Any]]:
    """Some columns of a table that was read, checked as by :func:`read_columns`; ``source`` is named in messages.

    Example:
        >>> pick_columns({"a": ["x"], "b": ["y"]}, ["b"], "pairs.csv")
        {'b': ['y']}
    """
    require_columns(table, columns, source)
    for name in columns:
        for number, cell in enumerate(table[name], start=1):
            blank = cell is None or (isinstance(cell, str) and not cell.strip())
            if blank or (isinstance(cell, float) and math.isnan(cell)):
                raise ValueError(
                    f"{source}, row {number}: column {name!r} is {cell!r}. Fill in or remove rows with missing values."
                )
    return {name: table[name] for name in columns}


def require_columns(table: Mapping[str, list[Any]], columns: Sequence[str], source: str | Path) -> None:
    """Refuse a table that lacks a column; the message names those that are there.

    Raises:
        ValueError: If a column is missing.
    """
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{source} has no column {missing}. Its columns are {list(table)}: map them with `columns`.")


def check_texts(values: Sequence[Any], column: str, source: str | Path) -> None:
    """Refuse a column with cells that are no text, such as the numbers of a jsonl or parquet file.

    Raises:
        ValueError: If a cell is no text; the message names the row, counted from 1 without the header.
    """
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise ValueError(f"{source}, row {number}: column {column!r} holds {value!r:.80}, not a text.")


def parse_scores(values: Sequence[Any], column: str, source: str | Path) -> list[float]:
    """Turn the cells of a score column into finite numbers.

    Args:
        values: Cells, numbers or text.
        column: Name of the column, for the message.
        source: Where the cells come from, for the message.

    Raises:
        ValueError: If a cell is no finite number; the message names the row, counted from 1 without the header.

    Example:
        >>> parse_scores(["0.5", 2], "score", "pairs.csv")
        [0.5, 2.0]
    """
    scores = []
    for number, value in enumerate(values, start=1):
        try:
            score = float(value)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(f"{source}, row {number}: column {column!r} is {value!r:.80}, not a finite number.")
        scores.append(score)
    return scores
