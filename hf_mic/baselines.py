"""The losses of MIC and of the methods it is compared with, built from the same arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import uses_gradient_cache
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    GlobalOrthogonalRegularizationLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from hf_mic.capture import columns_of, embedding_width, encoder_passes, transformer_of, unwrap
from hf_mic.layers import matryoshka_config
from hf_mic.losses import MICLoss
from hf_mic.options import check_choice
from hf_mic.training_args import MICTrainingArguments

__all__ = ["METHODS", "MatryoshkaGORLoss", "base_loss", "ese_loss", "method_loss"]

METHODS = ("mic", "mrl", "simcse", "ese", "matryoshka2d", "gor")
"""MIC; MatryoshkaLoss; the base loss alone; ESE; Matryoshka2dLoss; MatryoshkaLoss + global orthogonal regularisation."""


def base_loss(model: SentenceTransformer, args: MICTrainingArguments, *, scored: bool) -> nn.Module:
    """The loss at one width: InfoNCE with in-batch negatives for pairs and tuples, CoSENT for scored pairs.

    Args:
        model: The model that is trained.
        args: ``scale``, ``mini_batch_size`` and ``gather_across_devices`` are used.
        scored: Whether the data have a column of scores.

    Raises:
        ValueError: If ``mini_batch_size`` is given for scored pairs.
    """
    if scored:
        if args.mini_batch_size is not None:
            raise ValueError("mini_batch_size is for pairs, triplets and tuples; CoSENTLoss on scored pairs has none.")
        return CoSENTLoss(model, scale=args.scale)
    gather = args.gather_across_devices
    if args.mini_batch_size is None:
        return MultipleNegativesRankingLoss(model, scale=args.scale, gather_across_devices=gather)
    return CachedMultipleNegativesRankingLoss(
        model, scale=args.scale, mini_batch_size=args.mini_batch_size, gather_across_devices=gather
    )


def method_loss(method: str, model: SentenceTransformer, args: MICTrainingArguments, *, scored: bool) -> nn.Module:
    """Build the loss of a method.

    Args:
        method: One of :data:`METHODS`.
        model: The model that is trained.
        args: All methods use the base loss of these arguments, all but ``simcse`` the prefix lengths, their weights (not
            ``ese``, which has its own) and ``n_dims_per_step``; only ``mic`` uses the rest.
        scored: Whether the data have a column of scores.

    Raises:
        ValueError: If the method is unknown, or an argument does not fit the model or the method.
    """
    check_choice("method", method, METHODS)
    if args.mini_batch_size is not None and method in ("ese", "matryoshka2d"):
        raise ValueError(
            f"{method} runs the loss on several layers, which gradient caching cannot: no mini_batch_size."
        )
    dims, inner = args.dims_for(embedding_width(model)), base_loss(model, args, scored=scored)
    weights, n_dims = args.matryoshka_weights, args.n_dims_per_step
    if method == "mic":
        return MICLoss(model, inner, dims, **args.mic_options())
    if method == "simcse":
        return inner
    if method == "mrl":
        return MatryoshkaLoss(model, inner, dims, weights, n_dims)
    if method == "ese":
        return ese_loss(model, inner, dims, n_dims_per_step=n_dims)
    if method == "matryoshka2d":
        return Matryoshka2dLoss(model, inner, dims, weights, n_dims_per_step=n_dims)
    return MatryoshkaGORLoss(model, inner, dims, weights, n_dims)


def ese_loss(
    model: SentenceTransformer, loss: nn.Module, matryoshka_dims: Sequence[int], *, n_dims_per_step: int = -1
) -> AdaptiveLayerLoss:
    """Espresso Sentence Embeddings (arXiv 2402.14776) as the group of the MIC paper runs them for comparison.

    The loss is computed at every prefix length, with weight 1 / (1 + ln(i + 1)) for the i-th longest (i = 0 is the longest), on
    the last layer and on one random earlier layer l of n with weight 1 / (1 + ln(n - l)). Layer 0, the output of the
    embedding layer, is among those drawn. There is no divergence between layers.

    Args:
        model: The model that is trained; its first module must be a Transformer.
        loss: The loss at one width and layer.
        matryoshka_dims: Prefix lengths.
        n_dims_per_step: Prefix lengths drawn per step, -1 for all.

    Returns:
        A composition of sentence-transformers' AdaptiveLayerLoss and MatryoshkaLoss.

    Example:
        >>> [round(1 / (1 + math.log(i + 1)), 3) for i in range(3)]  # weights of the three longest prefixes
        [1.0, 0.591, 0.477]
    """
    dims = sorted(matryoshka_dims, reverse=True)
    # The longest prefix counts most, as in ESE (arXiv 2402.14776); MRL (arXiv 2205.13147) weighs all alike.
    weights = [1 / (1 + math.log(i + 1)) for i in range(len(dims))]
    return AdaptiveLayerLoss(
        model,
        MatryoshkaLoss(model, loss, dims, weights, n_dims_per_step),
        n_layers_per_step=1,
        # ESE (arXiv 2402.14776) aligns layers by a divergence; the variant that MIC is compared with has none.
        kl_temperature=0,
        layer_weighting=_distance_from_top(transformer_of(model).config.get_text_config().num_hidden_layers),
    )


def _distance_from_top(num_layers: int) -> Callable[[int], float]:
    def distance_from_top(layer: int) -> float:
        return 1 / (1 + math.log(num_layers - layer))

    return distance_from_top


class MatryoshkaGORLoss(nn.Module):
    """MatryoshkaLoss plus global orthogonal regularisation (GOR, arXiv 1708.06320) of every prefix, averaged.

    Both see the same encoder pass.

    Args:
        model: The model that is trained.
        loss: The loss at one width, as for :class:`~sentence_transformers.sentence_transformer.losses.MatryoshkaLoss`.
        matryoshka_dims: Prefix lengths.
        matryoshka_weights: Weight of ``loss`` at each of them. Default: 1.
        n_dims_per_step: Prefix lengths drawn per step for ``loss``, -1 for all; GOR always sees all.
        gor_weight: Weight of GOR.

    Returns (forward):
        ``{"matryoshka", "gor_mean", "gor_second_moment"}``, already weighted.

    Raises:
        ValueError: If ``loss`` caches gradients: it embeds without a graph, which GOR needs.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
        gor_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if uses_gradient_cache(loss):
            raise ValueError(f"GOR needs embeddings with a graph, which {type(loss).__name__} does not make.")
        self.model = model
        self.loss = MatryoshkaLoss(
            model,
            loss,
            list(matryoshka_dims),
            None if matryoshka_weights is None else list(matryoshka_weights),
            n_dims_per_step,
        )
        self.gor = GlobalOrthogonalRegularizationLoss(
            model, mean_weight=gor_weight, second_moment_weight=gor_weight, aggregation="mean"
        )
        self.gor_weight = gor_weight

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        """Return the weighted terms for the tokenised columns of a batch."""
        features = list(sentence_features)
        with encoder_passes(unwrap(self.model)) as passes:
            matryoshka = self.loss(features, labels)
        columns = columns_of(passes.embeddings, len(features), features)
        terms: list[Mapping[str, Tensor]] = [
            # GOR by itself would encode once more; here it sees the pass of the base loss, once per prefix.
            self.gor.compute_loss_from_embeddings([column[:, :dim] for column in columns])
            for dim in self.loss.matryoshka_dims
        ]
        return {"matryoshka": matryoshka} | {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}

    def get_config_dict(self) -> dict[str, Any]:
        """Return the configuration for model cards."""
        return matryoshka_config(self.loss) | {"gor_weight": self.gor_weight}

    @property
    def citation(self) -> str:
        """BibTeX entry of GOR, picked up by model cards."""
        return self.gor.citation
