"""One page of a PDF, or a photograph of a phone (HEIC), as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.signals.errors import ECGRecordError

from .libraries import library, read_by
from .recording import read_whole

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PAGE_KINDS", "open_page"]

PAGE_KINDS = ("PDF", "HEIC")
MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
DOTS_PER_INCH = 200  # a small square of ECG paper, 1 mm, is 8 pixels
_POINTS_PER_INCH = 72


def open_page(path: Path, kind: str, page: int | None = None) -> Image.Image:
    """A page of a PDF at 200 dots per inch, or a HEIC photograph, upright.

    Args:
        path: The file.
        kind: "PDF" or "HEIC".
        page: Number of the page, from 1; None where there is only one.

    Raises:
        ECGRecordError: The file is damaged or too large, has no such page or several and none is chosen, or a library is missing.
    """
    if kind == "PDF":
        return _pdf_page(path, page)
    if page not in (None, 1):
        raise ECGRecordError(path, "page", page, "1, as it is one photograph")
    return _photograph(path)


def _pdf_page(path: Path, page: int | None) -> Image.Image:
    data = read_whole(path, "PDF", MAX_BYTES)
    pdfium = library(path, "PDF", "pypdfium2")

    def parse() -> Any:
        with pdfium.PdfDocument(data) as document:
            pages = len(document)
            number = page if page is not None else 1
            if (page is None and pages != 1) or not 1 <= number <= pages:
                allowed = f"1 to {pages}: the page with the ECG (--page N, page=N)"
                raise ECGRecordError(path, "page", f"one of {pages}, not chosen" if page is None else page, allowed)
            opened = document[number - 1]
            width, height = opened.get_size()
            scale = DOTS_PER_INCH / _POINTS_PER_INCH
            _check_pixels(path, round(width * scale), round(height * scale))
            return opened.render(scale=scale).to_pil().convert("RGB")

    return read_by(path, "PDF", parse)[0]


def _photograph(path: Path) -> Image.Image:
    read_whole(path, "HEIC", MAX_BYTES)
    heif = library(path, "HEIC", "pillow_heif")

    def parse() -> Any:
        opened = heif.open_heif(path)
        _check_pixels(path, *opened.size)
        return opened.to_pillow().convert("RGB")

    return read_by(path, "HEIC", parse)[0]


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ECGRecordError(path, "picture", f"{width} x {height} pixels", f"at most {MAX_PIXELS}; scale it down")
