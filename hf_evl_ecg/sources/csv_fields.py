"""CSV tables of data sets, and what their fields say."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_evl_ecg.records.header import ECGRecordError

__all__ = ["flag", "number", "read_table", "row_error", "whole_number"]


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
                raise ValueError(f"{path}: no columns {missing}, it has {reader.fieldnames} (commas separate columns)")
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8, {error}") from error


def row_error(path: Path, row: int, field: str, value: str | None, allowed: str) -> ECGRecordError:
    """The error of one row of a table, the first below the header being row 1; loaders skip such rows where they may.

    Example:
        >>> print(row_error(Path("t.csv"), 3, "strat_fold", "", "1 to 10"))
        t.csv, row 3: strat_fold is ''; allowed: 1 to 10
    """
    return ECGRecordError(f"{path}, row {row}", field, value or "", allowed)


def flag(text: str | None) -> bool | None:
    """Return what a yes/no field says in any usual spelling, None where it is empty.

    Raises:
        ValueError: Anything else, which must not be read as "no".

    Example:
        >>> flag("1"), flag("0.0"), flag("True"), flag("")
        (True, False, True, None)
    """
    word = (text or "").strip().lower()
    if word in ("", "nan", "none"):
        return None
    if word in ("true", "yes", "false", "no"):
        return word in ("true", "yes")
    if (value := number(word)) is None:
        raise ValueError(f"{text!r}: allowed are 1 and 0, true and false, or an empty field")
    return value > 0


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
