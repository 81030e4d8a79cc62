"""What a user hands in (a WFDB record, an `ECG`, a picture) → the picture a model sees, drawn as in its training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.fit import blank_leads, cut_leads
from hf_evl_ecg.drawing.image_file import upright_rgb
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.records.reader import read_record
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS

__all__ = ["IMAGE_SUFFIXES", "READ_S", "ECGPicture", "is_image_file", "load_picture"]

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
    """Whether a file name ends like a picture's.

    Example:
        >>> is_image_file("scan.PNG"), is_image_file("ludb/data/1.dat")
        (True, False)
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def load_picture(source: str | Path | ECG | Image.Image, config: RenderConfig | None = None) -> ECGPicture:
    """Read and draw a recording, or open a picture; pictures stay as they are, upright and on white.

    Args:
        source: Path of a WFDB record (without suffix, or its header or signal file) or of a picture, an `ECG`, or a picture.
        config: How recordings are drawn; the default `RenderConfig` if None.

    Raises:
        ECGRecordError: A record that cannot be read.
        UnreadableImageError: A picture that cannot be read, has several pages, or is too small to show an ECG.
        TypeError: Something else.
    """
    started = time.perf_counter()
    if isinstance(source, Image.Image):
        return ECGPicture("image", _rgb(source, "image"), None, {"read": time.perf_counter() - started, "render": 0.0})
    if not isinstance(source, str | Path | ECG):
        raise TypeError(
            f"source of type {type(source).__name__}: the path of a record or picture, an ECG or a picture is needed"
        )
    if isinstance(source, str | Path) and is_image_file(source):
        image = _open(Path(source))
        return ECGPicture(str(source), image, None, {"read": time.perf_counter() - started, "render": 0.0})
    ecg = source if isinstance(source, ECG) else read_record(source, duration_s=READ_S)
    name = str(source) if isinstance(source, str | Path) else ecg.record_name or "ECG"
    read = time.perf_counter()
    config = config or RenderConfig()
    image = render(ecg, config).convert("RGB")
    seconds = {"read": read - started, "render": time.perf_counter() - read}
    unseen = {*cut_leads(ecg, config), *blank_leads(ecg, config)}
    return ECGPicture(name, image, ecg, seconds, tuple(lead for lead in STANDARD_LEADS if lead in unseen))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return _rgb(opened, str(path))
    except UnreadableImageError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(path), f"no image: {type(error).__name__}: {error}") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < MIN_SIDE_PX:
        reason = f"{image.width} × {image.height} pixels: an ECG needs at least {MIN_SIDE_PX} at each side"
        raise UnreadableImageError(name, reason)
    try:
        return upright_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(name, f"no image: {type(error).__name__}: {error}") from error
