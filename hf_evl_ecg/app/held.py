"""The ECGs that visitors have loaded, under keys that nobody can guess; bounded in bytes and in time."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from .uploads import GivenECG

__all__ = ["HeldECGs", "held_bytes"]


def held_bytes(given: GivenECG) -> int:
    """How much memory an ECG takes (bytes): its samples, or the pixels of its picture.

    Example:
        >>> held_bytes(GivenECG("scan.png", Image.new("RGB", (20, 10))))
        600
    """
    if isinstance(given.source, Image.Image):
        return given.source.width * given.source.height * len(given.source.getbands())
    return given.source.signal_mv.nbytes


class HeldECGs:
    """ECGs by key. When they are too many, those go that were not asked about for longest; each goes after some time.

    Args:
        max_bytes: Most memory of all together (bytes); the newest is held in any case.
        max_age_s: How long one is held (s).
        clock: Seconds that only grow.

    Example:
        >>> held = HeldECGs(max_bytes=1000)
        >>> scan = GivenECG("scan.png", Image.new("RGB", (20, 10)))
        >>> first, second = held.keep(scan), held.keep(scan)
        >>> held.get(first) is None, held.get(second) is scan
        (True, True)
    """

    def __init__(self, max_bytes: int, max_age_s: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, GivenECG]] = OrderedDict()  # the longest unused first

    def keep(self, given: GivenECG) -> str:
        """Hold an ECG; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._held[key] = (self._clock(), given)
            self._forget_old()
            total = sum(held_bytes(kept) for _, kept in self._held.values())
            while total > self.max_bytes and len(self._held) > 1:
                _, (_, gone) = self._held.popitem(last=False)
                total -= held_bytes(gone)
        return key

    def get(self, key: str | None) -> GivenECG | None:
        """The ECG of a key, or None if it is no longer held."""
        with self._lock:
            self._forget_old()
            if key is None or key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][1]

    def drop(self, key: str | None) -> None:
        """Hold an ECG no longer; a key that is not known changes nothing."""
        with self._lock:
            self._held.pop(key or "", None)

    def total_bytes(self) -> int:
        """Memory of all ECGs (bytes)."""
        with self._lock:
            return sum(held_bytes(given) for _, given in self._held.values())

    def _forget_old(self) -> None:
        oldest = self._clock() - self.max_age_s
        for key in [key for key, (since, _) in self._held.items() if since < oldest]:
            del self._held[key]
