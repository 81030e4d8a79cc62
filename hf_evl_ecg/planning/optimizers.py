"""Bytes of an optimizer's state, and of what its step takes for a moment."""

from __future__ import annotations

import math

from torch import nn

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.config import EVLECGConfig

__all__ = ["OPTIMIZERS", "state_bytes", "step_bytes"]

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd")


def state_bytes(args: EVLECGConfig, module: nn.Module) -> int:
    """Bytes of the state for the trained parameters of a module.

    AdamW: two moments of each, in the parameters' own type, as torch keeps them; Adafactor (arXiv 1804.04235): one float32 for each row
    and column of a matrix, without first moment; SGD without momentum: none. Single numbers, such as the count of steps, are left out.

    Args:
        args: Arguments of the run, for ``optim``.
        module: What is trained.

    Raises:
        ValueError: Another optimizer.

    Example:
        >>> from types import SimpleNamespace
        >>> state_bytes(SimpleNamespace(optim="adamw_torch"), nn.Linear(4, 3))  # 15 parameters of 4 bytes, twice
        120
        >>> state_bytes(SimpleNamespace(optim="adafactor"), nn.Linear(4, 3))  # 3 rows and 4 columns; the bias has neither
        40
    """
    name = _name(args)
    total = 0
    for parameter in module.parameters():
        if not parameter.requires_grad or name == "sgd":
            continue
        if name == "adafactor":
            rows, columns = parameter.shape[:-1], (*parameter.shape[:-2], parameter.shape[-1])
            total += 4 * (math.prod(rows) + math.prod(columns) if parameter.ndim > 1 else parameter.numel())
        else:
            total += 2 * parameter.numel() * parameter.element_size()
    return total


def step_bytes(args: EVLECGConfig, module: nn.Module) -> int:
    """Bytes of what a step makes beside the state: one number for each trained parameter, but for fused AdamW and SGD.

    On a GPU torch's AdamW goes over all parameters at once (``foreach``) and so holds one square root for each.
    """
    if _name(args) in ("adamw_torch_fused", "sgd"):
        return 0
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def _name(args: EVLECGConfig) -> str:
    name = str(getattr(args.optim, "value", args.optim))
    check_choice("optim", name, OPTIMIZERS)
    return name
