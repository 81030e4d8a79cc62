"""Markdown of the cards: templates/*.md filled with facts, and text of others made harmless."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_mic.reports.inline import inline

__all__ = ["fill_template", "listed"]


def fill_template(name: str, facts: Mapping[str, Any]) -> str:
    """Fill a template with facts; sections that were left out leave no gap.

    Args:
        name: File name in the folder ``templates``.
        facts: What its variables stand for.

    Raises:
        jinja2.UndefinedError: If a variable of the template is not among the facts.
    """
    return re.sub(r"\n{3,}", "\n\n", _TEMPLATES.get_template(name).render(facts)).strip()


def listed(values: Sequence[Any]) -> str:
    """Values as they stand in a sentence.

    Example:
        >>> listed([8, 16, 0.5])
        '8, 16 and 0.5'
    """
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    interval = "" if row["ci_low"] is None else f" [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    return f"{100 * row['value']:.1f}{interval}"


# No autoescape: that is for HTML. Names that others chose pass through `inline` in the templates.
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,  # a misspelt fact must not become an empty sentence
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "inline": inline,
    "listed": listed,
    "interval": _interval,
    "number": "{:g}".format,
    "thousands": "{:,}".format,
}
