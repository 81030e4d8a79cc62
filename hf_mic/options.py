"""The options of a MIC run, and checks of arguments that several modules take; nothing heavy is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from hf_mic.files import plain, plain_fields

__all__ = [
    "MIC_OPTIONS",
    "PAPER_DIMS",
    "MICOptions",
    "check_at_least",
    "check_between",
    "check_choice",
    "check_distinct",
    "check_mic_options",
    "check_number",
    "check_number_or_auto",
]


def check_number(name: str, value: float, *, positive: bool = False) -> None:
    """Refuse what is negative (or 0, if it must be positive), infinite or NaN.

    Example:
        >>> check_number("gamma", -0.1)
        Traceback (most recent call last):
        ValueError: gamma=-0.1: must be >= 0 and finite
    """
    if not isinstance(value, Real) or not (value > 0 if positive else value >= 0) or value == math.inf:
        raise ValueError(f"{name}={value!r}: must be {'>' if positive else '>='} 0 and finite")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse what is no whole number, and one below the least that is allowed."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}: must be at least {least}, a whole number")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside [low, high], and NaN."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: must lie in [{low}, {high}]")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is not among the allowed values.

    Example:
        >>> check_choice("scope", "words", ("tokens", "pooled"))
        Traceback (most recent call last):
        ValueError: scope='words': must be one of 'tokens', 'pooled'
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}")


def check_distinct(name: str, values: Sequence[int], least: int = 1) -> None:
    """Refuse what is no list of whole numbers, an empty list, repeated numbers, and numbers below the least that is allowed."""
    listed = plain(values)  # of an array too
    whole = isinstance(listed, Sequence) and listed and all(isinstance(value, int) for value in listed)
    if not whole or len(set(listed)) < len(listed) or min(listed) < least:
        raise ValueError(f"{name}={listed}: must be distinct whole numbers >= {least}, at least one")


def check_number_or_auto(name: str, value: float | str) -> None:
    """Refuse what is neither a number from 0 on nor ``"auto"``."""
    if value != "auto" and not (isinstance(value, Real) and 0 <= value < math.inf):
        raise ValueError(f"{name}={value!r}: must be >= 0 and finite, or 'auto'")


MIC_OPTIONS = ("gamma", "gamma_share", "tau", "var_weight", "scr_weight", "sir_weight", "t", "cv_mode", "scope", "layers", "distill",
               "distill_weight", "distill_temperature")  # fmt: skip
"""Options of MICLoss that can be checked without the model."""


def check_mic_options(**options: Any) -> None:
    """Refuse :data:`MIC_OPTIONS` that are out of range or contradict each other, in the loss and before a model is loaded.

    Raises:
        ValueError: If a value is not allowed.
    """
    for name, allowed in (
        ("scope", ("tokens", "pooled")),
        ("cv_mode", ("diagonal", "eigen")),
        ("distill", (None, "similarity_kl")),
    ):
        check_choice(name, options[name], allowed)
    for name in ("gamma", "tau"):
        check_number_or_auto(name, options[name])
    for name in ("var_weight", "scr_weight", "sir_weight", "distill_weight"):
        check_number(name, options[name])
    for name in ("t", "distill_temperature", "gamma_share"):
        check_number(name, options[name], positive=True)
    distill, weight = options["distill"], options["distill_weight"]
    if (distill is None) != (weight == 0):
        raise ValueError(
            f"distill={distill!r} and distill_weight={weight} contradict each other: give both (distill='similarity_kl', "
            "distill_weight > 0) or neither"
        )
    if options["scope"] == "pooled" and options["layers"] is not None:
        raise ValueError(
            f"layers={options['layers']}: layers belong to scope='tokens'; scope='pooled' regularises the sentence embeddings"
        )


PAPER_DIMS = (16, 32, 64, 128, 256, 512, 768)
"""Prefix lengths of the MIC paper."""


@dataclass
class MICOptions:
    """Options of the MIC loss and of its base loss.

    They are those of :class:`hf_mic.MICLoss`; :class:`hf_mic.MICTrainingArguments` adds those of the trainer.

    Raises:
        ValueError: If a value is out of range, or two values contradict each other.
    """

    matryoshka_dims: list[int] | None = field(
        default=None,
        metadata={
            "help": "Prefix lengths at which the base loss is computed. Default: 16, 32, 64, 128, 256, 512 and 768, as far "
            "as they are below the width of the embedding, and the width."
        },
    )
    matryoshka_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of the base loss at each of matryoshka_dims. Default: 1."}
    )
    n_dims_per_step: int = field(
        default=-1,
        metadata={"help": "How many of matryoshka_dims are drawn for the base loss in each step; -1 for all."},
    )
    scale: float = field(
        default=20.0, metadata={"help": "Factor on the cosine similarities in the base loss: 1 / temperature."}
    )
    mini_batch_size: int | None = field(
        default=None,
        metadata={"help": "Embed pairs or triplets in parts of this size with gradient caching. Needs scope='pooled'."},
    )
    gamma: float | str = field(  # str second: how HfArgumentParser reads the command line
        default=0.1,
        metadata={
            "help": "Weight of the regularisers; 0: plain Matryoshka learning, auto: measured in the first steps."
        },
    )
    gamma_share: float = field(
        default=0.1, metadata={"help": "With gamma='auto': the regularisers' gradient as a share of the main loss's."}
    )
    gamma_warmup_steps: float = field(
        default=0,
        metadata={
            "help": "Optimiser steps over which gamma rises linearly from 0; below 1, the share of all training steps. "
            "Evaluation always takes the whole gamma, so that its losses can be compared."
        },
    )
    layers: list[int] | None = field(
        default=None,
        metadata={
            "help": "Layers whose token states are regularised; 0: embedding layer. Default: n/3, n/2, 2n/3, 5n/6."
        },
    )
    layer_dims: dict[int, list[int]] | str | None = field(  # str second: how HfArgumentParser reads the command line
        default=None,
        metadata={
            "help": "Pair layers with prefix lengths of their own, instead of layers and reg_dims: a mapping, as JSON "
            'on the command line, such as {"4": [16, 32], "6": [64, 128]}.'
        },
    )
    reg_dims: list[int] | None = field(
        default=None,
        metadata={"help": "Prefix lengths that are regularised. Default: matryoshka_dims below the width."},
    )
    tau: float | str | None = field(  # str second, as above
        default=0.1,
        metadata={
            "help": "Correlation between prefix and residual coordinates that the soft collapse term tolerates, or 'auto' "
            "for twice its sampling noise."
        },
    )
    var_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the variance floor in the soft collapse term. Its floor of 1 is out of reach of embeddings of "
            "unit length: use 0 with scope='pooled' on a model that ends in Normalize."
        },
    )
    scr_weight: float = field(
        default=1.0, metadata={"help": "Weight of the soft collapse term within the regularisers; 0 leaves it out."}
    )
    sir_weight: float = field(
        default=1.0, metadata={"help": "Weight of the spectral isotropy term, which may be negative; 0 leaves it out."}
    )
    t: float = field(default=2.0, metadata={"help": "Sharpness of the uniformity in the isotropy term."})
    cv_mode: Literal["diagonal", "eigen"] = field(
        default="diagonal",
        metadata={
            "help": "Isotropy from the variances of the coordinates (diagonal, as in the paper) or from the eigenvalues of "
            "their covariance, which also sees correlated coordinates."
        },
    )
    scope: Literal["tokens", "pooled"] = field(
        default="tokens",
        metadata={"help": "Regularise token states of layers, or (with any model) sentence embeddings."},
    )
    distill: Literal["similarity_kl"] | None = field(
        default=None, metadata={"help": "similarity_kl: distil similarities within the batch, full width to prefixes."}
    )
    distill_weight: float = field(default=0.0, metadata={"help": "Weight of the distillation."})
    distill_temperature: float = field(default=0.05, metadata={"help": "Softmax temperature of the distillation."})
    gather_across_devices: bool = field(
        default=False,
        metadata={
            "help": "Compute batch statistics and in-batch negatives over all processes, as one process with the whole "
            "batch would. Switches dataloader_drop_last on, since batches must be equally large, also for evaluation; of "
            "several data sets, all processes take the batches of a step from the same one. CoSENT, the base loss of scored "
            "pairs, compares within each process only."
        },
    )

    def __post_init__(self) -> None:
        plain_fields(self)
        self.tau, self.gamma = _number_or_text(self.tau), _number_or_text(self.gamma)
        self.layer_dims = _parsed_layer_dims(self.layer_dims)
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        check_number("gamma_warmup_steps", self.gamma_warmup_steps)
        check_number("scale", self.scale, positive=True)
        if self.n_dims_per_step != -1 and self.n_dims_per_step < 1:
            raise ValueError(f"n_dims_per_step={self.n_dims_per_step}: must be -1 (all) or at least 1")
        if self.mini_batch_size is not None:
            check_at_least("mini_batch_size", self.mini_batch_size, 1)
        for name, least in (("matryoshka_dims", 1), ("reg_dims", 1), ("layers", 0)):
            if getattr(self, name) is not None:
                check_distinct(name, getattr(self, name), least)

    def _check_combinations(self) -> None:
        if self.matryoshka_weights is not None:
            if len(self.matryoshka_weights) != len(self.matryoshka_dims or ()):
                raise ValueError(f"matryoshka_weights={self.matryoshka_weights}: one per entry of matryoshka_dims")
            check_number("matryoshka_weights", min(self.matryoshka_weights))
        if self.layer_dims is not None and (self.layers is not None or self.reg_dims is not None):
            raise ValueError("layer_dims replaces layers and reg_dims: give either it or them.")
        options = self.mic_options()
        check_mic_options(**{name: options[name] for name in MIC_OPTIONS})

    def dims_for(self, width: int) -> list[int]:
        """Prefix lengths of the Matryoshka loss for embeddings of this width, as given or the default, largest first.

        Raises:
            ValueError: If a prefix is longer than the width.
        """
        if self.matryoshka_dims is None:
            return sorted({width, *(dim for dim in PAPER_DIMS if dim < width)}, reverse=True)
        check_between("matryoshka_dims", max(self.matryoshka_dims), 1, width)
        return list(self.matryoshka_dims)

    def mic_options(self) -> dict[str, Any]:
        """Keyword arguments of :class:`hf_mic.MICLoss`, all but the model, the base loss and the prefix lengths."""
        same = ("matryoshka_weights", "n_dims_per_step", "reg_dims", "gamma", "gamma_share", "tau", "var_weight", "scr_weight",
                "sir_weight", "t", "cv_mode", "scope", "distill", "distill_weight", "distill_temperature",
                "gather_across_devices")  # fmt: skip
        layers = self.layers if self.layer_dims is None else self.layer_dims
        return {name: getattr(self, name) for name in same} | {"layers": layers}


def _number_or_text(value: str | float | None) -> Any:
    """The number in a text of the command line; what is none stays as it is, to be refused with the other options."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value


def _parsed_layer_dims(value: Any) -> dict[int, list[int]] | None:
    """Mapping with integer keys, which JSON does not have."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        if parsed is None:
            return None
        result = {int(layer): [int(dim) for dim in dims] for layer, dims in parsed.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f'layer_dims={value!r}: must map layers to lists of prefix lengths, such as {{"4": [16, 32]}}'
        ) from None
    check_distinct("layer_dims (layers)", list(result), 0)
    for layer, dims in result.items():
        check_distinct(f"layer_dims[{layer}]", dims, 1)
    return result
