"""Checks of arguments that several modules take: one sentence for each kind of check; nothing heavy is loaded."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

__all__ = ["check_at_least", "check_between", "check_choice", "plain", "plain_fields"]


@runtime_checkable
class _Array(Protocol):
    """Arrays and numbers of numpy, torch and pandas, none of which is imported for this."""

    def tolist(self) -> Any: ...


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy or torch as Python numbers and lists, also inside lists, tuples and dicts; all else as it is.

    Example:
        >>> import numpy as np
        >>> plain((np.float64(0.5), np.array([1, 2])))
        (0.5, [1, 2])
    """
    if isinstance(value, _Array):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return (tuple if type(value) is tuple else list)(map(plain, value))
    return {plain(key): plain(item) for key, item in value.items()} if type(value) is dict else value


def plain_fields(config: Any) -> None:
    """Make the fields of a dataclass :func:`plain`, for json, hashes and checks of type; also of a frozen one."""
    for field in filter(lambda field: field.init, fields(config)):
        object.__setattr__(config, field.name, plain(getattr(config, field.name)))


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Refuse what is not among the allowed values.

    Raises:
        ValueError: Another value; the message lists the allowed ones.

    Example:
        >>> check_choice("mode", "CMYK", ("RGB", "L"))
        Traceback (most recent call last):
        ValueError: mode='CMYK': allowed are 'RGB', 'L'
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}")


def check_between(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Refuse a number outside [low, high], and NaN.

    Raises:
        ValueError: Such a number.

    Example:
        >>> check_between("fs_hz", 5, 100, 2000, "Hz")
        Traceback (most recent call last):
        ValueError: fs_hz=5: allowed are 100 to 2000 Hz
    """
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: allowed are {low:g} to {high:g} {unit}".rstrip())


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below the least that is allowed, and NaN.

    Raises:
        ValueError: Such a number.

    Example:
        >>> check_at_least("turns", 0, 1)
        Traceback (most recent call last):
        ValueError: turns=0: must be at least 1
    """
    if not value >= least:
        raise ValueError(f"{name}={value}: must be at least {least}")
