"""What a user hands in (a recording of any format, an `ECG`, a picture, a page) → the picture a model sees, drawn as in its training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.clinical.archive import unzipped
from hf_evl_ecg.clinical.content import recognise
from hf_evl_ecg.clinical.pages import PAGE_KINDS, open_page
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import blank_leads, cut_leads
from hf_evl_ecg.drawing.image_file import open_picture, upright_rgb
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.records.paths import find_file
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

__all__ = ["IMAGE_SUFFIXES", "READ_S", "ECGPicture", "is_image_file", "load_picture", "read_source"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

READ_S = 60.0  # of a record; layouts show 10 s
MIN_SIDE_PX = 32  # below this not even an ECG's rows can be told apart


@dataclass(frozen=True)
class ECGPicture:
    """A picture of an ECG in RGB, what it is called, and how long it took.

    Attributes:
        name: The record's or file's name, for messages.
        image: RGB.
        ecg: The recording it was drawn from; None if the picture itself was given.
        seconds: ``"read"`` and ``"render"``.
        unseen_leads: Leads that the drawing does not show in full: cut at its edge, not recorded, or beyond a short recording's end.
    """

    name: str
    image: Image.Image
    ecg: ECG | None
    seconds: dict[str, float]
    unseen_leads: tuple[str, ...] = ()


def is_image_file(path: str | Path) -> bool:
    """Whether a file name ends like a picture's; PDF pages and HEIC photographs are known by their content.

    Example:
        >>> is_image_file("scan.PNG"), is_image_file("ludb/data/1.dat")
        (True, False)
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def read_source(
    path: str | Path,
    *,
    nan: Literal["raise", "interpolate"] = "raise",
    gain_per_mv: float | None = None,
    page: int | None = None,
    start_s: float = 0.0,
    duration_s: float = READ_S,
) -> ECG | Image.Image:
    """Read what lies at a path: some seconds of a recording, or a picture in RGB, upright and on white.

    Args:
        path: A WFDB record (without suffix, or its header or signal file), a file of another format, a picture, a PDF, a HEIC photograph,
            or a zip archive with one of these.
        nan: As in `read_record`, of recordings only.
        gain_per_mv: As in `read_record`, of WFDB records only.
        page: Number of the page of a PDF, from 1; None where it has only one.
        start_s: Where in a recording to begin.
        duration_s: How much of it to read.

    Raises:
        ECGRecordError: A recording or page that cannot be read.
        UnreadableImageError: A picture that cannot be read, has several pages, or is too small to show an ECG.
        ValueError: An option that does not fit what lies there.

    Example:
        >>> read_source("records/af").duration_s
        10.0
    """
    with unzipped(path) as inside:
        file = find_file(inside)
        kind = recognise(file) if file else None
        if kind not in (*PAGE_KINDS, "a picture") and not is_image_file(inside):
            if page is not None:
                raise ValueError(f"page={page}: {path} is no PDF (leave it out)")
            return read_record(inside, nan=nan, gain_per_mv=gain_per_mv, duration_s=duration_s, start_s=start_s)
        if start_s:
            raise ValueError(f"start={start_s:g}: {path} is a picture (start and every are for recordings)")
        if gain_per_mv is not None or nan != "raise":
            raise ValueError(f"record={path}: is a picture (gain_per_mv and missing are for records)")
        if file is not None and kind in PAGE_KINDS:
            return _rgb(open_page(file, kind, page), str(path))
        if page not in (None, 1):
            raise ValueError(f"page={page}: {path} is no PDF (leave it out)")
        return _open(inside, str(path))


def load_picture(
    source: str | Path | ECG | Image.Image, config: RenderConfig | None = None, page: int | None = None
) -> ECGPicture:
    """Read and draw a recording, or open a picture; pictures stay as they are, upright and on white.

    Args:
        source: Path of a recording, a picture or a page, as in `read_source`, an `ECG`, or a picture.
        config: How recordings are drawn; the default `RenderConfig` if None.
        page: As in `read_source`.

    Raises:
        ECGRecordError: A record or page that cannot be read.
        UnreadableImageError: A picture that cannot be read, has several pages, or is too small to show an ECG.
        TypeError: Something else.
    """
    started = time.perf_counter()
    if not isinstance(source, str | Path | ECG | Image.Image):
        raise TypeError(
            f"source of type {type(source).__name__}: the path of a record or picture, an ECG or a picture is needed"
        )
    if isinstance(source, str | Path):
        name, ecg = str(source), read_source(source, page=page)
    elif isinstance(source, ECG):
        name, ecg = source.record_name or "ECG", source
    else:
        name, ecg = "image", _rgb(source, "image")
    if isinstance(ecg, Image.Image):
        return ECGPicture(name, ecg, None, {"read": time.perf_counter() - started, "render": 0.0})
    read = time.perf_counter()
    config = config or RenderConfig()
    image = render(ecg, config).convert("RGB")
    seconds = {"read": read - started, "render": time.perf_counter() - read}
    unseen = {*cut_leads(ecg, config), *blank_leads(ecg, config)}
    return ECGPicture(name, image, ecg, seconds, tuple(lead for lead in STANDARD_LEADS if lead in unseen))


def _open(path: Path, name: str) -> Image.Image:
    try:
        with open_picture(path) as opened:
            return _rgb(opened, name)
    except UnreadableImageError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(name, f"no image: {type(error).__name__}: {error}") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < MIN_SIDE_PX:
        reason = f"{image.width} × {image.height} pixels: an ECG needs at least {MIN_SIDE_PX} at each side"
        raise UnreadableImageError(name, reason)
    try:
        return upright_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(name, f"no image: {type(error).__name__}: {error}") from error
