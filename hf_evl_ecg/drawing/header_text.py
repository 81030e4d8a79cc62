"""The lines of text above a drawn ECG: a template with fields, filled from what is known of the record."""

from __future__ import annotations

from string import Formatter
from typing import Any

from hf_evl_ecg.signals.ecg import ECG

__all__ = ["fill_header", "header_fields"]


def header_fields(template: str) -> list[str]:
    """Names of the fields in a header's template.

    Raises:
        ValueError: Braces that do not match, or a field that is more than a name.

    Example:
        >>> header_fields("Record {record_name}, {age} years")
        ['record_name', 'age']
    """
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"header={template!r}: it cannot be read, {error}") from error
    # Templates come from configuration files; str.format would follow "{x.__class__}" into Python's inside.
    if not all(field.isidentifier() for field in fields):
        raise ValueError(f"header={template!r}: its fields {fields} must be plain names such as {{record_name}}")
    return fields


def fill_header(template: str, ecg: ECG) -> str:
    """The template with each field replaced by what the record says, "-" where it says nothing.

    Example:
        >>> import numpy as np
        >>> fill_header("{record_name}: {duration_s} s, {age}", ECG(np.zeros((500, 12)), 500, record_name="a"))
        'a: 1 s, -'
    """
    known = {
        **ecg.metadata,
        "record_name": ecg.record_name,
        "duration_s": f"{ecg.recorded_s:g}",
        "fs_hz": f"{ecg.fs_hz:g}",
    }
    found = {field: known.get(field) for field in header_fields(template)}
    return template.format(**{field: "-" if value is None else _plain(value) for field, value in found.items()})


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
