"""Run a teacher over a data set once and write what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.files import new_file, write_json
from hf_evl_ecg.models.features import extract_layers
from hf_evl_ecg.models.fingerprints import tensors_sha256
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.tokens import TokenFeatures

from .cache_files import DTYPES, FORMAT, CacheLayout, compare_headers, read_header, read_shards
from .teacher import OnlineTeacher

__all__ = ["TeacherCacheWriter"]


class TeacherCacheWriter:
    """Runs a teacher over batches and writes what it says; run again after a kill, it goes on where it stopped.

    Args:
        folder: Where to write; made if it is not there.
        teacher: The teacher.
        layout: What to keep.
        fingerprint: What the features depend on, by name: teacher revision, processor, render configuration, seed …
            Training compares it with what it expects.
        shard_size: Examples per shard.
        rank: Number of this process; several can write to one folder.

    Attributes:
        done: Keys of the examples that are written.
        skipped: What the collator left out, and why.

    Raises:
        CacheMismatchError: If the folder holds a cache of another fingerprint or layout.
    """

    def __init__(
        self,
        folder: str | Path,
        teacher: OnlineTeacher,
        layout: CacheLayout = CacheLayout(),  # noqa: B008 - frozen
        *,
        fingerprint: Mapping[str, Any],
        shard_size: int = 256,
        rank: int = 0,
    ) -> None:
        check_at_least("shard_size", shard_size, 1)
        self.folder = Path(folder)
        self.teacher = teacher
        self.layout = layout
        self.shard_size = shard_size
        self.rank = rank
        self.folder.mkdir(parents=True, exist_ok=True)
        text_config = base_model(teacher.model).config.get_text_config()
        header = {
            "format": FORMAT,
            "fingerprint": dict(fingerprint),
            "layout": {**asdict(layout), "layers": list(layout.layers)},
            "hidden_dim": teacher.hidden_dim,
            "vocab_size": text_config.vocab_size,
        }
        if (self.folder / "cache.json").exists():
            compare_headers(read_header(self.folder), header, self.folder)
        else:
            write_json(self.folder / "cache.json", header)
        self.done = {key for shard in read_shards(self.folder) for key in shard["examples"]}
        self.skipped: list[str] = []
        self._pending: dict[str, dict[str, Tensor]] = {}

    def write(self, batches: Iterable[Mapping[str, Any]]) -> int:
        """Compute and write every example of the batches that is not there yet.

        Args:
            batches: From `EVLECGCollator` with the teacher's processor; `done` tells which examples to leave out.

        Returns:
            How many examples were written.
        """
        before = len(self.done)
        for batch in batches:
            self.skipped += batch.get("skipped", [])
            if all(key in self.done or key in self._pending for key in batch["keys"]):
                continue
            for key, tensors in self._compute(batch).items():
                if key not in self.done:  # a collator repeats an earlier example where a batch had no good one
                    self._pending[key] = tensors
            while len(self._pending) >= self.shard_size:
                self._flush()
        while self._pending:
            self._flush()
        return len(self.done) - before

    def _compute(self, batch: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
        """Unpadded tensors of each example of a batch, on the CPU."""
        layout, dtype = self.layout, DTYPES[self.layout.dtype]
        inputs, labels, places = self.teacher.inputs(batch)
        request = layout.request(-1)
        with torch.no_grad():
            layers = extract_layers(
                self.teacher.model, inputs, labels, layout.layers, request, places=places, ink=batch.get("ink")
            )
        first = layers[layout.layers[0]]
        assert first.answer_mask is not None
        assert first.answer_ids is not None
        assert first.places is not None
        computed = {}
        for row, key in enumerate(batch["keys"]):
            answer = first.answer_mask[row]
            tensors = {f"hidden.{layer}": f.hidden[row][f.mask[row]].to(dtype) for layer, f in layers.items()}
            if first.visual is not None and first.visual_mask is not None:
                tensors["visual"] = first.visual[row][first.visual_mask[row]].to(dtype)
                if first.visual_positions is not None:
                    tensors["visual_positions"] = first.visual_positions[row][first.visual_mask[row]]
                if first.visual_weights is not None and first.visual_map is not None:
                    tensors["visual_weights"] = first.visual_weights[row][first.visual_mask[row]]
                    tensors["visual_map"] = first.visual_map[row]
            tensors["answer_ids"] = first.answer_ids[row][answer].int()
            if layout.top_k:
                assert first.answer_logits is not None
                # log-probabilities: the largest logits alone would not tell the sum over the whole vocabulary
                log_probs = first.answer_logits[row][answer].float().log_softmax(-1)
                top = log_probs.topk(min(layout.top_k, log_probs.shape[-1]))
                tensors |= {"top_log_probs": top.values, "top_ids": top.indices.int()}
            # some models have hidden channels beyond float16's 65504
            finite = all(bool(t.isfinite().all()) for t in tensors.values())
            if not finite:
                raise ValueError(f"features of example {key} are not finite in {layout.dtype}; use dtype='bfloat16'.")
            tensors["answer_index"] = _index_within(first, row).int()
            tensors["places"] = first.places[row][first.mask[row]].int()
            computed[key] = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        return computed

    def _flush(self) -> None:
        """Write one shard: the tensors first, then the file that makes them count."""
        keys = list(self._pending)[: self.shard_size]
        written = [int(path.name.split("-")[1]) for path in self.folder.glob(f"{self.rank:03d}-*.json")]
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:8]  # no other writer's, whatever its rank
        path = self.folder / f"{self.rank:03d}-{1 + max(written, default=-1):05d}-{name}.safetensors"
        with new_file(path) as temporary:
            save_file({f"{key}/{n}": t for key in keys for n, t in self._pending[key].items()}, temporary)
        examples = {key: tensors_sha256(self._pending[key]) for key in keys}
        write_json(path.with_suffix(".json"), {"file": path.name, "examples": examples})
        for key in keys:
            del self._pending[key]
        self.done.update(keys)


def _index_within(features: TokenFeatures, row: int) -> Tensor:
    """``answer_index`` of one example, counted among the covered tokens without padding."""
    assert features.answer_index is not None
    assert features.answer_mask is not None
    index = features.answer_index[row][features.answer_mask[row]]
    rank = features.mask[row].cumsum(0) - 1
    return torch.where(index >= 0, rank[index.clamp(min=0)], index)
