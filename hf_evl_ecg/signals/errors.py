"""What is wrong with a recording that cannot be read, and what should be known about one that can."""

import os
from typing import Any

__all__ = ["ECGRecordError", "ECGRecordWarning"]


class ECGRecordError(ValueError):
    """A record that cannot be read as a 12-lead ECG, with what is wrong in attributes.

    Attributes:
        file: The file in which the fault lies.
        field: The field of the header, or the property of the signal, that is wrong.
        value: What was found.
        allowed: What would have been right, in words.

    Example:
        >>> print(ECGRecordError("a.hea", "fs", 0, "25 to 20000 Hz"))
        a.hea: fs is 0; allowed: 25 to 20000 Hz
    """

    def __init__(self, file: str | os.PathLike[str], field: str, value: Any, allowed: str) -> None:
        self.file = os.fspath(file)
        self.field = field
        self.value = value
        self.allowed = allowed
        shown = value if isinstance(value, str | int | float) else str(value)
        text = repr(shown)
        if len(text) > 200:
            text = text[:197] + "..."
        super().__init__(f"{self.file}: {field} is {text}; allowed: {allowed}")

    def __reduce__(self) -> tuple[type["ECGRecordError"], tuple[Any, ...]]:
        return type(self), (self.file, self.field, self.value, self.allowed)


class ECGRecordWarning(UserWarning):
    """A record that can be read, with something about it that a user should know."""
