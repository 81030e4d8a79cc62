"""Which options an answer chooses, read strictly: by letter or by text, no guess."""

import re

from hf_evl_ecg.qa.parsing import parse_option, parse_yes_no
from hf_evl_ecg.qa.prompts import CHOICE_LETTERS

from .chains import Step

__all__ = ["read_step"]

_LEAD = re.compile(r"(?:lead\s+)?(aVR|aVL|aVF|III|II|I|V[1-6])", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:,|;|/|\band\b|\n)\s*", re.IGNORECASE)
_OPENING = re.compile(r"^\s*(?:the\s+)?(?:answers?|leads)\s*(?:is|are)?\s*:?\s+", re.IGNORECASE)
_FURTHER = re.compile(r"\bfurther findings\b", re.IGNORECASE)


def read_step(text: str, step: Step) -> frozenset[int] | None:
    """Indices of the options that an answer chooses.

    - One option: its letter, its text, or both, as `hf_evl_ecg.qa.parsing.parse_option` reads them; a yes or no also where a sentence
      begins with it.
    - Leads: a list of letters or of leads and nothing else, as "I" is a word too.

    Returns:
        None if that cannot be read: nothing, several options where one is right, or a contradiction. It is never right.

    Example:
        >>> step = Step("lead", "Which leads?", ("Lead I", "Lead V1", "Lead V2"), frozenset({1, 2}))
        >>> sorted(read_step("V1 and V2", step)), sorted(read_step("B, C", step)), read_step("I think V1", step)
        ([1, 2], [1, 2], None)
    """
    text = text.replace("*", "").strip()
    if step.stage == "lead":
        return _read_leads(text, step)
    plain = text.strip(" .[]()").casefold()
    for index, option in enumerate(step.options):
        if plain == option.strip(" .[]()").casefold():
            return frozenset({index})
    letters = re.match(rf"\(?([{CHOICE_LETTERS[: len(step.options)]}])(?:[.):\s]|$)", text)
    if step.options[:2] == ("Yes", "No") and not letters:
        further = len(step.options) > 2 and _FURTHER.search(text) is not None
        said = parse_yes_no(text)
        if further:
            return frozenset({2}) if said is None else None
        return None if said is None else frozenset({0 if said else 1})
    chosen = parse_option(text, step.options)
    return None if chosen is None else frozenset({chosen})


def _read_leads(text: str, step: Step) -> frozenset[int] | None:
    parts = [part.strip(" .()[]") for part in _BETWEEN.split(_OPENING.sub("", text)) if part.strip(" .()[]")]
    names = [option.removeprefix("Lead ").casefold() for option in step.options]
    letters = CHOICE_LETTERS[: len(names)]
    found = set()
    for part in parts:
        if len(part) == 1 and part in letters:  # no option has more than 8 leads, so that "I" is none of them
            found.add(letters.index(part))
            continue
        lettered = re.fullmatch(rf"([{letters}])[.):]\s*(.+)", part)
        lead = _LEAD.fullmatch(lettered.group(2) if lettered else part)
        if lead is None or lead.group(1).casefold() not in names:
            return None
        index = names.index(lead.group(1).casefold())
        if lettered and letters.index(lettered.group(1)) != index:
            return None
        found.add(index)
    return frozenset(found) or None
