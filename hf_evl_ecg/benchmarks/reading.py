"""What an answer to a benchmark says, read strictly: labels by whole words, one letter, options of the question."""

import re
from collections.abc import Sequence

from hf_evl_ecg.qa.parsing import parse_labels, parse_option, parse_options
from hf_evl_ecg.qa.prompts import CHOICE_LETTERS

__all__ = ["choice_options", "option_texts", "read_choice", "read_labels", "read_options"]

# Names in CODE-15% → codes of `hf_evl_ecg.qa.labels`; the other names of ECGBench are codes there.
_CODES = {"1dAVb": "I-AVB", "SB": "SBRAD", "ST": "STACH"}
_SHORT = {  # what these names stand for, so that one parser sees denials; "ST depression" is no tachycardia
    re.compile(r"\bSB\b"): "sinus bradycardia",
    re.compile(r"\bST\b(?![\s/-]*(?:T\b|T-|seg|elev|depr|chang|abnorm|dev))"): "sinus tachycardia",
}
_ABNORMAL = re.compile(r"\bABNORMAL\b")
_CHOICE = re.compile(r"(?:^|\s)\(?([A-H])[.):]\s*(.+?)(?=\s+\(?[A-H][.):]\s|\s*$)", re.DOTALL)
_OPTIONS_END = re.compile(r"\s*Only answer based on the given Options.*", re.IGNORECASE | re.DOTALL)


def read_labels(text: str, labels: Sequence[str]) -> frozenset[str] | None:
    """Labels of a list that an answer asserts.

    They count as whole words, by their name or any wording of `hf_evl_ecg.qa.labels`, unless the sentence denies them. "NORM" and
    "ABNORMAL" are told apart; where CODE-15% asks, they are labels too.

    Args:
        text: The answer.
        labels: Names as the benchmark writes them.

    Returns:
        None if the answer names none of them, neither to assert nor to deny it.

    Example:
        >>> read_labels("ABNORMAL: STTC, no CD", ("NORM", "MI", "STTC", "CD", "HYP"))
        frozenset({'STTC'})
        >>> read_labels("STTC", ("ST", "AF")) is None
        True
    """
    if "ST" in labels:
        for name, words in _SHORT.items():
            text = name.sub(words, text)
    codes = {_CODES.get(label, label): label for label in labels if label != "ABNORMAL"}
    answer = parse_labels(text, list(codes))
    found = {codes[code] for code in answer.labels}
    abnormal = "ABNORMAL" in labels and _ABNORMAL.search(text) is not None
    return frozenset(found | {"ABNORMAL"}) if abnormal else frozenset(found) if answer.parsed else None


def choice_options(question: str) -> tuple[str, ...]:
    """Texts of the lettered options in a question, A first; none where the letters do not follow each other.

    Example:
        >>> choice_options("Which rhythm? A. sinus rhythm B. atrial fibrillation")
        ('sinus rhythm', 'atrial fibrillation')
    """
    found = _CHOICE.findall(question)
    letters = "".join(letter for letter, _ in found)
    return tuple(text.strip() for _, text in found) if len(found) > 1 and CHOICE_LETTERS.startswith(letters) else ()


def read_choice(text: str, question: str) -> str | None:
    """The letter that an answer chooses, by letter, text or both; None for none, several, or a contradiction.

    Example:
        >>> read_choice("It is atrial fibrillation.", "Which? A. sinus rhythm B. atrial fibrillation")
        'B'
        >>> read_choice("A or B", "Which? A. sinus rhythm B. atrial fibrillation") is None
        True
    """
    # Without options in the question only letters count: these texts occur in no answer.
    options = choice_options(question) or tuple(f"\0{letter}" for letter in CHOICE_LETTERS)
    index = parse_option(text, options)
    return None if index is None else CHOICE_LETTERS[index]


def option_texts(question: str) -> tuple[str, ...]:
    """Options that an ECG-QA question lists behind "Options:".

    Example:
        >>> option_texts("Which leads? Options: lead I, lead II. Only answer based on the given Options without any explanation.")
        ('lead I', 'lead II')
    """
    if "Options:" not in question:
        return ()
    listed = _OPTIONS_END.sub("", question.split("Options:")[-1])
    return tuple(option for part in listed.split(",") if (option := part.strip().rstrip(".")))


def read_options(text: str, question: str) -> frozenset[str] | None:
    """Options of an ECG-QA question that an answer names; without options in the question the whole text counts.

    Returns:
        None if it names none.

    Example:
        >>> sorted(read_options("lead II", "Which leads? Options: lead I, lead II"))
        ['lead II']
    """
    options = option_texts(question)
    if not options:
        plain = " ".join(text.casefold().split()).rstrip(".")
        return frozenset({plain}) if plain else None
    return frozenset(options[index] for index in parse_options(text, options)) or None
