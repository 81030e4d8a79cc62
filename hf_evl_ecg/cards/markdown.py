"""Markdown of a card: templates/*.md filled with facts, tables, and text of others made harmless."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_evl_ecg.scores.names import method_name, plain
from hf_evl_ecg.scores.tables import score_text, seeds_text, value_text

__all__ = ["fill_template", "inline", "listed"]


def fill_template(name: str, facts: Mapping[str, Any]) -> str:
    """Fill a template with facts; sections that were left out leave no gap.

    Args:
        name: File name in the folder ``templates``.
        facts: What its variables stand for.

    Raises:
        jinja2.UndefinedError: A variable of the template is not among the facts.
    """
    return re.sub(r"\n{3,}", "\n\n", _TEMPLATES.get_template(name).render(facts)).strip()


def inline(text: str, longest: int | None = None) -> str:
    r"""Text of a model, data set or user as one line that Markdown shows as it is.

    Example:
        >>> inline("# A | *b*\n<img>")
        '# A \\| \\*b\\* \\<img\\>'
    """
    line = " ".join(text.split())
    line = line if longest is None or len(line) <= longest else line[: longest - 1] + "…"
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", line)


def listed(values: Sequence[str]) -> str:
    """Values as they stand in a sentence.

    Example:
        >>> listed(["rhythm", "axis", "heart rate"])
        'rhythm, axis and heart rate'
    """
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


# No autoescape: that is for HTML. What models and data sets wrote passes through `inline` in the templates.
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,  # a misspelt fact must not become an empty sentence
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "inline": inline,
    "listed": listed,
    "thousands": "{:,}".format,
    "number": "{:g}".format,
    "plain": plain,
    "method": method_name,
    "value": value_text,
    "score": score_text,
    "seeds": seeds_text,
}
