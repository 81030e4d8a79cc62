"""A teacher that answers from a cache on disk: memory-mapped shards, each example checked when it is first read.

Nothing else of its shard has to be read then. See `hf_evl_ecg.distillation.cache_files` for what lies in the folder.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hf_evl_ecg.models.features import FeatureRequest
from hf_evl_ecg.models.fingerprints import tensors_sha256
from hf_evl_ecg.padded import front_mask
from hf_evl_ecg.tokens import IGNORE, IMAGE_TURN, PADDING_PLACE, TokenFeatures

from .cache_files import CacheLayout, CacheMismatchError, compare_headers, damaged_shard, read_header, read_shards

__all__ = ["CachedTeacher"]

_OPEN_SHARDS = 64  # memory maps at once: systems limit the files a process may hold open


class CachedTeacher:
    """A teacher that answers from a cache, so that its weights are needed no more.

    Args:
        folder: A folder that `hf_evl_ecg.distillation.cache_writer.TeacherCacheWriter` wrote.
        expected: What the features must have been computed from; every entry must equal the cache's fingerprint.
        verify: Compare each example's SHA-256 when it is first read.

    Raises:
        CacheMismatchError: If an entry of ``expected`` differs, naming it.
        DamagedShardError: When features of a damaged shard are asked for, naming the shard.
    """

    def __init__(self, folder: str | Path, *, expected: Mapping[str, Any], verify: bool = True) -> None:
        self.folder = Path(folder)
        self.verify = verify
        self.header = read_header(self.folder)
        self.layout = CacheLayout(**self.header["layout"])
        compare_headers({"fingerprint": self.header["fingerprint"]}, {"fingerprint": dict(expected)}, self.folder)
        self._place = {
            key: (shard["file"], digest)
            for shard in read_shards(self.folder)
            for key, digest in shard["examples"].items()
        }
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._verified: set[str] = set()

    @property
    def hidden_dim(self) -> int:
        """Width of the teacher's hidden states and visual tokens."""
        return int(self.header["hidden_dim"])

    @property
    def exact_ranks(self) -> int | None:
        """How many of the largest answer probabilities are exact; None: all."""
        return None if self.layout.top_k >= self.header["vocab_size"] else self.layout.top_k

    @property
    def lm_head(self) -> nn.Module | None:
        """None: a cache holds no weights."""
        return None

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the examples, so that a collator leaves out what is not there instead of failing at that step."""
        return frozenset(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def features(self, batch: Mapping[str, Any], request: FeatureRequest) -> TokenFeatures:
        """Features of ``batch["keys"]``, padded, in the cache's dtype.

        A cache of all tokens answers requests for the visual or answer ones too.

        Answer logits are log-probabilities: of the whole vocabulary where the cache holds it, else the ``top_k`` largest in
        descending order, which is all that universal logit distillation over at most ``top_k`` ranks needs.

        Raises:
            CacheMismatchError: If the cache does not hold what is asked for.
        """
        self._check(request)
        device = batch["input_ids"].device
        rows = [self._covered(self._read(key, request, device), request) for key in batch["keys"]]
        hidden, mask = _pad([row[f"hidden.{request.layer}"] for row in rows])
        answer_ids, answer_mask = _pad([row["answer_ids"].long() for row in rows], IGNORE)
        answer_index, _ = _pad([row["answer_index"].long() for row in rows], -1)
        visual, visual_mask = _pad([row["visual"] for row in rows]) if request.visual else (None, None)
        centres, _ = _pad([row["visual_positions"] for row in rows]) if request.positions else (None, None)
        places, _ = _pad([row["places"].long() for row in rows], PADDING_PLACE) if request.places else (None, None)
        weights, drawn = None, None
        if request.visual_weights != "uniform":
            weights, _ = _pad([row["visual_weights"] for row in rows])
            drawn = torch.stack([row["visual_map"] for row in rows])
        logits, normaliser = None, None
        if request.logits:
            # all of them: in the vocabulary's order, as a divergence compares token by token
            exact = self.exact_ranks is None
            logits, _ = _pad([_in_order(row) if exact else row["top_log_probs"] for row in rows])
            # log-probabilities are normalised already: the log of their whole vocabulary's sum is zero
            normaliser = None if self.exact_ranks is None else torch.zeros_like(logits[..., 0])
        return TokenFeatures(
            hidden=hidden,
            mask=mask,
            visual=visual,
            visual_mask=visual_mask,
            visual_positions=centres,
            visual_weights=weights,
            visual_map=drawn,
            answer_logits=logits,
            answer_logsumexp=normaliser,
            answer_ids=answer_ids,
            answer_mask=answer_mask,
            answer_hidden=_pad([row["answer_hidden"] for row in rows])[0] if "answer_hidden" in rows[0] else None,
            answer_index=answer_index,
            places=places,
        )

    def _check(self, request: FeatureRequest) -> None:
        layout = self.layout
        wrong = [
            (f"layer {request.layer}", request.layer in layout.layers, f"layers {list(layout.layers)}"),
            (f"tokens={request.tokens!r}", layout.tokens in (request.tokens, "all"), f"tokens={layout.tokens!r}"),
            ("visual tokens", layout.visual or not request.visual, "none"),
            (
                f"visual_pool={request.visual_pool}",
                not request.visual or request.visual_pool == layout.visual_pool,
                f"visual_pool={layout.visual_pool}",
            ),
            ("visual positions", layout.positions or not request.positions, "none (positions=False)"),
            (
                f"visual_weights={request.visual_weights!r}",
                request.visual_weights in ("uniform", layout.visual_weights),
                f"visual_weights={layout.visual_weights!r}",
            ),
            ("embeddings of answers", not request.embeddings, "none; run the teacher itself"),
            ("answer logits", layout.top_k > 0 or not request.logits, "none (top_k=0)"),
        ]
        for wanted, fits, held in wrong:
            if not fits:
                raise CacheMismatchError(f"{wanted} wanted, but the cache {self.folder} holds {held}; write it anew.")

    def _read(self, key: str, request: FeatureRequest, device: torch.device) -> dict[str, Tensor]:
        """The stored tensors of one example that the request needs."""
        if key not in self._place:
            raise CacheMismatchError(
                f"example {key} is not among the {len(self)} of the cache {self.folder}; write it with the same "
                "examples, questions and answers."
            )
        name, digest = self._place[key]
        names = [f"hidden.{request.layer}", "answer_ids", "answer_index"]
        names += ["places"] if request.places or request.tokens != self.layout.tokens else []
        names += ["visual"] if request.visual else []
        names += ["visual_positions"] if request.positions else []
        names += ["visual_weights", "visual_map"] if request.visual_weights != "uniform" else []
        names += ["top_log_probs"] if request.logits else []
        names += ["top_ids"] if request.logits and self.exact_ranks is None else []
        check = self.verify and key not in self._verified
        shard = self._shard(name)
        try:
            tensors = {n: shard.get_tensor(f"{key}/{n}") for n in (self.layout.tensors() if check else names)}
        except SafetensorError as error:
            raise damaged_shard(self.folder / name, str(error)) from error
        if check:
            if tensors_sha256(tensors) != digest:
                raise damaged_shard(self.folder / name, f"the SHA-256 of example {key} differs")
            self._verified.add(key)
        return {n: tensors[n].to(device) for n in names}

    def _covered(self, row: dict[str, Tensor], request: FeatureRequest) -> dict[str, Tensor]:
        """The example with the states of the tokens that are asked for, and those of its answers where they are there."""
        if self.layout.tokens == "visual":
            return row
        name, index = f"hidden.{request.layer}", row["answer_index"].long()
        row["answer_hidden"] = row[name][index]
        if request.tokens == self.layout.tokens:
            return row
        if request.tokens == "answer":
            kept, row["answer_index"] = index, torch.arange(len(index), device=index.device)
        else:
            kept, row["answer_index"] = (row["places"][:, 0] == IMAGE_TURN).nonzero()[:, 0], torch.full_like(index, -1)
        row[name], row["places"] = row[name][kept], row["places"][kept]
        return row

    def _shard(self, name: str) -> Any:
        """An open, memory-mapped shard."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        try:
            self._open[name] = safe_open(self.folder / name, framework="pt")
        except (SafetensorError, OSError) as error:
            raise damaged_shard(self.folder / name, str(error)) from error
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[name]


def _in_order(row: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities of an example in the order of the vocabulary, where all of them are there."""
    return torch.empty_like(row["top_log_probs"]).scatter_(1, row["top_ids"].long(), row["top_log_probs"])


def _pad(rows: Sequence[Tensor], value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths, at least one column, and their mask."""
    padded = pad_sequence(list(rows), batch_first=True, padding_value=value)
    if padded.shape[1] == 0:
        padded = padded.new_full((padded.shape[0], 1, *padded.shape[2:]), value)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, front_mask(lengths, padded.shape[1])
