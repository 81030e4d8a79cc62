"""Where images come from: files, decoded the same way for training and for questions, or ECGs drawn when they are needed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from hf_evl_ecg.augment import AugmentConfig, render_augmented
from hf_evl_ecg.render import RenderConfig, render
from hf_evl_ecg.rows import load_ecg

__all__ = ["ImageFile", "RenderedECG", "upright_rgb"]


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
        raise ValueError(f"{pages} pages; give one page")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        values = np.asarray(upright)
        if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of mode {upright.mode!r}; give 8 bits per colour, or 16 bits of grey")
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
    """

    root: str | Path | None = None

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The image as `upright_rgb` gives it."""
        image = example.get("image")
        if isinstance(image, Image.Image):
            return upright_rgb(image)
        if not isinstance(image, str | Path):
            raise ValueError(f"'image' is {type(image).__name__}; a PIL image or a file name is needed.")
        if self.root is None:
            raise ValueError(f"'image' is the file name {str(image)!r}; name its folder with ImageFile(root=…).")
        path = (Path(self.root) / image).resolve()
        if not path.is_relative_to(Path(self.root).resolve()):
            raise ValueError(f"the file name {str(image)!r} leads out of {self.root}.")
        with Image.open(path) as opened:
            return upright_rgb(opened)


@dataclass(frozen=True)
class RenderedECG:
    """Reads the ECG that an example names and draws it; runs in the data loader's workers, so no images are stored.

    Attributes:
        config: Paper and layout; the default `RenderConfig` if None.
        augment: Artefacts to draw from; None draws clean paper.
        seed: The artefacts of a record follow from this number and the record's name, so they are the same each time.
            None draws new ones each time, from torch's random state; a teacher cache needs a number.

    Example:
        >>> EVLECGCollator(student_processor, load_image=RenderedECG())  # doctest: +SKIP
    """

    config: RenderConfig | None = None
    augment: AugmentConfig | None = None
    seed: int | None = 0

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The picture of the ECG that `hf_evl_ecg.rows.load_ecg` reads, in RGB."""
        ecg, config = load_ecg(example), self.config or RenderConfig()
        if self.augment is None:
            return render(ecg, config).convert("RGB")
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        name = zlib.crc32(str(example["record"]).encode())
        return render_augmented(ecg, config, self.augment, (seed, name)).convert("RGB")

    def fingerprint(self) -> str:
        """What a teacher cache is told about the images.

        Raises:
            ValueError: If the images are drawn anew each time, so that cached features would belong to others.
        """
        if self.augment is not None and self.seed is None:
            raise ValueError("artefacts that are new each time cannot be cached; give RenderedECG a seed.")
        augment = None if self.augment is None else asdict(self.augment)
        parts = [(self.config or RenderConfig()).fingerprint(), augment, self.seed if augment else None]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
