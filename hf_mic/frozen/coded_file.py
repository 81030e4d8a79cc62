"""Codes written to a file in chunks, so that a killed run loses one chunk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_mic.codes.storage import open_array
from hf_mic.files import new_array, read_json, write_text

__all__ = ["write_codes"]

PROBED_ROWS = 64


def write_codes(
    path: Path,
    vectors: NDArray,
    encode: Callable[[NDArray, int], NDArray[np.uint8]],
    width: int,
    *,
    rows: int,
    key: str,
    progress: bool = True,
) -> Path:
    """Encode vectors chunk by chunk into a .npy file, which appears under its name when it is whole.

    Meanwhile ``.NAME.partial`` beside it holds the codes and ``.NAME.journal.json`` how many rows of them are on disk. A later
    call with the same vectors and key goes on from there; of others it starts anew.

    Args:
        path: The file; its folder is created.
        vectors: What is encoded. Shape: (N, D).
        encode: Gives the codes of a chunk, of which it also gets the number of the first row.
        width: Bytes of a code.
        rows: Rows of a chunk.
        key: Names everything that the codes depend on but the vectors.
        progress: Show a progress bar.

    Returns:
        ``path``.

    Raises:
        OSError: There is no space for the codes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, journal = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.journal.json")
    shape = (len(vectors), width)
    task = {"key": key, "shape": list(shape), "vectors": _probe(vectors)}
    done = _rows_done(partial, journal, task)
    codes = np.lib.format.open_memmap(partial, "r+") if done else new_array(partial, np.uint8, shape)
    with tqdm(total=len(vectors), initial=done, desc="code", unit="row", unit_scale=True, disable=not progress) as bar:
        for start in range(done, len(vectors), rows):
            chunk = encode(vectors[start : start + rows], start)
            codes[start : start + len(chunk)] = chunk
            codes.flush()  # the rows are on disk before the journal says so
            write_text(journal, json.dumps({**task, "rows": start + len(chunk)}))
            bar.update(len(chunk))
    del codes
    os.replace(partial, path)
    journal.unlink(missing_ok=True)
    return path


def _rows_done(partial: Path, journal: Path, task: dict[str, Any]) -> int:
    """Rows of this task that are in the partial file; 0 without such a file, or of another task."""
    try:
        noted, codes = read_json(journal), open_array(partial)
    except (OSError, ValueError):
        return 0
    rows = noted.pop("rows", 0) if isinstance(noted, dict) else 0
    whole = codes.dtype == np.uint8 and list(codes.shape) == task["shape"] and codes.flags.c_contiguous
    return rows if noted == task and whole and type(rows) is int and 0 <= rows <= len(codes) else 0


def _probe(vectors: NDArray) -> str:
    """SHA-256 of shape, type and some rows from the first to the last: other vectors are not taken for these."""
    some = np.unique(np.linspace(0, len(vectors) - 1, PROBED_ROWS).astype(int))
    digest = hashlib.sha256(repr((vectors.shape, vectors.dtype.str)).encode())
    for row in some:
        digest.update(np.ascontiguousarray(vectors[row]).tobytes())
    return digest.hexdigest()
