"""Names that others chose stand in reports as they are, and do nothing."""

import re

from hf_mic.inspection.page import markdown_page
from hf_mic.reports.inline import inline
from hf_mic.reports.score_tables import markdown_report

EVIL = "a|b](http://x) <img src=x> **c**\n# d `e` \\"
SHOWN = "a|b](http://x) &lt;img src=x&gt; **c** # d `e` \\"


def test_a_name_is_one_line_without_marks():
    plain = inline(EVIL)
    assert "\n" not in plain
    assert not re.search(r"(?<!\\)[\[\]<>|`*]", plain)


def test_the_page_shows_the_name_and_not_its_marks():
    text = f"# Of {inline(EVIL)}\n\n| {inline(EVIL)} | 1 |\n| --- | --: |\n| x | 2 |\n\n- {inline(EVIL)}"
    page = markdown_page(text, title=EVIL)
    body = page.partition("<body>")[2]
    assert f"<h1>Of {SHOWN}</h1>" in body
    assert f'<th>{SHOWN}</th><th class="number">1</th>' in body
    assert f"<li>{SHOWN}</li>" in body
    assert "<img" not in page


def test_names_of_tasks_and_methods_are_made_harmless():
    row = {"seed": 0, "metric": "spearman", "dim": 8, "value": 0.5, "n": 9, "ci_low": None, "ci_high": None}
    row |= {"precision": "float32", "bytes_per_vector": 32}
    report = markdown_report({"rows": [row | {"method": EVIL, "task": EVIL}]})
    assert inline(EVIL) in report
    assert EVIL not in report
    table = [line for line in report.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
