"""Picture files, decoded the same way for training and for questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ["ImageFile", "open_picture", "upright_rgb"]

# Room is taken for what a file states before its pixels are decoded; a page in black and white, as a fax packs it, has 1,000 a byte.
MAX_PIXELS_PER_BYTE, SMALL_PIXELS = 2000, 4_000_000
FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF")


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture, not yet decoded, of a format in which pages are drawn, scanned or photographed; HEIC is read elsewhere.

    Others are not tried, whatever the file is called: Pillow starts Ghostscript for what begins as PostScript does.

    Raises:
        OSError: It is none of these, not there, or states far more pixels than its bytes can hold.
    """
    Image.init()
    image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    size = Path(path).stat().st_size
    if image.width * image.height > max(SMALL_PIXELS, MAX_PIXELS_PER_BYTE * size):
        image.close()
        raise OSError(f"{image.width} × {image.height} pixels are stated in {size} bytes: it is damaged")
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture fully decoded in 8-bit RGB, turned as its EXIF data say, transparent parts white; 16-bit grey is scaled down.

    Raises:
        ValueError: More than one page, or pixels without a fixed white (32-bit whole or floating-point numbers).
        OSError: The file behind it is damaged.

    Example:
        >>> upright_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"{pages} pages: one is needed")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):  # Pillow's own conversion to 8 bits cuts off at 255
        values = np.asarray(upright)
        if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of mode {upright.mode!r}: 8 bits per colour or 16 bits of grey are needed")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    rgba = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@dataclass(frozen=True)
class ImageFile:
    """Reads ``example["image"]``: a PIL image, or a file name inside a folder.

    Attributes:
        root: The folder; file names that lead out of it are refused. None: PIL images only.

    Example:
        >>> ImageFile()({"image": Image.new("L", (3, 2))}).mode
        'RGB'
    """

    root: str | Path | None = None

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The image as `upright_rgb` gives it.

        Raises:
            ValueError: There is none, its file name leads out of the folder, or the file is no whole picture.
            OSError: The file is not there, or may not be read.
        """
        image = example.get("image")
        if isinstance(image, Image.Image):
            return upright_rgb(image)
        if not isinstance(image, str | Path):
            raise ValueError(f"image={type(image).__name__}: a PIL image or a file name is needed")
        if self.root is None:
            raise ValueError(f"image={str(image)!r}: a file name needs a folder (ImageFile(root=…))")
        path = (Path(self.root) / image).resolve()
        if not path.is_relative_to(Path(self.root).resolve()):
            raise ValueError(f"image={str(image)!r}: it leads out of {self.root}")
        try:
            with open_picture(path) as opened:
                return upright_rgb(opened)
        except Exception as error:  # Pillow has errors of many kinds for damaged bytes, and most name no file
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(
                f"{path}: is no whole picture ({error}); allowed are {', '.join(FORMATS)} (copy or export it again)"
            ) from error
