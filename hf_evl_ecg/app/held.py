"""The ECGs that visitors have loaded, under keys that nobody can guess; bounded in bytes and in time."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from .uploads import GivenECG

__all__ = ["HeldECGs", "Loaded"]


@dataclass
class Loaded:
    """An ECG that a visitor has loaded, and what the page shows of it.

    Attributes:
        given: The ECG.
        figure: The ECG as HTML.
        cards: What each model has answered so far, as HTML.
        scores: The label scores as HTML.
    """

    given: GivenECG
    figure: str
    cards: list[str] = field(default_factory=list)
    scores: str = ""

    def n_bytes(self) -> int:
        """How much memory it takes (bytes): samples or the pixels of a picture, and the page.

        Example:
            >>> Loaded(GivenECG("scan.png", Image.new("RGB", (20, 10))), "<p>").n_bytes()
            603
        """
        page = len(self.figure) + sum(map(len, self.cards)) + len(self.scores)
        if isinstance(self.given.source, Image.Image):
            return page + self.given.source.width * self.given.source.height * len(self.given.source.getbands())
        return page + self.given.source.signal_mv.nbytes


class HeldECGs:
    """ECGs by key. When they are too many, those go that were not asked about for longest; each goes after some time.

    Args:
        max_bytes: Most memory of all together (bytes); the newest is held in any case.
        max_age_s: How long one is held (s).
        clock: Seconds that only grow.

    Example:
        >>> held = HeldECGs(max_bytes=1000)
        >>> scan = Loaded(GivenECG("scan.png", Image.new("RGB", (20, 10))), "<p>")
        >>> first, second = held.keep(scan), held.keep(scan)
        >>> held.get(first) is None, held.get(second) is scan
        (True, True)
    """

    def __init__(self, max_bytes: int, max_age_s: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, Loaded]] = OrderedDict()  # the longest unused first

    def keep(self, loaded: Loaded) -> str:
        """Hold an ECG; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._held[key] = (self._clock(), loaded)
            self._forget_old()
            total = sum(kept.n_bytes() for _, kept in self._held.values())
            while total > self.max_bytes and len(self._held) > 1:
                _, (_, gone) = self._held.popitem(last=False)
                total -= gone.n_bytes()
        return key

    def get(self, key: str | None) -> Loaded | None:
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
        """Memory of all of them (bytes)."""
        with self._lock:
            return sum(loaded.n_bytes() for _, loaded in self._held.values())

    def _forget_old(self) -> None:
        oldest = self._clock() - self.max_age_s
        for key in [key for key, (since, _) in self._held.items() if since < oldest]:
            del self._held[key]
