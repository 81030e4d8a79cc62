"""MICLoss: Matryoshka learning with soft collapse and spectral isotropy regularisation, for sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import uses_gradient_cache
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from torch import Tensor, nn

from hf_mic.balance import TermBalance
from hf_mic.capture import (
    EncoderPasses,
    check_encoder,
    check_inner,
    check_recorded,
    columns_of,
    encoder_passes,
    unwrap,
)
from hf_mic.files import plain
from hf_mic.functional import (
    TokenStatistics,
    masked_mean,
    similarity_distillation_loss,
    soft_collapse_from_statistics,
    spectral_isotropy_loss,
    token_statistics,
)
from hf_mic.layers import distilled_dims, matryoshka_config, pooled_dims, token_dims
from hf_mic.options import check_mic_options
from hf_mic.statistics import gathered_rows, summed_statistics

__all__ = ["MIC_BIBTEX", "MICLoss"]

MIC_BIBTEX = """@inproceedings{mic2026,
    title={Maximizing Informational Capacity in Adaptive Representations via Isotropic Subspace Alignment},
    booktitle={International Conference on Machine Learning},
    year={2026},
    eprint={2605.29987},
    archivePrefix={arXiv}
}"""
"""The paper of MIC."""


_DESCRIBED = ("tau", "var_weight", "scr_weight", "sir_weight", "t", "cv_mode", "distill", "distill_weight",
              "distill_temperature", "gather_across_devices")  # fmt: skip


class MICLoss(nn.Module):
    """Matryoshka loss plus MIC's two geometric regularisers.

    ``L = L_MRL + gamma * (mean SCR + mean SIR) [+ distill_weight * distillation]``, the means over layers, prefix lengths
    and input columns. Each encoder pass that the inner loss makes is used as it is: there is no second forward.

    Args:
        model: The SentenceTransformer that is trained.
        loss: Any sentence-transformers loss on the same model; it is wrapped in
            :class:`~sentence_transformers.sentence_transformer.losses.MatryoshkaLoss`. Losses that return a dict are summed.
        matryoshka_dims: Prefix lengths at which ``loss`` is computed.
        matryoshka_weights: Weight of ``loss`` at each of them. Default: 1.
        n_dims_per_step: Prefix lengths drawn per step for ``loss``, -1 for all. The regularisers always see all of theirs.
        layers: Layers whose hidden states are regularised, or ``{layer: [dims]}`` to pair layers with prefix lengths.
            Layer 0 is the embedding layer's output. Default: :func:`hf_mic.layers.default_layers`. Only for ``scope="tokens"``.
        reg_dims: Prefix lengths that are regularised, below the width. Default: the Matryoshka dims below the width.
        gamma: Weight of the regularisers. With 0, and without distillation, the loss is ``MatryoshkaLoss`` bit for bit.
            ``"auto"`` measures it over the first training steps, see ``gamma_share``, and keeps it from then on.
        gamma_share: With ``gamma="auto"``: norm of the regularisers' gradient as a share of the main loss's, at the states on
            which they act. How large a number for gamma must be to act depends on the encoder, by orders of magnitude.
        tau: Correlation that SCR tolerates, or ``"auto"`` for twice its sampling noise.
        var_weight: Weight of SCR's variance floor. The floor of 1 is out of reach of embeddings of unit length, so use 0
            with ``scope="pooled"`` on a model that ends in ``Normalize``.
        scr_weight: Weight of SCR inside the regularisers, 0 to leave it out.
        sir_weight: Weight of SIR inside the regularisers, 0 to leave it out.
        t: Sharpness of SIR's uniformity term.
        cv_mode: ``"diagonal"`` as in the paper, or ``"eigen"``, which also sees correlated coordinates.
        scope: ``"tokens"`` regularises hidden states of ``layers``; ``"pooled"`` applies the same formulas to the sentence
            embeddings, with the batch instead of the tokens: for losses with gradient caching, static embeddings and
            models without hidden states.
        distill: ``"similarity_kl"`` adds full-to-prefix self-distillation of the similarities within the batch.
        distill_weight: Weight of that term.
        distill_temperature: Its softmax temperature, for teacher and student.
        gather_across_devices: Compute all batch statistics over all processes, exactly as one process with the whole
            batch would. Batches must be equally large and of the same data set on each, as :class:`hf_mic.MICTrainer`
            arranges it.

    Attributes:
        gamma_scale: Factor on ``gamma`` while the model is in training mode, 1 at first; a warm-up moves it.
        balance: Gamma as it is, and how strongly each term pulls: :class:`hf_mic.balance.TermBalance`.

    Returns (forward):
        ``{"matryoshka", "scr", "sir"}``, and ``"distill"`` if on: terms already weighted, whose sum is the loss. The
        sentence-transformers trainer logs each of them.

    Raises:
        ValueError: For arguments out of range, a static model or a loss with gradient caching in token scope, or a
            ``loss`` that is itself a MatryoshkaLoss or an AdaptiveLayerLoss.

    Source: arXiv 2605.29987.

    Example:
        >>> from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        >>> loss = MICLoss(encoder, MultipleNegativesRankingLoss(encoder), [32, 16, 8])
        >>> columns = (["fast rhythm", "normal axis"], ["heart rate is fast", "axis is normal"])
        >>> sorted(loss([encoder.preprocess(texts) for texts in columns], labels=None))
        ['matryoshka', 'scr', 'sir']
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        *,
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
        layers: Sequence[int] | Mapping[int, Sequence[int]] | None = None,
        reg_dims: Sequence[int] | None = None,
        gamma: float | Literal["auto"] = 0.1,
        gamma_share: float = 0.1,
        tau: float | Literal["auto"] = 0.1,
        var_weight: float = 1.0,
        scr_weight: float = 1.0,
        sir_weight: float = 1.0,
        t: float = 2.0,
        cv_mode: Literal["diagonal", "eigen"] = "diagonal",
        scope: Literal["tokens", "pooled"] = "tokens",
        distill: Literal["similarity_kl"] | None = None,
        distill_weight: float = 0.0,
        distill_temperature: float = 0.05,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        # Numbers of numpy end in the model's config, where json refuses them after the training.
        matryoshka_dims, matryoshka_weights = plain(matryoshka_dims), plain(matryoshka_weights)
        layers, reg_dims = plain(layers), plain(reg_dims)
        check_mic_options(gamma=gamma, gamma_share=gamma_share, tau=tau, var_weight=var_weight, scr_weight=scr_weight, sir_weight=sir_weight, t=t,
                          cv_mode=cv_mode, scope=scope, layers=layers, distill=distill, distill_weight=distill_weight,
                          distill_temperature=distill_temperature)  # fmt: skip
        check_encoder(model, "MICLoss")
        check_inner(model, loss, scope, gamma)
        self.cached = uses_gradient_cache(loss)

        encoder = unwrap(model)
        self.layers = token_dims(encoder, layers, reg_dims, matryoshka_dims) if scope == "tokens" else {}
        self.reg_dims = pooled_dims(encoder, reg_dims, matryoshka_dims) if scope == "pooled" else []
        self.distill_dims = distilled_dims(encoder, matryoshka_dims) if distill else []
        self.model = model
        self.loss = MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step)
        self.gamma, self.gamma_share, self.gamma_scale = gamma, gamma_share, 1.0
        self.balance = TermBalance(gamma, gamma_share)
        self.tau, self.var_weight, self.t = tau, var_weight, t
        self.scr_weight, self.sir_weight = scr_weight, sir_weight
        self.cv_mode, self.scope = cv_mode, scope
        self.distill, self.distill_weight, self.distill_temperature = distill, distill_weight, distill_temperature
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        """Return the weighted terms for the tokenised columns of a batch."""
        features = list(sentence_features)
        with self.loss.loss.register_forward_hook(_sum_components):
            # Nothing to add: not even a hook, so that the result is MatryoshkaLoss bit for bit.
            if not (self.gamma or self.distill):
                return self._ordered(self.loss(features, labels), {})
            if self.cached:
                return self._forward_cached(features, labels)
            with encoder_passes(unwrap(self.model), list(self.layers) if self.gamma else []) as passes:
                matryoshka = self.loss(features, labels)
        check_recorded(self.model, passes)
        terms, acted = self._regularise(passes, features)
        if learns := unwrap(self.model).training and torch.is_grad_enabled():
            self.balance.measure(matryoshka, terms, acted)
        weighted = self._weighted(terms)
        if learns:
            self.balance.watch(matryoshka, weighted, acted)
        return self._ordered(matryoshka, weighted)

    def _forward_cached(self, features: list[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        """Add the gradients of the terms to those that the inner loss caches for each embedding."""
        inner: Any = self.loss.loss
        original, terms = inner.calculate_loss, {}

        def calculate_loss(reps: list[list[Tensor]], *args: Any, **kwargs: Any) -> Tensor:
            value = original(reps, *args, **kwargs)
            found = self._pooled_terms([torch.cat(mini_batches) for mini_batches in reps])
            for name, term in self._weighted(found).items():
                if torch.is_grad_enabled():
                    term.backward()
                terms[name] = term.detach()  # its gradient already lies in the leaves; the value is logged
            return value

        # GradCache (arXiv 2101.06983) embeds without a graph and calls this method with leaves; sentence-transformers offers no other place.
        inner.calculate_loss = calculate_loss
        try:
            matryoshka = self.loss(features, labels)
        finally:
            inner.calculate_loss = original
        return self._ordered(matryoshka, terms)

    def _regularise(
        self, passes: EncoderPasses, features: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Terms without gamma, and the recorded tensors on which each acts."""
        embeddings = columns_of(passes.embeddings, len(features), features)
        if self.scope == "pooled":
            return self._pooled_terms(embeddings), dict.fromkeys(("scr", "sir", "distill"), passes.embeddings)
        every = [state for recorded in passes.hidden_states.values() for state in recorded]
        acted = {"scr": every, "sir": every, "distill": passes.embeddings}
        masks = columns_of(passes.attention_masks, len(features), features)
        scr, sir = [], []
        for layer, recorded in passes.hidden_states.items():
            for states, mask in zip(columns_of(recorded, len(features), features), masks, strict=True):
                if self.scr_weight:
                    statistics = self._summed(token_statistics(states, mask, dims=self.layers[layer]))
                    scr.append(self._soft_collapse(statistics, self.layers[layer]))
                if self.sir_weight:
                    sir.append(self._isotropy(self._gathered(masked_mean(states, mask)), self.layers[layer]))
        return self._terms(scr, sir, [self._gathered(column) for column in embeddings] if self.distill else []), acted

    def _pooled_terms(self, columns: list[Tensor]) -> dict[str, Tensor]:
        columns = [self._gathered(column) for column in columns]
        scr, sir = [], []
        for embeddings in columns if self.gamma else []:
            if self.scr_weight:
                # The batch stands in for the tokens of a single sequence.
                every = embeddings.new_ones(1, embeddings.size(0))
                statistics = token_statistics(embeddings.unsqueeze(0), every, dims=self.reg_dims)
                scr.append(self._soft_collapse(statistics, self.reg_dims))
            if self.sir_weight:
                sir.append(self._isotropy(embeddings, self.reg_dims))
        return self._terms(scr, sir, columns if self.distill else [])

    def _soft_collapse(self, statistics: TokenStatistics, dims: Sequence[int]) -> Tensor:
        return soft_collapse_from_statistics(statistics, dims, tau=self.tau, var_weight=self.var_weight)

    def _isotropy(self, embeddings: Tensor, dims: Sequence[int]) -> Tensor:
        return spectral_isotropy_loss(embeddings, dims, t=self.t, cv_mode=self.cv_mode)

    def _distillation(self, embeddings: Tensor) -> Tensor:
        temperature = self.distill_temperature
        return similarity_distillation_loss(
            embeddings, self.distill_dims, student_temperature=temperature, teacher_temperature=temperature
        )

    def _terms(self, scr: list[Tensor], sir: list[Tensor], distilled: list[Tensor]) -> dict[str, Tensor]:
        """Average over columns, layers and prefix lengths, and weight but for gamma."""
        terms = {}
        if scr:
            terms["scr"] = self.scr_weight * torch.cat(scr).mean()
        if sir:
            terms["sir"] = self.sir_weight * torch.cat(sir).mean()
        if distilled:
            losses = [self._distillation(embeddings) for embeddings in distilled]
            terms["distill"] = self.distill_weight * torch.cat(losses).mean()
        return terms

    def _weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply the regularisers by gamma."""
        # Evaluation takes the whole gamma, so that losses of different steps can be compared.
        gamma = self.balance.gamma * (self.gamma_scale if unwrap(self.model).training else 1.0)
        return {name: term if name == "distill" else gamma * term for name, term in terms.items()}

    def _ordered(self, matryoshka: Tensor, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        # Terms that are off are logged as 0: the trainer averages over the same names in each step.
        zero = matryoshka.detach().new_zeros(())
        return {"matryoshka": matryoshka, "scr": zero, "sir": zero} | terms

    def _gathered(self, embeddings: Tensor) -> Tensor:
        return gathered_rows(embeddings) if self.gather_across_devices else embeddings

    def _summed(self, statistics: TokenStatistics) -> TokenStatistics:
        return summed_statistics(statistics) if self.gather_across_devices else statistics

    def get_config_dict(self) -> dict[str, Any]:
        """Return the configuration for model cards."""
        return plain(
            matryoshka_config(self.loss)
            | {
                "scope": self.scope,
                "reg_dims": {str(layer): dims for layer, dims in self.layers.items()} or self.reg_dims,
                "gamma": self.gamma if self.gamma != "auto" else f"{self.balance.gamma:.3g} (auto, {self.gamma_share})",
            }
            | {name: getattr(self, name) for name in _DESCRIBED}
        )

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper, picked up by model cards."""
        return f"\n{MIC_BIBTEX}\n"


def _sum_components(module: nn.Module, args: tuple, output: Tensor | dict[str, Tensor]) -> Tensor:
    """Forward hook: MatryoshkaLoss adds up numbers, so a loss that returns named components hands over their sum."""
    return torch.stack(list(output.values())).sum() if isinstance(output, dict) else output
