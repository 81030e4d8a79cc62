"""Json that programs and people wrote: what it says, or one error that names the file."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "read_json"]


def parse_json(text: str | bytes, where: object) -> Any:
    """What a json text says.

    Raises:
        ValueError: It is no json; `where` it stands is named.

    Example:
        >>> parse_json('{"format": 1}', "cache.json")
        {'format': 1}
        >>> parse_json("{", "cache.json, line 1")
        Traceback (most recent call last):
        ValueError: cache.json, line 1: is no json (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also bytes of no encoding, endless numbers, lists in lists
        raise ValueError(f"{where}: is no json ({error})") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a json file says, in any encoding that json may have, with or without a byte order mark.

    Raises:
        ValueError: It is no json.
        OSError: It cannot be read.
    """
    return parse_json(Path(path).read_bytes(), path)
