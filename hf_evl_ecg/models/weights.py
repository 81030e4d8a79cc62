"""Checkpoints tensor by tensor: reading safetensors or PyTorch shards, writing safetensors shards, one in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hf_evl_ecg.json_text import read_json

__all__ = ["ShardWriter", "checkpoint_shards", "iterate_tensors"]

_NAMES = ("model.safetensors", "pytorch_model.bin")


def checkpoint_shards(folder: str | Path) -> list[Path]:
    """Files that hold a checkpoint's weights; safetensors before PyTorch's, indexed shards before one file.

    Raises:
        ValueError: There are none, or the index is damaged or names files that are missing or lie elsewhere.
    """
    folder = Path(folder)
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            found = read_json(index)
            places = found.get("weight_map") if isinstance(found, dict) else None
            if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
                raise ValueError(
                    f"{index}: weight_map must say in which file each weight lies; download the checkpoint again"
                )
            names = sorted(set(places.values()))
            if bad := [
                n for n in names if "\0" in n or len(n) > 255 or Path(n).name != n or not (folder / n).is_file()
            ]:
                raise ValueError(
                    f"{index} names {bad!s:.200}, which are no files in {folder}; download the checkpoint again"
                )
            return [folder / n for n in names]
        if (folder / name).is_file():
            return [folder / name]
    raise ValueError(f"{folder} holds no weights; needed: one of {_NAMES}, or its shards with their .index.json")


def iterate_tensors(folder: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of every weight, shard by shard; PyTorch files are opened weights-only and memory-mapped.

    Raises:
        ValueError: As `checkpoint_shards`, or a file is damaged.
    """
    for path in checkpoint_shards(folder):
        with _whole(path):
            tensors: Any
            if path.suffix == ".safetensors":
                tensors = safe_open(path, framework="pt")
                names = list(tensors.keys())
            else:
                tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                names = list(tensors)
        for name in names:
            with _whole(path):
                tensor = tensors.get_tensor(name) if path.suffix == ".safetensors" else tensors[name]
            yield name, tensor


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """One error for whatever the libraries stumble over in damaged bytes."""
    try:
        yield
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({said[:300]}); download the checkpoint again") from error


class ShardWriter:
    """Collects tensors into safetensors shards of a limited size, with the index that `from_pretrained` reads.

    Args:
        folder: Where to write; must exist.
        max_shard_bytes: A shard is written before it would grow larger; one tensor may be larger alone.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = ShardWriter(folder)
        ...     writer.add("weight", torch.zeros(2))
        ...     writer.close()
        ...     list(iterate_tensors(folder))
        [('weight', tensor([0., 0.]))]
    """

    def __init__(self, folder: str | Path, max_shard_bytes: int = 4 * 10**9) -> None:
        self.folder = Path(folder)
        self.max_shard_bytes = max_shard_bytes
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor; it is written when its shard is full."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self.max_shard_bytes:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += size
        self._total += size

    def close(self) -> None:
        """Write what is left, give the shards their final names, and write the index if there are several."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).replace(self.folder / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            final = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._part(number).replace(self.folder / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(weight_map.items()))}
        text = json.dumps(index, indent=2) + "\n"
        (self.folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _flush(self) -> None:
        if self._pending:
            save_file(self._pending, self._part(len(self._shards)), metadata={"format": "pt"})
            self._shards.append(list(self._pending))
            self._pending, self._pending_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"
