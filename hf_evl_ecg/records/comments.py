"""What the comment lines of a WFDB header say about the patient, in the habits of LUDB, the Challenges and PTB."""

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["OVER_89", "PatientNotes", "age_in_years", "read_comments"]

OVER_89 = 90.0  # years; what an age that is only said to be over 89 is taken as
_WRITTEN_OVER_89 = 300.0  # by PTB-XL, and so by the Challenge
_OLDEST = 122.0

_AGE_SEX = re.compile(r"^<?(age|sex)>?\s*:\s*(.*)$", re.IGNORECASE)
_AGE = re.compile(r"[0-9]{1,3}(\.[0-9]+)?")
_DIAGNOSIS = re.compile(r"^(dx|reason for admission|additional diagnoses)\s*:\s*(.*)$", re.IGNORECASE)


class PatientNotes(NamedTuple):
    """What a header's comments say of the patient.

    Attributes:
        age: In years; None where it is unknown; `OVER_89` where it is said to be over 89.
        sex: "male", "female" or None.
        diagnoses: Diagnostic statements or codes, in their order, each once.
    """

    age: float | None
    sex: str | None
    diagnoses: tuple[str, ...]


def age_in_years(age: float | None) -> float | None:
    """An age as stated → in years: PTB-XL's 300 means "over 89" and is `OVER_89`; what no human reaches is unknown.

    Example:
        >>> age_in_years(56), age_in_years(300), age_in_years(999), age_in_years(-1)
        (56, 90.0, None, None)
    """
    if age == _WRITTEN_OVER_89:
        return OVER_89
    return age if age is not None and 0 <= age <= _OLDEST else None


def read_comments(comments: Sequence[str]) -> PatientNotes:
    """Read age, sex and diagnoses: the lines after LUDB's `<diagnoses>:`, the codes of the Challenges' `Dx:`, PTB's own lines.

    Example:
        >>> read_comments(["<age>: 51", "<sex>: F", "Dx: 59118001,164889003"])
        PatientNotes(age=51.0, sex='female', diagnoses=('59118001', '164889003'))
    """
    age: float | None = None
    sex: str | None = None
    diagnoses: list[str] = []
    listing = False  # after "<diagnoses>:", LUDB gives one statement a line up to the end
    for comment in comments:
        if match := _AGE_SEX.match(comment):
            text = match[2].strip()
            if match[1].lower() == "sex":
                sex = {"m": "male", "f": "female"}.get(text[:1].lower())
            elif _AGE.fullmatch(text):
                age = age_in_years(float(text))
        if comment.lower().startswith("<diagnoses>"):
            listing = True
        elif listing and comment:
            diagnoses.append(comment)
        elif match := _DIAGNOSIS.match(comment):
            parts = match[2].split(",") if match[1].lower() == "dx" else [match[2]]
            diagnoses += [part.strip() for part in parts if part.strip().lower() not in ("", "unknown", "n/a", "no")]
    return PatientNotes(age, sex, tuple(dict.fromkeys(diagnoses)))
