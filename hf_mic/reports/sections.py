"""A section of a markdown file, such as a README, that is filled from a results json."""

import re
from collections.abc import Sequence
from pathlib import Path

from hf_mic.files import write_text
from hf_mic.results import read_results

from .score_tables import HEADLINE_METRICS, markdown_report

__all__ = ["fill_section"]


def fill_section(
    path: str | Path,
    name: str,
    results_path: str | Path,
    *,
    metrics: Sequence[str] = HEADLINE_METRICS,
    methods: Sequence[str] | None = None,
    dims: Sequence[int] | None = None,
) -> bool:
    """Fill the section ``<!-- results:NAME -->`` … ``<!-- /results:NAME -->`` of a markdown file from a results json.

    Args:
        path: The markdown file; replaced as a whole.
        name: Name of the section.
        results_path: The results json.
        metrics: Which metrics to show.
        methods: Which methods to show; default all.
        dims: Which dimensions to show; default all.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: If the file does not hold the two markers exactly once each, in order, or a method or dimension has no
            row.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if text.count(begin) != 1 or text.count(end) != 1 or not section.search(text):
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order.")
    results = read_results(results_path)
    for key, wanted in (("method", methods), ("dim", dims)):
        present = {row[key] for row in results["rows"]}
        if missing := [value for value in wanted or () if value not in present]:
            raise ValueError(f"{results_path} has no row with {key} {missing}; there are {sorted(present, key=str)}.")
        if wanted:
            results["rows"] = [row for row in results["rows"] if row[key] in wanted]
    made = f"commit {results['commit'][:12]}" if results["commit"] else "no commit recorded"
    source = f"From `{Path(results_path).name}` ({made}, {results['machine']['cpu']})."
    content = f"{begin}\n\n{markdown_report(results, metrics)}\n\n{source}\n\n{end}"
    filled = section.sub(lambda _: content, text)
    if filled != text:
        write_text(path, filled)
    return filled != text
