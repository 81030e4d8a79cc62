"""CSV tables of data sets, and what their fields say."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["number", "read_table", "whole_number"]


def read_table(path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Read a CSV file with a header line, row by row; absent trailing fields are empty.

    Raises:
        ValueError: The file is missing or damaged, or lacks a needed column.
    """
    if not path.is_file():
        raise ValueError(f"{path}: missing (give the folder that holds it)")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path}: no columns {missing}, it has {reader.fieldnames}")
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8, {error}") from error


def number(text: str | None) -> float | None:
    """Return the number in a table's field, None where there is none.

    Example:
        >>> number("56.0"), number(""), number("nan")
        (56.0, None, None)
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None  # tables spell "unknown" as nan, inf or 1e300; all of these fail here


def whole_number(text: str | None) -> str | None:
    """Return an identifier that a table stores as a float, as digits.

    Example:
        >>> whole_number("15709.0"), whole_number("")
        ('15709', None)
    """
    value = number(text)
    return None if value is None else str(int(value))
