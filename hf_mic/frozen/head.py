"""A trainable linear map on top of an encoder, free or kept orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mic.capture import embedding_width

__all__ = ["Float32Linear", "KeepOrthogonal", "add_dense_head"]


def add_dense_head(model: SentenceTransformer) -> Dense:
    """Put a linear map D -> D on top of an encoder, starting as the identity, before a final ``Normalize`` if there is one.

    Coordinates of a trained encoder are hard to re-order at the small rates that suit it: its residual stream ties each
    coordinate of the embedding to all layers. A map of its own learning rate does it in a hundred steps. Its weight is float32
    whatever the model's precision, since small steps of a rotation vanish in bfloat16; what it returns has the model's. It is
    saved with the model and needs nothing but sentence-transformers to load.

    Args:
        model: The encoder; changed in place.

    Returns:
        The module that was added.

    Raises:
        ValueError: If the model does not state its embedding width, or truncates to less.

    Example:
        >>> head = add_dense_head(encoder)  # of width 32
        >>> torch.equal(head.linear.weight, torch.eye(32))
        True
    """
    if model.truncate_dim is not None:
        raise ValueError(
            f"The model truncates to {model.truncate_dim} dimensions; a map needs all: load it without truncate_dim."
        )
    width = embedding_width(model)
    identity = torch.eye(width, device=model.device)
    head = Dense(width, width, bias=False, activation_function=nn.Identity())
    head.linear = Float32Linear(
        width, width, bias=False
    )  # not a subclass of Dense: its name would be saved, and has to be loaded
    head.linear.weight = nn.Parameter(identity)
    model.insert(len(model) - 1 if isinstance(model[-1], Normalize) else len(model), head.to(model.device))
    return head


class Float32Linear(nn.Linear):
    """A linear map that computes in float32 and returns what it was given.

    Example:
        >>> Float32Linear(4, 2)(torch.ones(1, 4, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def forward(self, input: Tensor) -> Tensor:
        """Shape: (..., in_features) → (..., out_features)."""
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class KeepOrthogonal(TrainerCallback):
    """Bring the weight of a map back to the orthogonal matrices after each optimiser step.

    A rotation keeps lengths and cosines at full width exactly, so whatever training does to the prefixes costs nothing there.
    The retraction is the orthogonal factor of a QR decomposition with positive diagonal (Absil, Mahony & Sepulchre,
    "Optimization algorithms on matrix manifolds", 2008, Ex. 4.1.3).

    Args:
        head: The map; its weight must be square and orthogonal at the start.

    Raises:
        ValueError: If the weight is not orthogonal.
    """

    def __init__(self, head: Dense) -> None:
        self.head = head
        weight = head.linear.weight.detach()
        if weight.size(0) != weight.size(1) or not torch.allclose(
            weight @ weight.T, torch.eye(len(weight), dtype=weight.dtype, device=weight.device), atol=1e-4
        ):
            raise ValueError(
                f"A map is kept orthogonal from an orthogonal start; this weight of shape {tuple(weight.shape)} is not."
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Retract the weight."""
        weight = self.head.linear.weight
        with torch.no_grad():
            # float32, since QR has no half precision. The signs make it unique: without them axes could flip from step to step.
            q, r = torch.linalg.qr(weight.T.float())
            weight.copy_((q * r.diagonal().sign()).T)
