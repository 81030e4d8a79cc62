"""Checks of arguments that several modules take, each with one message: ``name=value: what is allowed``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = [
    "MIC_OPTIONS",
    "check_at_least",
    "check_choice",
    "check_distinct",
    "check_mic_options",
    "check_number",
    "check_tau",
]


def check_number(name: str, value: float, *, positive: bool = False) -> None:
    """Refuse what is negative (or 0, if it must be positive), infinite or NaN.

    Example:
        >>> check_number("gamma", -0.1)
        Traceback (most recent call last):
        ValueError: gamma=-0.1: must be >= 0 and finite
    """
    if not (value > 0 if positive else value >= 0) or value == math.inf:
        raise ValueError(f"{name}={value}: must be {'>' if positive else '>='} 0 and finite")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse a number below the least that is allowed."""
    if value < least:
        raise ValueError(f"{name}={value}: must be at least {least}")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is not among the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}")


def check_distinct(name: str, values: Sequence[int], least: int = 1) -> None:
    """Refuse an empty list, repeated numbers, and numbers below the least that is allowed."""
    if not values or len(set(values)) < len(values) or min(values) < least:
        raise ValueError(f"{name}={list(values)}: must be distinct whole numbers >= {least}, at least one")


def check_tau(tau: float | str) -> None:
    """Refuse a tolerated correlation that is neither a number from 0 on nor ``"auto"``."""
    if tau != "auto" and not (isinstance(tau, (int, float)) and tau >= 0):
        raise ValueError(f"tau={tau!r}: must be a number >= 0 or 'auto'")


MIC_OPTIONS = ("gamma", "tau", "var_weight", "scr_weight", "sir_weight", "t", "cv_mode", "scope", "layers", "distill",
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
    for name in ("gamma", "var_weight", "scr_weight", "sir_weight", "distill_weight"):
        check_number(name, options[name])
    for name in ("t", "distill_temperature"):
        check_number(name, options[name], positive=True)
    check_tau(options["tau"])
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
