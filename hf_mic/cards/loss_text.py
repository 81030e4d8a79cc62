"""What a model was trained to minimise, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from hf_mic.losses import MICLoss
from hf_mic.training_args import MICTrainingArguments

from .markdown import fill_template

__all__ = ["describe_loss", "loss_settings"]


def describe_loss(loss: nn.Module | Mapping[str, nn.Module]) -> str:
    """Say in markdown what a loss minimises, with all its settings.

    Args:
        loss: A loss, or losses by the name of their data set.
    """
    if isinstance(loss, Mapping):
        return "\n\n".join(f"Data set `{name}`: {describe_loss(part)}" for name, part in loss.items())
    if isinstance(loss, MICLoss):
        return fill_template("loss.md", loss.get_config_dict())
    return f"Trained with `{type(loss).__name__}`, whose settings are listed under Training Details."


def loss_settings(settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """What :meth:`hf_mic.MICLoss.get_config_dict` would say of these training arguments, and the defaults of the others.

    Where no layers are named, ``reg_dims`` are a list, which the template reads as the middle-to-late layers.

    Args:
        settings: Training arguments of one method of a study.
        width: Full width of the embeddings.
    """
    defaults = {f.name: f.default for f in fields(MICTrainingArguments)}
    names = [
        *("scope", "gamma", "tau", "var_weight", "scr_weight", "sir_weight", "t", "cv_mode", "n_dims_per_step"),
        *("distill", "distill_weight", "distill_temperature", "gather_across_devices"),
    ]
    dims = sorted(settings["matryoshka_dims"], reverse=True)
    regularised = settings.get("reg_dims") or [dim for dim in dims if dim < width]
    layers = settings.get("layers")
    return {
        "loss": "MultipleNegativesRankingLoss",
        "matryoshka_dims": dims,
        "matryoshka_weights": settings.get("matryoshka_weights") or [1] * len(dims),
        "reg_dims": {str(layer): regularised for layer in layers} if layers else regularised,
        **{name: settings.get(name, defaults[name]) for name in names},
    }
