"""Which layers of an encoder are regularised, at which prefix lengths, and which prefixes a saved encoder promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from torch import nn

from hf_mic.capture import embedding_width, transformer_of
from hf_mic.files import plain
from hf_mic.options import check_between
from hf_mic.statistics import check_prefixes

__all__ = [
    "default_layers",
    "distilled_dims",
    "mark_matryoshka",
    "marked_dims",
    "matryoshka_config",
    "pooled_dims",
    "token_dims",
    "trained_dims",
]


def default_layers(num_layers: int) -> list[int]:
    """Layers in the middle-to-late part of an encoder: n/3, n/2, 2n/3 and 5n/6, rounded, without 0 and n.

    Args:
        num_layers: Transformer layers n of the encoder.

    Returns:
        Layer numbers; layer l is the output of the l-th transformer layer.

    Raises:
        ValueError: If no layer lies strictly between 0 and n.

    Example:
        >>> default_layers(12)
        [4, 6, 8, 10]
    """
    # The paper regularises middle-to-late layers without naming them, and reports the last one alone as worse: these are our choice.
    shares = (1 / 3, 1 / 2, 2 / 3, 5 / 6)
    # 0 is the embedding table; n feeds the pooling, which the base loss trains already.
    layers = sorted({round(num_layers * share) for share in shares} - {0, num_layers})
    if not layers:
        raise ValueError(
            f'An encoder of {num_layers} layer(s) has no middle layer. Name layers=[...] or use scope="pooled".'
        )
    return layers


def token_dims(
    model: SentenceTransformer,
    layers: Sequence[int] | Mapping[int, Sequence[int]] | None,
    reg_dims: Sequence[int] | None,
    matryoshka_dims: Sequence[int],
) -> dict[int, list[int]]:
    """Prefix lengths to regularise on the token states of each layer.

    Args:
        model: The encoder; its first module must be a Transformer.
        layers: Layer numbers in [0, n], or ``{layer: [dims]}``. Default: :func:`default_layers`.
        reg_dims: Prefix lengths for layers without their own. Default: the Matryoshka dims below the hidden width.
        matryoshka_dims: Prefix lengths of the Matryoshka loss.

    Returns:
        ``{layer: [dims]}``.

    Raises:
        ValueError: If the model has no token states, a layer is out of range or a prefix length not below the width.
    """
    config = transformer_of(model).config.get_text_config()
    num_layers, width = config.num_hidden_layers, config.hidden_size
    if isinstance(layers, Mapping):
        if reg_dims is not None:
            raise ValueError("Give either reg_dims or layers={layer: [dims]}, not both.")
        chosen = {layer: list(dims) for layer, dims in layers.items()}
    else:
        dims = _prefixes(reg_dims, matryoshka_dims, width)
        chosen = dict.fromkeys(default_layers(num_layers) if layers is None else layers, dims)
    if not chosen:
        raise ValueError("layers is empty; name at least one layer, or set gamma=0 to switch the regularisers off.")
    if wrong := [layer for layer in chosen if not (isinstance(layer, Integral) and 0 <= layer <= num_layers)]:
        raise ValueError(
            f"layers {wrong} are out of range: the encoder has {num_layers} layers, allowed are 0 to {num_layers}."
        )
    for dims in chosen.values():
        check_prefixes(dims, width, allow_full=False)
    return {int(layer): dims for layer, dims in chosen.items()}


def pooled_dims(
    model: SentenceTransformer, reg_dims: Sequence[int] | None, matryoshka_dims: Sequence[int]
) -> list[int]:
    """Prefix lengths to regularise on sentence embeddings: ``reg_dims``, or the Matryoshka dims below the width.

    Raises:
        ValueError: If a prefix length is not below the embedding width, or none is left.
    """
    width = embedding_width(model)
    dims = _prefixes(reg_dims, matryoshka_dims, width)
    check_prefixes(dims, width, allow_full=False)
    return dims


def distilled_dims(model: SentenceTransformer, matryoshka_dims: Sequence[int]) -> list[int]:
    """Prefix lengths that the full width teaches: the Matryoshka dims below it.

    Raises:
        ValueError: If there is none.
    """
    width = embedding_width(model)
    dims = _prefixes(None, matryoshka_dims, width)
    if not dims:
        raise ValueError(
            f"Distillation teaches prefixes from the full width {width}, but no Matryoshka dim is below it: "
            f"{list(matryoshka_dims)}. Add shorter ones or leave distill out."
        )
    return dims


def _prefixes(reg_dims: Sequence[int] | None, matryoshka_dims: Sequence[int], width: int) -> list[int]:
    return [dim for dim in matryoshka_dims if dim < width] if reg_dims is None else list(reg_dims)


def matryoshka_config(loss: MatryoshkaLoss) -> dict[str, Any]:
    """What a model card says about a MatryoshkaLoss: its inner loss, prefix lengths, their weights and how many are drawn."""
    return {
        "loss": type(loss.loss).__name__,
        "matryoshka_dims": list(loss.matryoshka_dims),
        "matryoshka_weights": list(loss.matryoshka_weights),
        "n_dims_per_step": loss.n_dims_per_step,
    }


def trained_dims(loss: nn.Module | dict[str, nn.Module]) -> set[int]:
    """Prefix lengths that the Matryoshka losses at work train, wherever they stand inside of other losses."""
    losses = loss.values() if isinstance(loss, dict) else [loss]
    parts = (part for one in losses for part in one.modules() if isinstance(part, MatryoshkaLoss))
    return {dim for part in parts for dim in part.matryoshka_dims}


def mark_matryoshka(model: SentenceTransformer, dims: Iterable[int]) -> None:
    """Note in the config of an encoder which prefixes of its embeddings can be used alone.

    ``is_matryoshka`` and ``matryoshka_dimensions`` are saved with it in ``config.json``. vLLM refuses a request with
    ``dimensions`` without them (https://docs.vllm.ai, "Matryoshka Embeddings"), and one with any other than these.

    Args:
        model: The encoder; its config is changed. One that does not begin with a Transformer has none, and stays as it is.
        dims: Prefix lengths; the full width is added.

    Raises:
        ValueError: If a prefix is longer than the embeddings.

    Example:
        >>> mark_matryoshka(encoder, [8, 16])  # of width 32
        >>> marked_dims(encoder)
        [8, 16, 32]
    """
    # Asked of the modules, because the model itself would answer its truncate_dim.
    width = SentenceTransformer(modules=list(model), device=str(model.device)).get_embedding_dimension()
    if isinstance(model[0], Transformer) and width is not None:
        found = sorted({*plain(list(dims)), width})
        check_between("dims", found[0], 1, width)
        check_between("dims", found[-1], 1, width)
        config = model[0].config
        config.is_matryoshka, config.matryoshka_dimensions = True, found


def marked_dims(model: SentenceTransformer) -> list[int]:
    """Prefix lengths that the config of an encoder names; none if it names none."""
    config = model[0].config if isinstance(model[0], Transformer) else None
    return list(getattr(config, "matryoshka_dimensions", None) or [])
