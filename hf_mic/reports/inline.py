"""Names that others chose, in Markdown."""

import re

__all__ = ["inline"]


def inline(text: str) -> str:
    r"""Names of data and methods as one line that Markdown shows as it is.

    Example:
        >>> inline("a|b\n# c")
        'a\\|b # c'
    """
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))
