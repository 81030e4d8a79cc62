"""Which pictures a model was asked about: a digest of each, and whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from hf_evl_ecg.chat.examples import example_key, record_name

__all__ = ["FingerprintedImages", "changed_picture", "picture_digest"]

LoadImage = Callable[[Mapping[str, Any]], Image.Image]


@runtime_checkable
class FingerprintedImages(Protocol):
    """An image loader that can say how it draws, such as `hf_evl_ecg.data.rendered.RenderedECG`."""

    def fingerprint(self) -> str:
        """The same only where every picture is the same."""


def picture_digest(image: Image.Image) -> str:
    """BLAKE2b over mode, size and pixels of a picture, as 16 hexadecimal digits.

    Example:
        >>> white, black = (Image.new("L", (2, 2), value) for value in (255, 0))
        >>> picture_digest(white) == picture_digest(white.copy()) != picture_digest(black)
        True
    """
    digest = hashlib.blake2b(f"{image.mode}{image.size}".encode(), digest_size=8)
    digest.update(image.tobytes())
    return digest.hexdigest()


def changed_picture(
    digests: Mapping[str, str], items: Sequence[Mapping[str, Any]], load_image: LoadImage, *, at_most: int = 32
) -> str | None:
    """Draw some records again, evenly chosen, and compare their pictures with those of before.

    A layout, a gain or a resolution changes every picture or those of a whole source, so a few tell; drawing all of them
    would take longer than reading the answers.

    Args:
        digests: Key of an item → `picture_digest` when it was answered.
        items: The questions; those without a digest, and records that cannot be read now, are passed over.
        load_image: Item → PIL image.
        at_most: Records to draw.

    Returns:
        Name of the first record whose picture is another; None: all that were compared are the same.
    """
    answered = {record_name(item): item for item in items if example_key(item) in digests}
    records = list(answered)
    step = max(1, -(-len(records) // at_most))
    for record in records[::step]:
        item = answered[record]
        try:
            image = load_image(item)
        except (OSError, ValueError):  # a record that is gone says nothing, and is not asked about again
            continue
        if picture_digest(image) != digests[example_key(item)]:
            return record
    return None
