"""The same value as numpy holds it."""

from dataclasses import fields

import numpy as np


def as_numpy(value):
    """Numbers as numpy scalars and lists of numbers as arrays; all else as it is."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int | float):
        return np.asarray(value)[()]
    numbers = isinstance(value, list | tuple) and value and all(isinstance(part, int | float) for part in value)
    return np.array(value) if numbers else value


def numpy_options(config) -> dict:
    """The options of a dataclass that can be given as numpy holds them, given so."""
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.init}
    return {name: as_numpy(value) for name, value in values.items() if as_numpy(value) is not value}
