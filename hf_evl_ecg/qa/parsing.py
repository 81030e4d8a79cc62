"""What a generated answer says: labels, yes or no, one of the options, a number. What it does not say is never guessed.

Labels match as whole words, by any of their wordings, unless the sentence denies them; a shorter name inside a longer one
("left bundle branch block" in "incomplete left bundle branch block") does not count. `hf_evl_ecg.qa.ecgbench` reproduces
the matching of the released ECGBench scorers instead.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from .labels import LABELS, PTBXL_SUPERCLASSES, label_names, label_text
from .prompts import CHOICE_LETTERS, NOTHING_FOUND

__all__ = [
    "LabelAnswer",
    "convert_to_unit",
    "parse_labels",
    "parse_number",
    "parse_option",
    "parse_options",
    "parse_yes_no",
]

_BROAD = frozenset(PTBXL_SUPERCLASSES) - {"NORM"}  # named by their own word inside a specific finding too
_CLAUSE = re.compile(r"[.;:!?\n]+(?=\s|$)|\b(?:but|however|although|though|except|yet)\b", re.IGNORECASE)
_DENIES_NEXT = re.compile(
    r"\b(?:no|not|non|without|absence of|absent|negative for|rules? out|ruled out|excludes?|excluding|free of|neither|nor|"
    r"never|lacks?|unlikely|isn't|aren't|doesn't|don't|cannot|otherwise)\b",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"^\W*(?:(?:is|are|was|were|has been|have been|can be)\s+)?"
    r"(?:not\b|absent\b|excluded\b|ruled out\b|unlikely\b|cannot\b|isn't\b|aren't\b)",
    re.IGNORECASE,
)
_LIST_GOES_ON = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)

_UNITS: dict[str, dict[str, int]] = {  # unit asked for → wordings of the same quantity and their factors
    "milliseconds": {"milliseconds": 1, "millisecond": 1, "msec": 1, "ms": 1}
    | dict.fromkeys(("seconds", "second", "secs", "sec", "s"), 1000),
    "beats per minute": dict.fromkeys(
        ("beats per minute", "beats/minute", "beats/min", "bpm", "per minute", "/minute", "/min"), 1
    ),
}
_NUMBER = r"(?<![\w.,/])[-\u2212]?\d+(?:[.,]\d+)*(?!\d|[.,]\d)"


@dataclass(frozen=True)
class LabelAnswer:
    """Labels that an answer asserts.

    Attributes:
        labels: Codes, in the order of the labels asked about.
        parsed: False where the answer names none of the labels, neither to assert nor to deny it, and does not say that
            there is nothing either.
    """

    labels: tuple[str, ...]
    parsed: bool


def parse_labels(text: str, codes: Sequence[str]) -> LabelAnswer:
    """Read which of some labels an answer asserts.

    Wordings match in any case, codes ("AF") only in capitals. A label is denied by a word before it in the same part of
    the sentence ("no", "without", "ruled out" …; over commas only where the list goes on with "or") or right behind it
    ("is absent", "is not seen").

    Args:
        text: The generated answer.
        codes: Labels to look for, of `hf_evl_ecg.qa.labels.LABELS`.

    Raises:
        ValueError: An unknown label.

    Example:
        >>> parse_labels("Atrial fibrillation, no LBBB.", ["NORM", "AF", "LBBB"])
        LabelAnswer(labels=('AF',), parsed=True)
        >>> parse_labels("This ECG is ABNORMAL.", ["NORM"]).parsed
        False
    """
    for code in codes:
        label_text(code)  # refuses an unknown one
    asserted: set[str] = set()
    denied: set[str] = set()
    for start, end, code in _mentions(text):
        (denied if _is_denied(text, start, end) else asserted).add(code)
    nothing = _words(NOTHING_FOUND).search(text) is not None
    found = tuple(code for code in codes if code in asserted)
    return LabelAnswer(found, bool(found) or nothing or bool(denied & set(codes)))


def parse_yes_no(text: str, label: str | None = None) -> bool | None:
    """Read a yes or a no.

    That is the word the answer begins with, else what it says of the label asked about, else the only one of the two
    words it holds.

    Args:
        text: The generated answer.
        label: Code of the label asked about, if there is one.

    Returns:
        None if the answer is neither.

    Example:
        >>> parse_yes_no("Yes, it does."), parse_yes_no("AF is present.", "AF"), parse_yes_no("Perhaps")
        (True, True, None)
    """
    if first := re.match(r"\W*(yes|no)\b", text, re.IGNORECASE):
        return first.group(1).lower() == "yes"
    if label is not None:
        answer = parse_labels(text, [label])
        if answer.parsed:
            return bool(answer.labels)
    words = {word.lower() for word in re.findall(r"\b(?:yes|no)\b", text, re.IGNORECASE)}
    return words == {"yes"} if len(words) == 1 else None


def parse_option(text: str, options: Sequence[str]) -> int | None:
    """Read which option an answer chooses, by its letter, its text, or both.

    A letter counts where it stands alone, in brackets, before a full stop, colon, comma or bracket, or before its own
    option's text ("A normal ECG" is no choice of A).

    Args:
        text: The generated answer.
        options: Texts of the options; their letters are A, B, C …

    Returns:
        Index of the option; None if there is none, several, or letter and text disagree.

    Example:
        >>> options = ["sinus rhythm", "atrial fibrillation"]
        >>> parse_option("B", options), parse_option("It is sinus rhythm.", options), parse_option("B. sinus rhythm", options)
        (1, 0, None)
    """
    if not 1 <= len(options) <= len(CHOICE_LETTERS):
        raise ValueError(f"{len(options)} options: 1 to {len(CHOICE_LETTERS)} are allowed")
    letters = _letters(text, options)
    texts = _named_options(text, options)
    chosen = letters & texts if letters and texts else letters | texts
    return chosen.pop() if len(chosen) == 1 else None


def parse_options(text: str, options: Sequence[str]) -> tuple[int, ...]:
    """Read which of some options an answer names, by their texts as whole words; none that it denies.

    Args:
        text: The generated answer.
        options: Texts of the options.

    Returns:
        Their indices in ascending order; empty if it names none.

    Example:
        >>> parse_options("lead II and lead V1", ["lead I", "lead II", "lead V1"])
        (1, 2)
    """
    return tuple(sorted(_named_options(text, options)))


def parse_number(text: str, unit: str) -> float | None:
    """Read the one value an answer states, in the unit asked for.

    Numbers with a unit of that quantity count before bare ones, and are converted (0.16 s → 160 milliseconds); a number
    with another unit does not count.

    Args:
        text: The generated answer.
        unit: "milliseconds" or "beats per minute".

    Returns:
        None if there is no number, a range, several different ones, or one that is none, such as 1.2.3.

    Raises:
        ValueError: An unknown unit.

    Example:
        >>> parse_number("About 0.16 s", "milliseconds"), parse_number("60-70 bpm", "beats per minute")
        (160.0, None)
    """
    factors = _factors(unit)
    names = "|".join(re.escape(name) for name in sorted(factors, key=len, reverse=True))
    if re.search(  # a range is no value, not even its middle
        rf"{_NUMBER}\s*(?:-|\u2013|\bto\b|\band\b|\bor\b)\s*\d+(?:[.,]\d+)*\s*(?:{names})?(?![\w/])",
        text,
        re.IGNORECASE,
    ):
        return None
    with_unit = set()
    for match in re.finditer(rf"({_NUMBER})[\s-]*({names})(?![\w/])", text, re.IGNORECASE):
        with_unit.add(_value(match.group(1)) * factors[match.group(2).lower()])
    bare = {_value(m.group()) for m in re.finditer(rf"{_NUMBER}(?!\s*-?[A-Za-z/%\u00b0\u00b5])", text)}
    values = with_unit or bare  # "72 bpm in lead 2": what has the unit is meant
    value = values.pop() if len(values) == 1 else None
    return value if value is not None and math.isfinite(value) else None  # "1.2.3", or digits beyond any number


def convert_to_unit(value: float, given: str, unit: str) -> float:
    """Convert a value between wordings of one quantity.

    Raises:
        ValueError: An unknown unit, or one of another quantity.

    Example:
        >>> convert_to_unit(0.4, "s", "milliseconds")
        400.0
    """
    factors = _factors(unit)
    if given not in factors:
        raise ValueError(f"given={given!r}: it cannot be converted to {unit}, allowed are {sorted(factors)}")
    return value * factors[given]


def _factors(unit: str) -> dict[str, int]:
    if unit not in _UNITS:
        raise ValueError(f"unknown unit {unit!r}: allowed are {sorted(_UNITS)}")
    return _UNITS[unit]


def _value(digits: str) -> float:
    """Number from text; a comma before three digits separates thousands, any other is a decimal sign."""
    digits = re.sub(r",(?=\d{3}(?:\D|$))", "", digits.replace("\u2212", "-"))
    return float(digits.replace(",", ".")) if digits.replace(",", ".").count(".") < 2 else float("nan")


@cache
def _words(name: str, exact_case: bool = False) -> re.Pattern[str]:
    """Pattern of a name as whole words; spaces, hyphens and slashes are one, and a plural counts."""
    parts = [re.escape(part) for part in re.split(r"[\s\-/\u2010-\u2015]+", name)]
    body = r"[\s\-/\u2010-\u2015]+".join(parts)
    plural = "" if exact_case else r"(?:s|es)?"
    return re.compile(rf"(?<![^\W_]){body}{plural}(?![^\W_])", 0 if exact_case else re.IGNORECASE)


@cache
def _label_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((code, _words(name, name == code)) for code in LABELS for name in label_names(code))


def _mentions(text: str) -> list[tuple[int, int, str]]:
    """(start, end, code) of every label named, those inside a longer name left out unless they are a broad class."""
    found = {(m.start(), m.end(), code) for code, pattern in _label_patterns() for m in pattern.finditer(text)}
    return sorted(
        (start, end, code)
        for start, end, code in found
        if code in _BROAD or not any(s <= start and end <= e and e - s > end - start for s, e, _ in found)
    )


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether the clause around a mention denies it."""
    breaks = [m.span() for m in _CLAUSE.finditer(text)]
    left = max((stop for _, stop in breaks if stop <= start), default=0)
    right = min((begin for begin, _ in breaks if begin >= end), default=len(text))
    before, after = text[left:start], text[end:right]
    if _DENIED_BEFORE.match(after.split(",")[0]):
        return True
    cues = list(_DENIES_NEXT.finditer(before))
    if not cues:
        return False
    between = before[cues[-1].end() :]
    commas = between.count(",")
    if commas == 0:
        return True
    rest = between.rsplit(",", 1)[1] + after  # the list after the cue is one of alternatives
    return _LIST_GOES_ON.search(rest) is not None


def _letters(text: str, options: Sequence[str]) -> set[int]:
    allowed = CHOICE_LETTERS[: len(options)]
    found = set()
    for match in re.finditer(rf"(?<![\w'])\(?([{allowed}])(?=[.):,]|\s*$|\s)", text):
        rest = text[match.end() :]
        index = allowed.index(match.group(1))
        own = _words(options[index]).match(rest.lstrip(" .):,-"))
        if own or not rest.strip() or rest[0] in ".):,":
            found.add(index)
    for pair in re.finditer(rf"\b([{allowed}])\s+(?:or|and)\s+([{allowed}])\b", text):
        found |= {allowed.index(letter) for letter in pair.groups()}
    return found


def _named_options(text: str, options: Iterable[str]) -> set[int]:
    """Indices of options named in the text, those inside a longer option's name left out."""
    spans = [(m.start(), m.end(), i) for i, option in enumerate(options) for m in _words(option).finditer(text)]
    kept = [
        (start, end, i)
        for start, end, i in spans
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans)
    ]
    return {i for start, end, i in kept if not _is_denied(text, start, end)}
