"""What an inspection starts from: the encoder and the texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from hf_mic.evaluation.tables import check_texts, read_columns, read_table

from .settings import InspectionError

__all__ = ["load_encoder", "read_texts"]


def load_encoder(
    name: str | Path, *, device: str | None = None, trust_remote_code: bool = False
) -> SentenceTransformer:
    """Load a sentence-transformers model from a folder or the Hub.

    Args:
        name: Folder, or name on the Hub.
        device: Such as ``cpu`` or ``cuda:0``; chosen automatically by default.
        trust_remote_code: Run code that the model's repository brings along.

    Raises:
        InspectionError: If there is no such model or it cannot be loaded.
    """
    try:
        return SentenceTransformer(str(name), device=device, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        where = "from this folder" if Path(name).is_dir() else "as a folder or from the Hub"
        raise InspectionError(
            f"No sentence-transformers model {str(name)!r} could be loaded {where}: {error}"
        ) from error


def read_texts(sources: Iterable[str | Path], columns: Sequence[str] | None = None) -> list[str]:
    """Read the distinct texts of files or Hub data sets, in order.

    Args:
        sources: txt (one text per line), csv, tsv, jsonl, parquet, or names on the Hub.
        columns: Columns that hold texts. Default: ``text``, or the only column there is.

    Raises:
        InspectionError: If it is not clear which column holds the texts.
        ValueError: If a file is malformed or empty, a column is missing, or a cell blank or no text.
    """
    texts: dict[str, None] = {}
    for source in sources:
        for name, values in read_columns(source, columns or _text_column(source)).items():
            check_texts(values, name, source)
            texts.update(dict.fromkeys(values))
    return list(texts)


def _text_column(source: str | Path) -> list[str]:
    names = list(read_table(source))
    if "text" not in names and len(names) > 1:
        raise InspectionError(f"{source} has the columns {names}: say which of them hold texts with text_columns.")
    return ["text"] if "text" in names else names
