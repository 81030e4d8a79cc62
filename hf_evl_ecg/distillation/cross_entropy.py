"""The answers' own loss, on logits of the answer positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hf_evl_ecg.padded import promote
from hf_evl_ecg.tokens import IGNORE, TokenFeatures

__all__ = ["answer_cross_entropy"]


def answer_cross_entropy(
    features: TokenFeatures, num_items: Tensor | float | None = None, *, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the answer tokens, in nats per token: the model's own language-modelling loss.

    Args:
        features: Features with ``answer_logits``.
        num_items: What to divide the sum by; the number of answer tokens in this batch if None. Under gradient
            accumulation, the number of answer tokens of the whole step.
        label_smoothing: Share of each target that is spread evenly over the vocabulary.
    """
    if features.answer_logits is None or features.answer_ids is None or features.answer_mask is None:
        raise ValueError("these features hold no answer logits; extract them with FeatureRequest(logits=True).")
    total = F.cross_entropy(
        promote(features.answer_logits).flatten(0, 1),
        features.answer_ids.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / (features.answer_mask.sum().clamp(min=1) if num_items is None else num_items)
