"""What a teacher cache is on disk: its layout, its header, the lists of its shards.

A cache is a folder with ``cache.json`` (what the features are and what they were computed from) and, for each shard,
``NNN-NNNNN-XXXXXXXX.safetensors`` and a ``.json`` beside it that lists the examples and the SHA-256 of each. The
``.json`` is written last: a shard without one does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.models.features import FeatureRequest

__all__ = [
    "DTYPES",
    "FORMAT",
    "CacheLayout",
    "CacheMismatchError",
    "DamagedShardError",
    "compare_headers",
    "damaged_shard",
    "read_header",
    "read_shards",
]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
FORMAT = 3


class CacheMismatchError(ValueError):
    """A cache that was made from something else, or does not hold what is asked for."""


class DamagedShardError(ValueError):
    """A shard that is missing, cut short or altered."""


@dataclass(frozen=True)
class CacheLayout:
    """What a cache holds for each example.

    Attributes:
        layers: Hidden states to keep; -1 is the last one, after the final norm.
        tokens: Tokens they cover: ``"all"``, ``"visual"`` or ``"answer"``.
        visual: Keep the projector's outputs.
        visual_pool: Average this many consecutive image tokens into one.
        positions: Keep where on the image each visual token lies.
        visual_weights: Keep what each visual token is worth, and a map of it, from this source; ``"uniform"``: do not.
        top_k: Answer log-probabilities to keep per token; 0 keeps none.
        dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``; log-probabilities are always float32.
    """

    layers: tuple[int, ...] = (-1,)
    tokens: str = "all"
    visual: bool = True
    visual_pool: int = 1
    top_k: int = 64
    dtype: str = "bfloat16"
    positions: bool = False
    visual_weights: str = "uniform"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("layers=(): at least one is needed")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must be at least 0 (0 keeps no log-probabilities)")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: choose one of {', '.join(map(repr, sorted(DTYPES)))}")
        self.request(self.layers[0])

    def tensors(self) -> list[str]:
        """Names of the tensors of an example."""
        names = [f"hidden.{layer}" for layer in self.layers] + ["answer_ids", "answer_index", "places"]
        names += ["visual"] if self.visual else []
        names += ["visual_positions"] if self.positions else []
        names += ["visual_weights", "visual_map"] if self.visual_weights != "uniform" else []
        names += ["top_log_probs", "top_ids"] if self.top_k else []
        return names

    def request(self, layer: int) -> FeatureRequest:
        """The request that a cache of this layout answers."""
        return FeatureRequest(
            tokens=self.tokens,  # type: ignore[arg-type]
            layer=layer,
            visual=self.visual,
            logits=self.top_k > 0,
            visual_pool=self.visual_pool,
            positions=self.positions,
            places=True,  # two numbers a token beside thousands: the same cache serves every form of attention
            visual_weights=self.visual_weights,  # type: ignore[arg-type]
        )


def compare_headers(cached: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise `CacheMismatchError` on the first expected entry that a cache does not have."""
    for name, value in expected.items():
        held = cached.get(name)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            compare_headers(held, value, folder)
        elif held != value:
            raise CacheMismatchError(
                f"the cache {folder} was made with {name}={held!r:.100}, expected is {value!r}; use another folder or write "
                "the cache anew."
            )


def read_header(folder: Path) -> dict[str, Any]:
    """``cache.json`` of a cache.

    Raises:
        CacheMismatchError: It is not there, damaged, or of another version.
    """
    path = folder / "cache.json"
    try:
        header = read_json(path)
    except (OSError, ValueError) as error:
        raise CacheMismatchError(f"{folder} holds no readable teacher cache: {error}") from error
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version != FORMAT:
        raise CacheMismatchError(
            f"{path} has format {version!r:.40}; this version reads format {FORMAT}: write the cache anew."
        )
    kinds = {"fingerprint": dict, "layout": dict, "hidden_dim": int, "vocab_size": int}
    wrong = [name for name, kind in kinds.items() if type(header.get(name)) is not kind]
    problem = f"{wrong[0]} is missing or of another type" if wrong else _layout_problem(header["layout"])
    if problem:
        raise CacheMismatchError(f"{path} is damaged ({problem:.300}): write the cache anew.")
    return header


def _layout_problem(stored: Mapping[str, Any]) -> str | None:
    """Why no `CacheLayout` can be made of what a header says."""
    defaults = {field.name: field.default for field in fields(CacheLayout)}
    for name, value in stored.items():
        if name not in defaults:
            return f"layout has no {name[:40]!r}"
        numbers = name == "layers" and isinstance(value, list) and all(type(layer) is int for layer in value)
        if not numbers and (name == "layers" or type(value) is not type(defaults[name])):
            return f"layout: {name} is a {type(value).__name__}"
    try:
        CacheLayout(**stored)
    except ValueError as error:
        return f"layout: {error}"
    return None


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """The lists of examples of all complete shards; a file name must be the list's own."""
    shards = []
    for path in sorted(folder.glob("[0-9]*-[0-9]*-*.json")):
        try:
            shard = read_json(path)
            complete = shard["file"] == path.with_suffix(".safetensors").name and dict(shard["examples"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged_shard(path, str(error)) from error
        if not complete:
            raise damaged_shard(path, "it lists another file or nothing")
        shards.append(shard)
    return shards


def damaged_shard(path: Path, why: str) -> DamagedShardError:
    """The error for a shard, with what to delete so that the writer makes it again."""
    stem = path.with_suffix("")
    return DamagedShardError(
        f"shard {path} is damaged ({why:.300}); delete {stem}.safetensors and {stem}.json and run the writer again."
    )
