"""What the comment lines of a WFDB header say about the patient, in the habits of LUDB, the Challenges and PTB."""

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["read_diagnoses", "read_person"]

_AGE_SEX = re.compile(r"^<?(age|sex)>?\s*:\s*(.*)$", re.IGNORECASE)
_DIAGNOSIS = re.compile(r"^(dx|reason for admission|additional diagnoses)\s*:\s*(.*)$", re.IGNORECASE)


def read_person(comments: Sequence[str]) -> dict[str, Any]:
    """Return age in years and sex ("male", "female") as the comments give them, None where unknown.

    Example:
        >>> read_person(["<age>: 51", "<sex>: F"])
        {'age': 51.0, 'sex': 'female'}
    """
    found: dict[str, Any] = {"age": None, "sex": None}
    for comment in comments:
        match = _AGE_SEX.match(comment)
        if not match:
            continue
        key, text = match[1].lower(), match[2].strip()
        if key == "age" and re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", text):
            found["age"] = float(text)
        elif key == "sex":
            found["sex"] = {"m": "male", "f": "female"}.get(text[:1].lower())
    return found


def read_diagnoses(comments: Sequence[str]) -> tuple[str, ...]:
    """Return diagnostic statements: the lines after `<diagnoses>:`, the codes of `Dx:`, PTB's diagnosis lines.

    Example:
        >>> read_diagnoses(["Age: 74", "Dx: 59118001,164889003"])
        ('59118001', '164889003')
    """
    found: list[str] = []
    listing = False
    for comment in comments:
        if comment.lower().startswith("<diagnoses>"):
            listing = True
        elif listing and comment:
            found.append(comment)
        elif match := _DIAGNOSIS.match(comment):
            parts = match[2].split(",") if match[1].lower() == "dx" else [match[2]]
            found += [part.strip() for part in parts if part.strip().lower() not in ("", "unknown", "n/a", "no")]
    return tuple(dict.fromkeys(found))
