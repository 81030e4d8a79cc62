"""Valid files, each written into an empty folder by a function that is made here."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def a_file(name: str, text: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode() if isinstance(text, str) else text
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return make


def a_json(name: str, value: Any) -> Callable[[Path], Path]:
    return a_file(name, json.dumps(value))


def a_table(
    name: str, rows: list[dict[str, Any]], also: Callable[[Path], Any] = lambda folder: None
) -> Callable[[Path], Path]:
    """A table, and what lies beside it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    make = a_file(name, text.getvalue())

    def both(folder: Path) -> Path:
        also(folder)
        return make(folder)

    return both


def a_picture(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import numpy as np
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, **options)
        return folder / name

    return make
