"""Warnings of records that are read one after the other: gathered for a report, or said once instead of at every reading."""

import os
import re
import warnings
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .header import ECGRecordWarning

__all__ = ["gather_warnings", "say_once", "warning_kind"]

_SAID: set[tuple[Hashable, str]] = set()


@contextmanager
def gather_warnings(folder: str | os.PathLike[str] | None = None) -> Iterator[list[str]]:
    """Catch each `ECGRecordWarning` as a text; others go on as they would.

    Args:
        folder: Is taken out of the texts, which begin with the record's header.

    Yields:
        The texts, each once, complete when the block ends.

    Example:
        >>> with gather_warnings("records") as texts:
        ...     warnings.warn("records/af.hea: no gain", ECGRecordWarning)
        >>> texts
        ['af.hea: no gain']
    """
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ECGRecordWarning)
        yield texts
    prefix = "" if folder is None else f"{Path(folder)}{os.sep}"
    for warning in caught:
        if issubclass(warning.category, ECGRecordWarning):
            texts.append(str(warning.message).replace(prefix, "") if prefix else str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    texts[:] = dict.fromkeys(texts)


def warning_kind(text: str) -> str:
    """A warning's text without its record and numbers: equal for records of one fault.

    Example:
        >>> warning_kind("a.hea: the tallest waves are 43 mV") == warning_kind("b.hea: the tallest waves are 51.5 mV")
        True
    """
    return re.sub(r"[\d.,]*\d", "#", text.partition(": ")[2])


def say_once(texts: Iterable[str], group: Hashable) -> None:
    """Warn of each kind once for a group of records and process, and on the first process only: training reads records many times.

    Args:
        texts: As `gather_warnings` gives them.
        group: What the records have in common, such as their folder.
    """
    for text in texts:
        key = group, warning_kind(text)
        if key not in _SAID:
            _SAID.add(key)
            if os.environ.get("RANK", "0") == "0":
                warnings.warn(f"{text} (said once of all records of {group})", ECGRecordWarning, stacklevel=3)
