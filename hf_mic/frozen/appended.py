"""A sentence-transformers model with a map at its end."""

from __future__ import annotations

import copy

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn

from hf_mic.capture import check_encoder
from hf_mic.hub.served_order import without_idle_normalize
from hf_mic.layers import mark_matryoshka

from .prefix_map import PrefixMap

__all__ = ["append_to_model"]


def append_to_model(model: SentenceTransformer, prefix_map: PrefixMap) -> SentenceTransformer:
    """A model that embeds text as ``model`` does, then maps: its prefixes are those of the adapted index.

    The modules are ``[*model, Dense, Normalize]`` for a matrix, where a Normalize that the model ends in changes nothing and is
    left out, and ``[*model, Normalize, Dense, Dense, Normalize]`` for a residual network, which expects unit vectors. Full-width
    outputs are unit vectors again. A rotation leaves the full-width cosine similarities as they were. sentence-transformers
    truncates after the last module and does not renormalise there: compare prefixes by cosine, or encode with
    ``normalize_embeddings=True``. The saved config names the prefix lengths of the fit, see :func:`hf_mic.layers.mark_matryoshka`.

    Args:
        model: The encoder whose embeddings the map was fitted on. Its weights are shared, not copied; a ``truncate_dim``
            of it is not carried over.
        prefix_map: The map.

    Returns:
        A new model. Saved, it loads with ``SentenceTransformer(path, truncate_dim=16)`` alone.

    Raises:
        TypeError: If the model is no SentenceTransformer.
        ValueError: If the widths differ, or the model compares vectors of several lengths by dot product.
    """
    check_encoder(model, "append_to_model")
    modules = list(model)
    if model.similarity_fn_name in ("dot", "euclidean", "manhattan") and not isinstance(modules[-1], Normalize):
        raise ValueError(
            f"The model compares its vectors by {model.similarity_fn_name!r}, in which their lengths count; the map takes unit vectors and "
            "gives unit vectors, so its neighbours would be others. If cosine suits your texts, set "
            "model.similarity_fn_name = 'cosine' and measure first (hf-mic inspect)."
        )
    # Asked of the modules, because the model itself would answer its truncate_dim.
    width = SentenceTransformer(modules=modules, device=str(model.device)).get_embedding_dimension()
    if width != prefix_map.width:
        raise ValueError(
            f"The model gives embeddings of width {width}, the map takes {prefix_map.width}: append it to the encoder "
            "whose embeddings it was fitted on."
        )
    modules = [_with_own_config(modules[0]), *modules[1:]]  # the encoder itself has no prefixes to promise
    if not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    modules += [module.to(dtype=model.dtype) for module in prefix_map.as_dense()]
    mapped = SentenceTransformer(
        modules=without_idle_normalize([*modules, Normalize()]),
        device=str(model.device),
        prompts={name: text or "" for name, text in model.prompts.items()},
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
    )
    if dims := prefix_map.config.get("dims"):
        mark_matryoshka(mapped, dims)
    return mapped


def _with_own_config(module: nn.Module) -> nn.Module:
    """A Transformer around the same weights with a config of its own, so that marking it leaves the other one alone.

    Any other module is returned as it is.
    """
    if not isinstance(module, Transformer):
        return module
    inner, outer = copy.copy(module.model), copy.copy(module)
    inner.config = copy.deepcopy(inner.config)
    outer._modules = {**module._modules, "model": inner}  # a shallow copy shares the dict that holds the modules
    return outer
