"""The texts that an inspection starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_mic.evaluation.tables import check_texts, read_columns, read_table

from .settings import InspectionError

__all__ = ["read_texts"]


def read_texts(sources: Iterable[str | Path], columns: Sequence[str] | None = None) -> list[str]:
    """Read the distinct texts of files or Hub data sets, in order.

    Args:
        sources: txt (one text per line), csv, tsv, jsonl, parquet, or names on the Hub.
        columns: Columns that hold texts. Default: ``text``, or the only column there is.

    Raises:
        InspectionError: If it is not clear which column holds the texts, a file is malformed or empty, a column is missing, or
            a cell blank or no text.
        FileNotFoundError: If there is no such file.

    Example:
        >>> _ = Path("texts.txt").write_text("fast rhythm")
        >>> read_texts(["texts.txt", "texts.txt"])
        ['fast rhythm']
    """
    texts: dict[str, None] = {}
    for source in sources:
        try:
            for name, values in read_columns(source, columns or _text_column(source)).items():
                check_texts(values, name, source)
                texts.update(dict.fromkeys(values))
        except ValueError as error:
            raise InspectionError(str(error)) from error
    return list(texts)


def _text_column(source: str | Path) -> list[str]:
    names = list(read_table(source))
    if "text" not in names and len(names) > 1:
        raise InspectionError(f"{source} has the columns {names}: say which of them hold texts with text_columns.")
    return ["text"] if "text" in names else names
