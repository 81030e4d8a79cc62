"""Pages that are drawn and processed once: for data sets that are small enough to stay in memory and are trained for several epochs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.qa.items import QA_KEYS

from .examples import InkLoader

__all__ = ["RememberedInk", "RememberedPages", "remember_processing"]

_Loaded = TypeVar("_Loaded")

_MARK = "remembered page"  # in the ``info`` of an image
# What is asked about a page; all else says which page it is.
_ASKED = {*QA_KEYS, "conversations", "messages"} - {"record"}


class RememberedPages:
    """An image loader that keeps the first images it loads, and marks them for `remember_processing`.

    Memory: width × height × 4 bytes a page, in each worker process of the data loader; a worker that lives for one epoch forgets, so
    use none, or ``dataloader_persistent_workers``. An example that holds the image itself, not where it lies, is not kept.

    Args:
        load_image: Example → PIL image, the same each time.
        limit: How many images are kept.

    Raises:
        ValueError: ``limit`` below 1, or a loader whose images are new each time.

    Example:
        >>> load = RememberedPages(lambda example: Image.new("L", (8, 8)), limit=1)
        >>> load({"id": "a"}) is load({"id": "a"}), load({"id": "b"}) is load({"id": "b"})
        (True, False)
    """

    def __init__(self, load_image: Callable[[Mapping[str, Any]], Image.Image], limit: int) -> None:
        check_at_least("remember_pages", limit, 1)
        if hasattr(load_image, "fingerprint"):
            load_image.fingerprint()  # raises where each image is new, so that there is nothing to remember
        self.load_image = load_image
        self.limit = limit
        self._kept: dict[str, Any] = {}

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The image of an example, loaded once."""
        return self._load(example, self.load_image)

    def _load(self, example: Mapping[str, Any], load: Callable[[Mapping[str, Any]], _Loaded]) -> _Loaded:
        """What a loader gives for an example, an image or a tuple that begins with one, loaded once."""
        place = {field: value for field, value in example.items() if field not in _ASKED}
        name = repr(sorted(place.items()))
        if name not in self._kept:
            loaded = load(example)
            plain = all(value is None or isinstance(value, str | int | float | Path) for value in place.values())
            if len(self._kept) >= self.limit or not plain:
                return loaded
            image: Any = loaded[0] if isinstance(loaded, tuple) else loaded
            image.info[_MARK] = name
            self._kept[name] = loaded
        kept: _Loaded = self._kept[name]
        return kept


class RememberedInk(RememberedPages):
    """`RememberedPages` of a loader that knows where on its pages the traces are, with that; 64 KiB more a page.

    Args:
        load_image: Example → PIL image, with a method ``with_ink``.
        limit: How many pages are kept.

    Raises:
        ValueError: As `RememberedPages`.

    Example:
        >>> from hf_evl_ecg.data.rendered import RenderedECG
        >>> load, example = RememberedInk(RenderedECG(), limit=1), {"record": "AF/0", "storage": "simulated", "root": ""}
        >>> load.with_ink(example)[1] is load.with_ink(example)[1]
        True
    """

    load_image: InkLoader

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The image of an example, loaded once."""
        return self.with_ink(example)[0]

    def with_ink(self, example: Mapping[str, Any]) -> tuple[Image.Image, np.ndarray]:
        """The image and the map of its traces, both made once."""
        return self._load(example, self.load_image.with_ink)


def remember_processing(processor: Any) -> Any:
    """A processor that processes each image of `RememberedPages` once; the one that is given stays as it is.

    Args:
        processor: Any processor of images and text whose image processor gives one row, or one entry of a list, per image.

    Returns:
        A shallow copy with the same tokenizer. Memory: the processor's output of each page that is kept.
    """
    remembering = copy.copy(processor)
    remembering.image_processor = _RememberingImages(processor.image_processor)
    return remembering


class _RememberingImages:
    """An image processor that keeps its output of marked images."""

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._outputs: dict[tuple[Any, str], Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_image_processor":  # not there yet while this is copied or unpickled
            raise AttributeError(name)
        return getattr(self._image_processor, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        """What the image processor gives for all images, each of which is processed alone."""
        flat = [image for own in images for image in (own if isinstance(own, list | tuple) else [own])]
        names = [getattr(image, "info", {}).get(_MARK) for image in flat]
        if not flat or None in names:
            return self._image_processor(images, **options)
        key = repr(sorted(options.items(), key=str))
        for name, image in zip(names, flat, strict=True):
            if (name, key) not in self._outputs:
                self._outputs[name, key] = self._image_processor([[image]], **options)
        outputs = [self._outputs[name, key] for name in names]
        merged = {field: _joined([output[field] for output in outputs]) for field in outputs[0]}
        if any(value is None for value in merged.values()):  # rows of other sizes are padded to each other
            return self._image_processor(images, **options)
        return type(outputs[0])(data=merged)


def _joined(values: Sequence[Any]) -> Any:
    """Rows of all images below each other, or None if they do not fit."""
    if isinstance(values[0], Tensor):
        same = len({value.shape[1:] for value in values}) == 1
        return torch.cat(list(values)) if same else None
    if isinstance(values[0], list):
        return [entry for value in values for entry in value]
    return None
