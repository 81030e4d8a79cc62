"""Weights of the loss that change over a run: constant, linear warm-up, cosine to an end value, also below zero for relations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Schedules", "read_schedules", "schedule_factor"]

_TRAINS_SIDE = ("anchor_ce", "dskd_t2s_ce")  # these train what stands beside the student, which must be ready for it
_WEIGHT_OF = {"dskd_t2s": "dskd", "dskd_s2t": "dskd"}


def schedule_factor(progress: float, kind: str, value: float) -> float:
    """What a weight is multiplied by at some point of a run.

    - ``"warmup"``: from 0 to 1 along a line over the first ``value`` of the run (a share), then 1.
    - ``"cosine"``: from 1 to ``value`` along half a cosine over the whole run (arXiv 1608.03983, Eq. 5, without restarts).

    Args:
        progress: Share of the steps that are done, in [0, 1].
        kind: ``"warmup"`` or ``"cosine"``.
        value: Share of the run in (0, 1], or factor at the end.

    Example:
        >>> [schedule_factor(p, "warmup", 0.5) for p in (0, 0.25, 0.5, 1)]
        [0.0, 0.5, 1.0, 1.0]
        >>> [round(schedule_factor(p, "cosine", -1), 6) for p in (0, 0.5, 1)]
        [1.0, 0.0, -1.0]
    """
    if kind == "warmup":
        return min(1.0, progress / value)
    return value + (1 - value) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Schedules:
    """How the weights of a run change.

    Attributes:
        alpha: Share of the distillation terms, without a schedule.
        parts: ``"alpha"`` or name of a weight → its schedules, kind and value, which are multiplied.
    """

    alpha: float
    parts: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)

    def factor(self, term: str, progress: float) -> float:
        """What a weighted term is multiplied by.

        A schedule of alpha moves weight between the cross-entropy and all other terms. Cross-entropies that train the aligner
        or DSKD's projectors alone keep their weight, so that these are ready when the student begins to follow.

        Example:
            >>> schedules = Schedules(0.5, {"alpha": [("warmup", 0.5)], "relation": [("cosine", -1.0)]})
            >>> [schedules.factor(term, 0.0) for term in ("ce", "ot", "relation", "anchor_ce")]
            [2.0, 0.0, 0.0, 1.0]
            >>> [schedules.factor(term, 1.0) for term in ("ce", "ot", "relation", "anchor_ce")]
            [1.0, 1.0, -1.0, 1.0]
        """
        if term in _TRAINS_SIDE:
            return 1.0
        share = self._product("alpha", progress)
        if term == "ce":
            return (1 - self.alpha * share) / (1 - self.alpha)
        return share * self._product(_WEIGHT_OF.get(term, term), progress)

    def _product(self, name: str, progress: float) -> float:
        return math.prod(schedule_factor(progress, kind, value) for kind, value in self.parts.get(name, ()))


def read_schedules(entries: Sequence[str], weights: Mapping[str, float]) -> Schedules:
    """Read options such as ``alpha=warmup:0.1`` and ``relation=cosine:-0.5``.

    Args:
        entries: ``NAME=warmup:SHARE``: the weight rises from zero over the first SHARE of the run; ``NAME=cosine:END``: it goes
            to END, as ``lambda_NAME`` (or alpha) would give it. NAME is ``alpha``, for all terms of distillation together, or a
            weight such as ``mhca``, ``ot``, ``relation`` or ``uld``. Several for one name are multiplied.
        weights: Weight of each term, alpha times lambda, and ``"ce"``, one minus alpha.

    Raises:
        ValueError: An entry of another form, for a weight that is zero, or below zero for another term than the relations'.

    Example:
        >>> read_schedules(["relation=cosine:-0.5"], {"ce": 0.5, "relation": 0.5}).parts
        {'relation': [('cosine', -0.5)]}
    """
    alpha = 1 - weights["ce"]
    own = {name: weight / alpha for name, weight in weights.items() if weight > 0 and name not in ("ce", "anchor")}
    if 0 < alpha < 1 and own:
        own["alpha"] = alpha
    parts: dict[str, list[tuple[str, float]]] = {}
    for entry in entries:
        name, _, rest = entry.partition("=")
        kind, _, text = rest.partition(":")
        value = _number(text)
        if name not in own or kind not in ("warmup", "cosine") or value is None:
            raise ValueError(
                f"lambda_schedules={entry!r}: allowed are NAME=warmup:SHARE and NAME=cosine:END, with a NAME whose weight "
                f"is above 0: {', '.join(sorted(own)) or 'there is none'} (alpha needs a cross-entropy, alpha below 1)"
            )
        low, high = (
            (0.0, 1.0) if kind == "warmup" or name == "alpha" else (-math.inf if name == "relation" else 0.0, math.inf)
        )
        if not low <= value <= high or (kind == "warmup" and value == 0):
            raise ValueError(
                f"lambda_schedules={entry!r}: a share is above 0 and at most 1, an end value at least 0, that of alpha at "
                "most 1; only relation may end below 0"
            )
        parts.setdefault(name, []).append((kind, value if kind == "warmup" else value / own[name]))
    return Schedules(alpha, parts)


def _number(text: str) -> float | None:
    """The finite number that a text is."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
