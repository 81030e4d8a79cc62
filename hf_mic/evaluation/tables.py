"""Text from local files or the Hub as the columns that a sentence-transformers loss eats."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow
import pyarrow.parquet

__all__ = ["KINDS", "load_training_data", "parse_scores", "read_columns", "read_table", "simcse_pairs"]

KINDS: dict[str, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "single": ("text",),
}
"""The kinds of training data and the columns of each. ``single`` becomes SimCSE pairs: every text with itself."""

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def read_table(source: str | Path, *, split: str = "train", subset: str | None = None) -> dict[str, list[Any]]:
    """Read a local file if ``source`` is one, else a data set from the Hub.

    Files: csv and tsv (with a header), jsonl (one object per line), txt (one text per line, column ``text``), each also
    with a further ``.gz``, and parquet. Nothing is inferred from the cells: the text "null" stays a text.

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
    """Columns of a file; what its format cannot be read as is told with its name."""
    try:
        if ending == ".parquet":
            return pyarrow.parquet.read_table(path).to_pydict()
        # newline="": csv reads line breaks within quotes by itself
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        ) as lines:
            return _parse(lines, ending, path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8.") from error
    except (csv.Error, gzip.BadGzipFile, EOFError, zlib.error, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read as {ending[1:]}: {error}") from error


def _parse(lines: TextIO, ending: str, path: Path) -> dict[str, list[Any]]:
    if ending == ".txt":
        return {"text": [line.strip() for line in lines if line.strip()]}
    if ending == ".jsonl":
        return _parse_json_lines(lines, path)
    reader = csv.reader(lines, delimiter="\t" if ending == ".tsv" else ",")
    header = next(reader, [])
    header = [name.removeprefix("\ufeff").strip() for name in header]
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
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
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
    return _pick(read_table(source, split=split, subset=subset), columns, source)


def _pick(table: Mapping[str, list[Any]], columns: Sequence[str], source: str | Path) -> dict[str, list[Any]]:
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{source} has no column {missing}. Its columns are {list(table)}: map them with `columns`.")
    for name in columns:
        for number, cell in enumerate(table[name], start=1):
            blank = cell is None or (isinstance(cell, str) and not cell.strip())
            if blank or (isinstance(cell, float) and math.isnan(cell)):
                raise ValueError(
                    f"{source}, row {number}: column {name!r} is {cell!r}. Fill in or remove rows with missing values."
                )
    return {name: table[name] for name in columns}


def parse_scores(values: Sequence[Any], column: str, source: str | Path) -> list[float]:
    """Turn the cells of a score column into finite numbers.

    Args:
        values: Cells, numbers or text.
        column: Name of the column, for the message.
        source: Where the cells come from, for the message.

    Raises:
        ValueError: If a cell is no finite number; the message names the row, counted from 1 without the header.
    """
    scores = []
    for number, value in enumerate(values, start=1):
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(f"{source}, row {number}: column {column!r} is {value!r}, not a finite number.")
        scores.append(score)
    return scores


def simcse_pairs(texts: Sequence[str]) -> datasets.Dataset:
    """Pair every text with itself: dropout makes the two embeddings differ (unsupervised SimCSE, arXiv 2104.08821).

    Args:
        texts: Sentences; repeated ones are kept once, since a copy would be a false negative of the other.

    Returns:
        Columns ``anchor`` and ``positive``.
    """
    distinct = list(dict.fromkeys(texts))
    return datasets.Dataset.from_dict({"anchor": distinct, "positive": distinct})


def load_training_data(
    source: str | Path,
    kind: str | None = None,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    score_range: tuple[float, float] | None = None,
    split: str = "train",
    subset: str | None = None,
    max_rows: int | None = None,
) -> datasets.Dataset:
    """Read training data as the columns of one :data:`KINDS` entry, in the order sentence-transformers expects.

    Args:
        source: Path of a file (see :func:`read_table`), or name of a Hub data set.
        kind: ``pairs``, ``triplets``, ``scored`` or ``single``; by default the first of triplets, pairs, scored, single
            whose columns are all there.
        columns: Name of a column of the kind → name in the source, where they differ, such as ``{"anchor": "question"}``.
            ``text`` may name several columns, whose texts all become sentences.
        score_range: Lowest and highest possible score, mapped to 0 and 1 (CoSENT and cosine losses want [0, 1]): (0, 5)
            for STS-B. Scores are left as they are by default.
        split: Split of a Hub data set; ignored for a file.
        subset: Configuration of a Hub data set; ignored for a file.
        max_rows: Keep only the first rows.

    Returns:
        A data set with the columns of the kind; ``single`` gives ``anchor`` and ``positive``, both the same text.

    Raises:
        ValueError: If the kind, the mapping or the range is invalid, a column is missing, a text is blank or not a
            text, or a score is not a finite number or outside ``score_range``.

    Example:
        >>> load_training_data("stsb/train.csv", "scored", score_range=(0, 5))[0]  # doctest: +SKIP
        {'sentence1': 'A plane is taking off.', 'sentence2': 'An air plane is taking off.', 'score': 1.0}
    """
    mapping = _checked_mapping(columns)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, got {max_rows}.")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"Unknown kind {kind!r}: choose from {', '.join(KINDS)}.")
    table = read_table(source, split=split, subset=subset)
    kind = kind or _infer_kind(source, table, mapping)
    if unused := sorted(set(mapping) - set(KINDS[kind])):
        raise ValueError(f"columns maps {unused}, which kind {kind!r} does not have: its columns are {KINDS[kind]}.")
    wanted = {name: mapping.get(name, [name]) for name in KINDS[kind]}
    cut = {name: values[:max_rows] for name, values in table.items()}
    table = _pick(cut, [name for names in wanted.values() for name in names], source)
    for name in (name for target, names in wanted.items() if target != "score" for name in names):
        _check_texts(table[name], name, source)
    if kind == "single":
        return simcse_pairs([text for row in zip(*table.values(), strict=True) for text in row])
    result: dict[str, list[Any]] = {target: table[names[0]] for target, names in wanted.items()}
    if kind == "scored":
        scores = parse_scores(result["score"], wanted["score"][0], source)
        result["score"] = scores if score_range is None else _rescale(scores, score_range, source)
    return datasets.Dataset.from_dict(result)


def _checked_mapping(columns: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
    known = {name for names in KINDS.values() for name in names}
    if unknown := sorted(set(columns or {}) - known):
        raise ValueError(
            f"columns maps {unknown}: its keys must be of {sorted(known)}, its values names in the source."
        )
    mapping = {key: [names] if isinstance(names, str) else list(names) for key, names in (columns or {}).items()}
    for key, names in mapping.items():
        if not names or (len(names) > 1 and key != "text"):
            raise ValueError(f"columns maps {key!r} to {names}: only 'text' may name several columns.")
    return mapping


def _infer_kind(source: str | Path, table: Mapping[str, list], mapping: Mapping[str, list[str]]) -> str:
    for kind in ("triplets", "pairs", "scored", "single"):
        if all(name in table for target in KINDS[kind] for name in mapping.get(target, [target])):
            return kind
    raise ValueError(
        f"{source}: cannot tell what its columns {list(table)} are. Expected the columns of one of {KINDS}: map them with "
        "`columns`."
    )


def _check_texts(values: Sequence[Any], name: str, source: str | Path) -> None:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise ValueError(f"{source}, row {number}: column {name!r} holds {value!r}, not a text.")


def _rescale(scores: Sequence[float], score_range: tuple[float, float], source: str | Path) -> list[float]:
    low, high = score_range
    if not low < high:
        raise ValueError(f"score_range must be (lowest, highest) with lowest < highest, got {score_range}.")
    for number, score in enumerate(scores, start=1):
        if not low <= score <= high:
            raise ValueError(f"{source}, row {number}: score {score:g} lies outside score_range {score_range}.")
    return [(score - low) / (high - low) for score in scores]
