"""The first half of a method: how vectors are turned before some of their coordinates are coded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hf_mic.codes.rotation import random_orthogonal
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.frozen.vectors import principal_axes, unit_rows
from hf_mic.options import check_choice

__all__ = ["Method", "apply_map", "fit_mapping"]

Floats = NDArray[np.float32]
TYPES = ("truncation", "pca", "random", "map", "pq", "opq")
SEEDED = ("random", "map")
CHUNK = 16384


@dataclass(frozen=True)
class Method:
    """How vectors become so many bytes, without the code, which depends on the size.

    Attributes:
        type: ``"truncation"``: the first coordinates; ``"pca"``: principal axes; ``"random"``: a random rotation of the full
            width, as RaBitQ has it; ``"map"``: :func:`hf_mic.frozen.fit_map`; ``"pq"`` and ``"opq"``: product quantisation,
            plain and after a learned rotation, of faiss.
        centred: Subtract the mean of the rows that are fitted on (``pca`` only).
        turned: Whether a random rotation of the kept coordinates precedes the code; ``None``: whichever did better on
            validation data.
        bits: Bits per coordinate among which the code is chosen.
        config: Settings of the map, as for :class:`hf_mic.frozen.AdaptConfig`.

    Raises:
        ValueError: If a value is none of these, or has no effect for the type.
    """

    type: Literal["truncation", "pca", "random", "map", "pq", "opq"]
    centred: bool = False
    turned: bool | None = False
    bits: tuple[int, ...] = (1, 2, 4, 8)
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("type", self.type, TYPES)
        if self.centred and self.type != "pca":
            raise ValueError(f"centred=True has no effect with type={self.type!r} (use it with 'pca')")
        if self.config and self.type != "map":
            raise ValueError(f"config has no effect with type={self.type!r} (use it with 'map')")

    @property
    def is_product(self) -> bool:
        """Whether faiss codes groups of coordinates, instead of each by itself."""
        return self.type in ("pq", "opq")

    @property
    def is_seeded(self) -> bool:
        """Whether another seed gives another result worth a row."""
        return self.type in SEEDED


def fit_mapping(method: Method, rows: Floats, seed: int = 0) -> Callable[[Floats], Floats]:
    """Fit what a method does before it codes.

    Args:
        method: A method that codes coordinates by themselves.
        rows: Unit vectors. Shape: (N, D).
        seed: Seed of a random rotation or of the fit.

    Returns:
        A function from vectors (M, D) to coordinates in the order in which they are kept, (M, D).

    Example:
        >>> rows = np.eye(4, dtype=np.float32)
        >>> turn = fit_mapping(Method("random"), rows)
        >>> np.allclose(turn(rows) @ turn(rows).T, rows, atol=1e-6)  # angles stay
        True
    """
    width = rows.shape[1]
    if method.type == "map":
        return apply_map(fit_map(rows, AdaptConfig(**{**method.config, "seed": seed}), progress=False))
    mean = torch.zeros(width)
    if method.type == "pca":
        axes = principal_axes(rows)
        if method.centred:
            mean = torch.from_numpy(rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    elif method.type == "random":
        axes = torch.from_numpy(random_orthogonal(width, seed))
    else:
        return lambda vectors: _in_chunks(vectors, lambda part: part)
    return lambda vectors: _in_chunks(vectors, lambda part: (part - mean) @ axes)


def apply_map(prefix_map: PrefixMap) -> Callable[[Floats], Floats]:
    """A fitted map as a function from vectors (M, D) to all mapped coordinates (M, D)."""
    return lambda vectors: _in_chunks(vectors, prefix_map.forward)


def _in_chunks(vectors: Floats, apply: Callable[[torch.Tensor], torch.Tensor]) -> Floats:
    with torch.no_grad():
        parts = [apply(unit_rows(vectors[i : i + CHUNK], i)).numpy() for i in range(0, len(vectors), CHUNK)]
    return np.concatenate(parts)
