"""An encoder as the mteb package runs it: prefixes of some length, or vectors in so many bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import cos_sim, pairwise_cos_sim
from torch import Tensor

from hf_mic.codes.inputs import as_array
from hf_mic.evaluation.metrics import normalize, truncate
from hf_mic.frozen.compressor import Compressor
from hf_mic.options import check_between

if TYPE_CHECKING:  # an extra, whose import takes seconds
    from mteb.models import ModelMeta
    from mteb.models.models_protocols import EncoderProtocol
    from mteb.types import PromptType

__all__ = ["MTEBEncoder"]

Floats = NDArray[np.float32]


class MTEBEncoder:
    """An encoder for ``mteb.evaluate`` at a given number of dimensions or bytes; results are files of mteb's own format.

    With ``embed_dim`` every vector is cut and scaled to unit length. With a compressor, what mteb marks as a query stays a float
    vector behind the map, and all else is what its bytes stand for: in retrieval and reranking documents alone are rounded, in
    tasks whose texts are not marked (STS, classification, clustering, pairs) all texts are. Scores are cosines. Prompts and the
    choice between ``encode_query`` and ``encode_document`` are mteb's.

    Results are kept apart by dimensions, or bytes and the compressor's fingerprint, which stand in the model's
    ``experiment_kwargs``. To embed only once for several sizes, wrap the encoder in mteb's ``CachedEmbeddingWrapper`` and give that.
    Needs ``pip install 'hf-mic-evl-ecg[mteb]'``.

    Args:
        model: A sentence-transformers model, or an encoder of mteb.
        embed_dim: Prefix length.
        compressor: A map and a code for vectors of the model's width; instead of ``embed_dim``.
        name: ``"organisation/model"``, under which results are kept and found again. A sentence-transformers model needs one: it may
            know itself by the name of the model it was trained from. Default: that of mteb's encoder.

    Raises:
        ValueError: Not one of ``embed_dim`` and ``compressor`` is given, or it does not fit the model; there is no such name.
        ModuleNotFoundError: The packages of the extra ``mteb`` are not installed.

    See docs/evaluate.md for its use.
    """

    def __init__(
        self,
        model: SentenceTransformer | EncoderProtocol,
        *,
        embed_dim: int | None = None,
        compressor: Compressor | None = None,
        name: str | None = None,
    ) -> None:
        if (embed_dim is None) == (compressor is None):
            raise ValueError(f"embed_dim={embed_dim}, compressor={compressor}: give one of them")
        if name is None and isinstance(model, SentenceTransformer):
            raise ValueError(
                "name=None: results of all models without a name would be taken for one model's (give 'me/mic')"
            )
        if name is not None and "/" not in name:
            raise ValueError(f"name={name!r}: must be of the form organisation/model")
        from mteb.models import SentenceTransformerEncoderWrapper

        self.model = SentenceTransformerEncoderWrapper(model) if isinstance(model, SentenceTransformer) else model
        self.embed_dim, self.compressor = embed_dim, compressor
        meta = self.model.mteb_model_meta
        if isinstance(width := meta.embed_dim, int):  # of some models of mteb it is not known before they run
            if embed_dim is not None:
                check_between("embed_dim", embed_dim, 1, width)
            elif compressor is not None and compressor.width != width:
                raise ValueError(f"compressor: takes vectors of width {compressor.width}, the model's have {width}")
        self.mteb_model_meta = _described(meta, embed_dim, compressor, name)

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **options: Any) -> Floats:
        """Embed the texts of a DataLoader of mteb.

        Args:
            inputs: Batches of texts.
            prompt_type: Whether they are queries or documents, if the task says so.
            options: What mteb hands on: ``task_metadata``, ``hf_split``, ``hf_subset``, ``batch_size`` …

        Returns:
            Unit vectors. Shape: (number of texts, dimensions kept).
        """
        full = as_array(self.model.encode(inputs, prompt_type=prompt_type, **options)).astype(np.float32, copy=False)
        if self.compressor is None:
            return truncate(full, self.embed_dim or full.shape[1])
        if prompt_type == "query":
            return self.compressor.prefix_map.apply(full, dim=self.compressor.dims)
        return normalize(self.compressor.reconstruct(self.compressor.transform(full)))

    def similarity(self, embeddings1: NDArray | Tensor, embeddings2: NDArray | Tensor) -> Tensor:
        """Cosines of all pairs. Shapes: (N, d), (M, d) → (N, M)."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: NDArray | Tensor, embeddings2: NDArray | Tensor) -> Tensor:
        """Cosines row by row. Shapes: (N, d), (N, d) → (N,)."""
        return pairwise_cos_sim(embeddings1, embeddings2)


def _described(meta: ModelMeta, embed_dim: int | None, compressor: Compressor | None, name: str | None) -> ModelMeta:
    """What mteb notes beside the scores, and keeps results apart by."""
    from mteb.models.model_meta import ScoringFunction

    if compressor is None:
        size: dict[str, Any] = {"embed_dim": embed_dim}
    else:
        code = f"{compressor.dims} x {compressor.quantizer.bits} bit"
        size = {"bytes": compressor.bytes_per_vector, "code": code, "compressor": compressor.fingerprint()[:12]}
    return meta.model_copy(
        update={
            "name": name or meta.name,
            "embed_dim": embed_dim if compressor is None else compressor.dims,
            "similarity_fn_name": ScoringFunction.COSINE,
            "experiment_kwargs": {**(meta.experiment_kwargs or {}), **size},
        }
    )
