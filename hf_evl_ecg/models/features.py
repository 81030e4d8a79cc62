"""Model outputs and input ids → padded token features and masks, for any native vision-language model.

Nothing here names an architecture (`patch_positions` alone knows how models lay out their patches). What enters the text
decoder at image-token positions is the projector's output, and what leaves the decoder is the last hidden state after the
final norm: both hold for every model that ``AutoModelForImageTextToText`` loads, whatever its vision tower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_evl_ecg.arguments import check_at_least, check_choice
from hf_evl_ecg.padded import gather_tokens, kept_positions, pool_tokens, take_tokens
from hf_evl_ecg.tokens import IGNORE, PADDING_PLACE, TokenFeatures

from .answer_attention import answer_attention
from .native import UnsupportedModelError, base_model, image_token_id
from .patch_positions import patch_boxes
from .visual_weights import WEIGHT_SOURCES, WeightSource, token_weights

__all__ = ["FeatureRequest", "TokenScope", "extract_features", "extract_layers"]

TokenScope = Literal["all", "visual", "answer"]

# Older hosts cut all samples at the same positions: they get the union, and each sample picks its own from it.
LOGITS_PER_SAMPLE = Version(transformers.__version__) >= Version("5.21")
"""Whether ``logits_to_keep`` takes positions per sample, (B, A); before, one list of positions for the whole batch."""


@dataclass(frozen=True)
class FeatureRequest:
    """What to read from a forward pass; whatever is not asked for costs nothing.

    Attributes:
        tokens: Which tokens ``hidden`` covers: every token that is not padding, the image tokens, or the states that
            predict the answer.
        layer: Hidden state to read: -1 is the last one, after the final norm; 0 is the decoder's input.
        visual: Read the projector's outputs.
        logits: Apply the LM head at the answer positions (nowhere else).
        visual_pool: Average this many consecutive image tokens into one; 1 keeps them all.
        positions: Say where on the image each image token lies; needs ``visual``.
        places: Say where in the conversation the text of each covered token starts; needs ``places`` of a batch.
        boxes: Say also how much of the image it covers, and where it is among the covered tokens, so that weights of another
            model can be read for it; needs ``visual``, unpooled.
        visual_weights: Where weights of the visual tokens, and their map of the image, come from; needs ``visual``.
            ``"uniform"``: none; ``"ink"``: the traces of a drawn page; ``"teacher_contrast"``: distance of a token from the
            page's mean token; ``"teacher_attention"``: what the answer's states attend to in the last layer, which must run
            eagerly (as in Align-TI, https://arxiv.org/abs/2602.09483).
        embeddings: Read the input embeddings of the answer tokens and of those before them.
    """

    tokens: TokenScope = "all"
    layer: int = -1
    visual: bool = True
    logits: bool = True
    visual_pool: int = 1
    positions: bool = False
    places: bool = False
    boxes: bool = False
    visual_weights: WeightSource = "uniform"
    embeddings: bool = False

    def __post_init__(self) -> None:
        check_choice("visual_weights", self.visual_weights, WEIGHT_SOURCES)
        check_choice("tokens", self.tokens, ("all", "visual", "answer"))
        check_at_least("visual_pool", self.visual_pool, 1)
        if self.positions and not self.visual:
            raise ValueError("positions=True needs visual=True: they are the positions of the visual tokens.")
        if (self.boxes or self.visual_weights != "uniform") and not self.visual:
            raise ValueError(
                f"boxes={self.boxes}, visual_weights={self.visual_weights!r} need visual=True: they belong to the visual tokens."
            )
        if self.boxes and self.visual_pool > 1:
            raise ValueError(f"boxes=True needs visual_pool=1, not {self.visual_pool}: runs of tokens have no box.")


def extract_features(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor | None,
    request: FeatureRequest = FeatureRequest(),
    *,
    places: Tensor | None = None,
    forward: Callable[..., Any] | None = None,
    ink: Tensor | None = None,
) -> TokenFeatures:
    """Run a model once and read the features of its tokens.

    The LM head is applied to the states that predict an answer token and to nothing else, so that no tensor of
    image tokens times vocabulary ever exists.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        inputs: Keyword arguments of its forward pass, with ``input_ids`` and ``attention_mask``.
        labels: Token ids to predict, -100 elsewhere; None if there are no answers. Shape: (B, T).
        request: What to read.
        places: Turn and byte of each token, as `hf_evl_ecg.chat.places` gives them, where asked for. Shape: (B, T, 2).
        forward: What to call instead of ``model``: the wrapper (DDP …) that `model` is inside of.
        ink: Share of trace in each cell of an even grid over the image, for ``visual_weights="ink"``. Shape: (B, G, G).

    Returns:
        Features on the model's device, with gradient where gradients are enabled.
    """
    layers = extract_layers(model, inputs, labels, (request.layer,), request, places=places, forward=forward, ink=ink)
    return layers[request.layer]


def extract_layers(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor | None,
    layers: Sequence[int],
    request: FeatureRequest = FeatureRequest(),
    *,
    places: Tensor | None = None,
    forward: Callable[..., Any] | None = None,
    ink: Tensor | None = None,
) -> dict[int, TokenFeatures]:
    """`extract_features` for several layers from one forward pass; ``request.layer`` is ignored.

    Returns:
        One entry per layer; visual tokens and logits are the same tensors in each.
    """
    positions, answer_mask, answer_ids = _answer_positions(inputs["input_ids"], labels)
    inner = any(layer not in (-1, 0) for layer in layers)  # the hooks see first and last; the others cost all layers
    wanted = positions if request.logits else positions[:, :1]  # hosts have no "none": 0 means every position
    kept, place = (wanted, None) if LOGITS_PER_SAMPLE else wanted.unique(return_inverse=True)
    looking: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
    if request.visual_weights == "teacher_attention":
        looking = answer_attention(base_model(model), positions, answer_mask)
    with _decoder_taps(base_model(model).get_decoder()) as taps, looking as looked:
        output = (model if forward is None else forward)(
            **inputs,
            **({"output_hidden_states": True} if inner else {}),
            logits_to_keep=kept,
            use_cache=False,  # a cache would hold keys and values of thousands of image tokens for nothing
        )
    _check_decoder(base_model(model), taps, inputs["input_ids"])
    if output.logits.shape[1] != kept.shape[-1]:
        raise UnsupportedModelError(f"{type(base_model(model)).__name__} does not take positions as logits_to_keep.")
    logits = output.logits if place is None else output.logits.take_along_dim(place.unsqueeze(-1), dim=1)
    image_mask = inputs["input_ids"] == image_token_id(model)
    seen = {}
    if request.visual:
        attention = looked.get("attention")
        seen = _visual_tokens(base_model(model), taps["input"], inputs, image_mask, request, ink, attention)
    covered = None
    if request.places:
        if places is None:
            raise ValueError("places=None: they are asked for; give the batch's own (EVLECGCollator makes them).")
        covered, mask, _ = _scope(places, inputs, image_mask, positions, answer_mask, request.tokens)
        covered = covered.masked_fill(~mask.unsqueeze(2), PADDING_PLACE)
    read: Tensor | None = None
    target: Tensor | None = None
    if request.embeddings:
        embed = base_model(model).get_input_embeddings()
        read = take_tokens(taps["input"], positions, answer_mask).detach()
        with torch.no_grad():
            target = embed(answer_ids.masked_fill(~answer_mask, 0)).masked_fill(~answer_mask.unsqueeze(2), 0)
    features = {}
    for layer in layers:
        states = _layer(output.hidden_states, layer) if inner else taps["input" if layer == 0 else "output"]
        hidden, mask, index = _scope(states, inputs, image_mask, positions, answer_mask, request.tokens)
        features[layer] = TokenFeatures(
            hidden=hidden,
            mask=mask,
            **{"visual": None, "visual_mask": None, **seen},
            answer_hidden=take_tokens(states, positions, answer_mask),
            answer_logits=logits if request.logits else None,
            answer_ids=answer_ids,
            answer_mask=answer_mask,
            answer_index=index,
            answer_read=read,
            answer_wanted=target,
            places=covered,
        )
    return features


def _visual_tokens(
    model: PreTrainedModel,
    states: Tensor,
    inputs: Mapping[str, Any],
    image_mask: Tensor,
    request: FeatureRequest,
    ink: Tensor | None,
    attention: Tensor | None,
) -> dict[str, Tensor]:
    """What a request asks about the image tokens, as fields of `TokenFeatures`; ``states`` is the decoder's input."""
    visual, mask = gather_tokens(states, image_mask)
    pooled, pooled_mask = pool_tokens(visual, mask, request.visual_pool)
    fields = {"visual": pooled, "visual_mask": pooled_mask}
    if not (request.positions or request.boxes or request.visual_weights != "uniform"):
        return fields
    boxes = patch_boxes(model, inputs, image_mask)
    if request.positions:
        fields["visual_positions"], _ = pool_tokens(boxes[..., :2], mask, request.visual_pool)
    if request.boxes:
        index, _ = kept_positions(image_mask)
        if request.tokens == "visual":
            index = torch.arange(index.shape[1], device=index.device).expand_as(index)
        fields |= {"visual_boxes": boxes, "visual_index": index.masked_fill(~mask | (request.tokens == "answer"), -1)}
    if request.visual_weights != "uniform":
        if attention is not None:
            attention = gather_tokens(attention.unsqueeze(2), image_mask)[0].squeeze(2)
        weights, drawn = token_weights(request.visual_weights, visual, mask, boxes, ink, attention)
        weights, _ = pool_tokens(weights.unsqueeze(2), mask, request.visual_pool)
        fields |= {"visual_weights": weights.squeeze(2), "visual_map": drawn}
    return fields


@contextmanager
def _decoder_taps(decoder: nn.Module) -> Iterator[dict[str, Any]]:
    """Collect what enters and leaves the text decoder while the context is open; no hook stays behind."""
    taps: dict[str, Any] = {}

    def before(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taps["input"] = kwargs.get("inputs_embeds")  # the host has put the projector's outputs in already

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        taps["output"] = output[0]  # the last hidden state, after the final norm

    handles = [decoder.register_forward_pre_hook(before, with_kwargs=True), decoder.register_forward_hook(after)]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _check_decoder(model: PreTrainedModel, taps: Mapping[str, Any], input_ids: Tensor) -> None:
    """Raise unless the decoder read one embedding per token of the input, image tokens among them."""
    read = taps.get("input")
    if read is None or read.shape[:2] != input_ids.shape:
        found = "no embeddings" if read is None else f"{tuple(read.shape[:2])} embeddings"
        raise UnsupportedModelError(
            f"the text decoder of {type(model).__name__} reads {found} for {tuple(input_ids.shape)} tokens: its images do not "
            "enter at image tokens (but by cross-attention or an encoder), so there are no visual tokens to match; use a "
            "model such as LlavaNext, Idefics3, Qwen2-VL or InternVL."
        )


def _answer_positions(input_ids: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the state that predicts each answer token, the mask, and the tokens; at least one column."""
    if labels is None:
        labels = torch.full_like(input_ids, IGNORE)
    index, mask = kept_positions(labels[:, 1:] != IGNORE)  # the state at t predicts the token at t + 1
    if index.shape[1] == 0:  # a host cannot keep logits at no position at all
        index = input_ids.new_zeros(input_ids.shape[0], 1)
        mask = torch.zeros_like(index, dtype=torch.bool)
    ids = labels[:, 1:].gather(1, index).masked_fill(~mask, IGNORE)
    return index, mask, ids


def _layer(hidden_states: tuple[Tensor, ...], layer: int) -> Tensor:
    """One entry of ``hidden_states``, with an error that names the range."""
    if not -len(hidden_states) <= layer < len(hidden_states):
        raise ValueError(
            f"layer {layer} does not exist: the model returns {len(hidden_states)} hidden states, so choose "
            f"{-len(hidden_states)} … {len(hidden_states) - 1} (0 is the decoder's input, -1 the last one)."
        )
    return hidden_states[layer]


def _scope(
    states: Tensor, inputs: Mapping[str, Any], image_mask: Tensor, positions: Tensor, answer_mask: Tensor, tokens: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Covered states, their mask, and where among them each answer token is predicted (-1: nowhere)."""
    if tokens == "visual":
        hidden, mask = gather_tokens(states, image_mask)
        return hidden, mask, torch.full_like(positions, -1)
    if tokens == "answer":
        index = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
        return take_tokens(states, positions, answer_mask), answer_mask, index.masked_fill(~answer_mask, -1)
    return states, inputs["attention_mask"].bool(), positions.masked_fill(~answer_mask, -1)
