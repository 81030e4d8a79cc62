"""A markdown report as one HTML page with its pictures inside, to hand on as a single file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping

__all__ = ["markdown_page"]

_PRIVATE = 0xE000  # first character of the range that means nothing to anybody
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
td.number, th.number { text-align: right; }
img { max-width: 100%; }
code { background: #f3f3f3; padding: 0 .2rem; }
"""


def markdown_page(text: str, *, title: str, pictures: Mapping[str, bytes] | None = None) -> str:
    """Turn the markdown that this package writes into a page that needs no other file.

    Understood are headings, paragraphs, ``- `` lists, pipe tables, pictures on a line of their own, ``**bold**`` and
    `` `code` ``; every other character is shown as it is.

    Args:
        text: The markdown, blocks separated by blank lines.
        title: Title of the page.
        pictures: File name → png. A picture that is not among them keeps its name as address.

    Returns:
        The page.

    Example:
        >>> "<h1>A &amp; B</h1>" in markdown_page("# A & B", title="t")
        True
    """
    blocks = [_block(block, pictures or {}) for block in re.split(r"\n{2,}", text.strip())]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(blocks) + "\n</body></html>\n"


def _block(block: str, pictures: Mapping[str, bytes]) -> str:
    if heading := re.fullmatch(r"(#{1,6}) (.+)", block):
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    if picture := re.fullmatch(r"!\[([^\]]*)\]\(([^)]+)\)", block):
        name = picture[2]
        data = base64.b64encode(pictures[name]).decode() if name in pictures else None
        source = f"data:image/png;base64,{data}" if data else html.escape(name, quote=True)
        return f'<img alt="{html.escape(picture[1], quote=True)}" src="{source}">'
    lines = block.split("\n")
    if all(line.startswith("- ") for line in lines):
        return "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    if len(lines) > 1 and all(line.startswith("|") for line in lines):
        return _table(lines)
    return f"<p>{_inline(block)}</p>"


def _table(lines: list[str]) -> str:
    split = (re.split(r"(?<!\\)\|", line.removeprefix("|").removesuffix("|")) for line in lines)
    header, alignment, *body = ([cell.strip() for cell in cells] for cells in split)
    kinds = [' class="number"' if cell.endswith(":") else "" for cell in alignment]

    def row(cells: list[str], tag: str) -> str:
        shown = zip(cells, kinds, strict=True)
        return "<tr>" + "".join(f"<{tag}{kind}>{_inline(cell)}</{tag}>" for cell, kind in shown) + "</tr>"

    return "<table>" + row(header, "th") + "".join(row(cells, "td") for cells in body) + "</table>"


def _inline(text: str) -> str:
    # Escaped marks wait as private characters, so that they are neither read as marks nor lost.
    text = re.sub(r"\\([\\`*\[\]<>|])", lambda mark: chr(_PRIVATE + ord(mark[1])), text)
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    return re.sub("[\ue000-\ue07f]", lambda mark: html.escape(chr(ord(mark[0]) - _PRIVATE), quote=False), text)
