"""An order of modules that servers keep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn

__all__ = ["EMBEDDING", "without_idle_normalize"]

EMBEDDING = "sentence_embedding"
"""The key of the features that servers follow through the modules."""


def without_idle_normalize(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Leave out each ``Normalize`` before linear maps that gives the same embeddings after them.

    Servers apply transformer, pooling, maps and one normalisation at the end; what stands in between is skipped. A map A
    without bias is homogeneous, A(c·x) = c·A(x) for c > 0, so

    - before ``A … Normalize`` an inner ``Normalize`` changes nothing, and is left out;
    - before ``A …`` alone it sets the length of the result. If every A keeps lengths, ``|A(x)| = |x|``, it can come last
      instead, and is moved there;
    - else, before a bias or a tanh, it stays.

    Args:
        modules: Modules of an encoder, in their order.

    Returns:
        The modules that are needed; none is changed.

    Example:
        >>> turn = Dense(2, 2, bias=False, activation_function=None, init_weight=torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        >>> [type(module).__name__ for module in without_idle_normalize([Normalize(), turn])]
        ['Dense', 'Normalize']
    """
    kept: list[nn.Module] = []
    for place, module in enumerate(modules):
        maps = list(takewhile(_is_homogeneous, modules[place + 1 :]))
        after = modules[place + 1 + len(maps) :]
        if _is_normalize(module) and after and _is_normalize(after[0]):
            continue
        if _is_normalize(module) and maps and not after and all(map(_keeps_lengths, maps)):
            return [*kept, *maps, module]
        kept.append(module)
    return kept


def _is_normalize(module: nn.Module) -> bool:
    return isinstance(module, Normalize) and module.module_input_name == module.module_output_name == EMBEDDING


def _is_homogeneous(module: nn.Module) -> bool:
    """Whether it is a map of the sentence embedding with A(c·x) = c·A(x) for c > 0."""
    return (
        isinstance(module, Dense)
        and module.module_input_name == module.module_output_name == EMBEDDING
        and module.linear.bias is None
        and isinstance(module.activation_function, nn.Identity | nn.ReLU)
    )


def _keeps_lengths(module: nn.Module) -> bool:
    """Whether a homogeneous map has orthonormal columns, WᵀW = I."""
    if not isinstance(module, Dense) or module.use_residual or not isinstance(module.activation_function, nn.Identity):
        return False
    weight = module.linear.weight.detach().double()
    return torch.allclose(
        weight.T @ weight, torch.eye(weight.size(1), dtype=weight.dtype, device=weight.device), atol=1e-5
    )
