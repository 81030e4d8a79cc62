"""ECGs drawn when they are needed: a row of a data set → its picture."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_evl_ecg.drawing.artefacts import AugmentConfig, sample_augmentation
from hf_evl_ecg.drawing.augment import augment, bend, render_augmented, restyle
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.ink import ink_map
from hf_evl_ecg.drawing.rendering import render, render_traces

from .load import load_ecg

__all__ = ["RenderedECG"]


@dataclass(frozen=True)
class RenderedECG:
    """Reads the ECG that an example names and draws it; runs in the data loader's workers, so no images are stored.

    Attributes:
        config: Paper and layout.
        augment: Artefacts to draw from; None draws clean paper.
        seed: The artefacts of a record follow from this number and the record's name, so they are the same each time.
            None draws new ones each time, from torch's random state; a teacher cache needs a number.

    Example:
        >>> draw = RenderedECG(RenderConfig(width_px=440, height_px=340))
        >>> draw({"record": "AF/0", "storage": "simulated", "root": ""}).size
        (440, 340)
    """

    config: RenderConfig = field(default_factory=RenderConfig)
    augment: AugmentConfig | None = None
    seed: int | None = 0

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The picture of the ECG that `hf_evl_ecg.data.load.load_ecg` reads, in RGB."""
        ecg = load_ecg(example)
        if self.augment is None:
            return render(ecg, self.config).convert("RGB")
        return render_augmented(ecg, self.config, self.augment, self._seed(example)).convert("RGB")

    def with_ink(self, example: Mapping[str, Any]) -> tuple[Image.Image, np.ndarray]:
        """The picture, and where on it the traces are: the page is drawn once.

        Returns:
            What a call returns, and the trace's share of each cell of the page, bent as the picture is (its blur is left
            out), as `hf_evl_ecg.drawing.ink.ink_map` gives it. Shape: (INK_CELLS, INK_CELLS), float32.
        """
        ecg = load_ecg(example)
        if self.augment is None:
            image, traced = render_traces(ecg, self.config)
            return image.convert("RGB"), ink_map(traced)
        augmentation = sample_augmentation(self.augment, self._seed(example))
        image, traced = render_traces(ecg, restyle(self.config, augmentation))
        bent = bend(Image.fromarray(traced), augmentation, beyond=0.0)
        return augment(image, augmentation).convert("RGB"), ink_map(np.asarray(bent))

    def _seed(self, example: Mapping[str, Any]) -> tuple[int, int]:
        """Of the artefacts: the data set's number, or a new one, and the record's name."""
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        # Not hash(): Python salts it, and every worker would draw other artefacts.
        return seed, zlib.crc32(str(example["record"]).encode())

    def fingerprint(self) -> str:
        """What a teacher cache records about the images: equal only where every picture is.

        Raises:
            ValueError: If the images are drawn anew each time, so that cached features would belong to others.
        """
        if self.augment is not None and self.seed is None:
            raise ValueError("seed=None: artefacts that are new each time cannot be cached (give RenderedECG a seed)")
        augment = None if self.augment is None else asdict(self.augment)
        parts = [self.config.fingerprint(), augment, self.seed if augment else None]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
