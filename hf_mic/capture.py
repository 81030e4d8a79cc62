"""Reading hidden states and embeddings out of the encoder passes that a loss makes anyway, of models and losses that make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import uses_gradient_cache
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

__all__ = [
    "EncoderPasses",
    "check_encoder",
    "columns_of",
    "embedding_width",
    "encoder_passes",
    "transformer_of",
    "unwrap",
]


@dataclass
class EncoderPasses:
    """What the encoder produced while it was watched, one entry per forward pass.

    Attributes:
        embeddings: Sentence embeddings at full width. Shape of each: (rows, D).
        hidden_states: Per watched layer, the states of each pass. Shape of each: (rows, L, hidden width).
        attention_masks: Tokens that count in each pass: no padding and, where the pooling leaves the prompt out, no
            prompt. Shape of each: (rows, L).
    """

    embeddings: list[Tensor] = field(default_factory=list)
    hidden_states: dict[int, list[Tensor]] = field(default_factory=dict)
    attention_masks: list[Tensor] = field(default_factory=list)


def unwrap(model: nn.Module) -> SentenceTransformer:
    """Return the SentenceTransformer inside a DistributedDataParallel or ``torch.compile`` wrapper."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


def check_encoder(model: object, purpose: str) -> None:
    """Refuse what is no encoder of dense sentence embeddings.

    Args:
        model: What was given.
        purpose: What it was given to, for the message.

    Raises:
        TypeError: If it is a CrossEncoder, SparseEncoder or MultiVectorEncoder, a path, or anything else.

    Example:
        >>> check_encoder("all-MiniLM-L6-v2", "MICLoss")
        Traceback (most recent call last):
        TypeError: MICLoss takes a SentenceTransformer, which gives one dense vector per text, not a str. Load it with ...
    """
    if isinstance(model, nn.Module) and isinstance(unwrap(model), SentenceTransformer):
        return
    kind = type(unwrap(model) if isinstance(model, nn.Module) else model).__name__
    raise TypeError(
        f"{purpose} takes a SentenceTransformer, which gives one dense vector per text, not a {kind}. Load it with "
        "SentenceTransformer(name_or_folder); other encoders have no prefixes to cut."
    )


def embedding_width(model: SentenceTransformer) -> int:
    """Width of the sentence embeddings.

    Raises:
        ValueError: If the model does not state it: its last module must define it.
    """
    width = model.get_embedding_dimension()
    if width is None:
        raise ValueError("The model does not state its embedding width: its last module must define it.")
    return width


def transformer_of(model: SentenceTransformer) -> Transformer:
    """Return the module that computes token states.

    Raises:
        ValueError: If the first module is not a Transformer (a static embedding, a bag of words, a router).
    """
    if not isinstance(model[0], Transformer):
        raise ValueError(
            f'scope="tokens" needs hidden states, but the first module of the model is a {type(model[0]).__name__}. '
            'Use scope="pooled", which works on sentence embeddings.'
        )
    return model[0]


@contextmanager
def encoder_passes(model: SentenceTransformer, layers: Sequence[int] = ()) -> Iterator[EncoderPasses]:
    """Record every forward pass of ``model`` made inside the block.

    Forward hooks and a temporary ``output_hidden_states`` do the recording; both are taken back when the block ends,
    whatever happened in it. A pass without a graph, where gradients are on, is no column of the batch: a loss looked something up
    (a model that guides itself), and to count it would halve the gradient of the terms.

    Args:
        model: The unwrapped model.
        layers: Layers whose token states are recorded; 0 is the output of the embedding layer. Empty: embeddings only.
    """
    passes = EncoderPasses(hidden_states={layer: [] for layer in layers})
    learning = torch.is_grad_enabled()
    skips_prompt = any(isinstance(module, Pooling) and not module.include_prompt for module in model)

    def record_embeddings(module: nn.Module, args: tuple, output: Mapping[str, Tensor]) -> None:
        if torch.is_grad_enabled() or not learning:
            passes.embeddings.append(output["sentence_embedding"])

    def record_states(module: nn.Module, args: tuple, output: Mapping[str, Any]) -> None:
        if learning and not torch.is_grad_enabled():
            return
        if "all_layer_embeddings" not in output:
            raise ValueError(
                f'scope="tokens" needs hidden states, but {type(module.auto_model).__name__} returns none. '
                'Use scope="pooled".'
            )
        states = output["all_layer_embeddings"]
        mask = output.get("attention_mask")
        if mask is None or mask.shape != states[0].shape[:2]:
            raise ValueError(
                'scope="tokens" needs an attention_mask of the shape of the token states; flattened (unpadded) inputs '
                'have none. Switch the flattening off or use scope="pooled".'
            )
        passes.attention_masks.append(
            _without_prompt(mask, output) if skips_prompt and "prompt_length" in output else mask
        )
        for layer in layers:
            passes.hidden_states[layer].append(states[layer])

    # After the last module, at full width: MatryoshkaLoss truncates what it returns.
    handles = [model[-1].register_forward_hook(record_embeddings)]
    config = None
    try:
        if layers:
            transformer = transformer_of(model)
            handles.append(transformer.register_forward_hook(record_states))
            config = transformer.auto_model.config
            previous = config.output_hidden_states
            # In the config, since SentenceTransformer.forward hands no such argument on to the model.
            config.output_hidden_states = True
        yield passes
    finally:
        for handle in handles:
            handle.remove()
        if config is not None:
            config.output_hidden_states = previous


def columns_of(passes: Sequence[Tensor], num_columns: int, features: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """Split recorded tensors into one per input column.

    Losses may embed several columns in one merged pass (column after column); its rows are told apart by the batch size.

    Args:
        passes: Recorded tensors, each with the rows of one or more columns.
        num_columns: Input columns of the batch.
        features: The input columns, which state the batch size.

    Returns:
        Tensors of equal batch size.
    """
    mask = features[0].get("attention_mask")
    rows = sum(tensor.size(0) for tensor in passes)
    batch_size = mask.size(0) if isinstance(mask, Tensor) and mask.dim() == 2 else rows // num_columns
    return [column for tensor in passes for column in tensor.split(batch_size)]


def _without_prompt(mask: Tensor, features: Mapping[str, Any]) -> Tensor:
    """Take the prompt's tokens, which follow any left padding, out of a copy of the mask."""
    length = features["prompt_length"]
    length = int(length.flatten()[0]) if isinstance(length, Tensor) else int(length)
    first = mask.to(torch.int32).argmax(dim=1, keepdim=True)  # of the first 1 in each row: padding may be on the left
    positions = torch.arange(mask.size(1), device=mask.device)
    return mask.masked_fill(positions < first + length, 0)


def check_inner(model: nn.Module, loss: nn.Module, scope: str, gamma: float | str) -> None:
    """Refuse losses that Matryoshka learning cannot contain, not in this scope, or that train another model.

    Raises:
        ValueError: If the loss is one of those.
    """
    for part in loss.modules():
        other = getattr(part, "model", None)  # under this name the host looks for the model that a loss trains
        if (
            isinstance(other, nn.Module)
            and isinstance(unwrap(other), SentenceTransformer)
            and unwrap(other) is not unwrap(model)
        ):
            raise ValueError(
                f"{type(part).__name__} trains another model object than MICLoss (a notebook cell that ran twice?): no prefix would be "
                "seen. Build both from the same model."
            )
    if isinstance(loss, MatryoshkaLoss | AdaptiveLayerLoss):
        raise ValueError(
            f"MICLoss builds the MatryoshkaLoss itself, which cannot contain {type(loss).__name__}: pass its inner loss."
        )
    if scope == "tokens" and uses_gradient_cache(loss):
        raise ValueError(
            f"{type(loss).__name__} caches gradients and embeds in mini-batches without a graph, so hidden states "
            'cannot be regularised. Use scope="pooled".'
        )
    if gamma == "auto" and uses_gradient_cache(loss):
        raise ValueError(
            f"gamma='auto' with {type(loss).__name__}: it caches gradients, which cannot be told apart. Give a number."
        )


def check_recorded(model: nn.Module, passes: EncoderPasses) -> None:
    """Refuse a step whose encoder passes say nothing of whole columns.

    Raises:
        RuntimeError: If the inner loss ran no pass of the model, or the batch was cut up among GPUs within the process.
    """
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise RuntimeError(
            f"nn.DataParallel cuts each column up among {len(model.device_ids)} GPUs, so the terms would be those of parts of a batch. "
            "Start one process per GPU (accelerate launch, torchrun), or set CUDA_VISIBLE_DEVICES=0."
        )
    if not passes.embeddings:
        raise RuntimeError(
            "The inner loss ran no pass of the model, so there is nothing to regularise: it must embed the batch with the model "
            "that MICLoss was given."
        )
