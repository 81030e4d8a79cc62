"""Tables, picture and README section of a results json, against hand-made values."""

import os

import numpy as np
import pytest
from PIL import Image

from hf_mic.__main__ import main
from hf_mic.reports.score_pictures import plot_scores
from hf_mic.reports.score_report import write_score_report
from hf_mic.reports.score_tables import markdown_report, markdown_size_table, markdown_table
from hf_mic.reports.sections import fill_section
from hf_mic.results import read_results, write_results


def row(method, dim, value, *, seed=None, task="stsb", metric="spearman", precision="float32", size=None, n=1379):
    return {
        "method": method,
        "seed": seed,
        "task": task,
        "dim": dim,
        "precision": precision,
        "bytes_per_vector": 4 * dim if size is None else size,
        "metric": metric,
        "value": value,
        "n": n,
        "ci_low": None,
        "ci_high": None,
    }


@pytest.fixture
def rows():
    return [
        row("mrl", 16, 0.70, seed=0),
        row("mrl", 16, 0.72, seed=1),
        row("mrl", 64, 0.80, seed=0),
        row("mrl", 64, 0.80, seed=1),
        row("mic", 16, 0.75, seed=0),
        row("mic", 16, 0.77, seed=1),
        row("truncation", 64, 0.7921),
        row("truncation", 16, 0.61594, precision="binary", size=2),
        row("truncation", 16, 0.3, task="scifact", metric="recall@10", n=300),
    ]


def test_table_by_hand(rows):
    assert markdown_table(rows, "stsb", "spearman").splitlines() == [
        "| method | 16 | 64 |",
        "| --- | --: | --: |",
        "| mrl | 71.00 ± 1.41 | **80.00 ± 0.00** |",
        "| mic | **76.00 ± 1.41** | – |",
        "| truncation | – | 79.21 |",
    ]
    redundancy = [row(name, 16, value, metric="eigen_cv") for name, value in (("mrl", 0.5), ("mic", 0.4))]
    assert "**40.00**" in markdown_table(redundancy, "stsb", "eigen_cv")


def test_size_table_by_hand(rows):
    assert markdown_size_table(rows, "stsb", "spearman").splitlines() == [
        "| bytes per vector | dim | precision | mrl | mic | truncation |",
        "| --- | --- | --- | --: | --: | --: |",
        "| 2 | 16 | binary | – | – | 61.59 |",
        "| 64 | 16 | float32 | 71.00 ± 1.41 | 76.00 ± 1.41 | – |",
        "| 256 | 64 | float32 | 80.00 ± 0.00 | – | 79.21 |",
    ]


def test_tables_refuse_what_they_cannot_show(rows):
    with pytest.raises(ValueError, match=r"No row has .*'task': 'sst2'"):
        markdown_table(rows, "sst2", "accuracy")
    with pytest.raises(ValueError, match=r"Two rows for .*seed 0: give repeated runs different seeds"):
        markdown_table([*rows, row("mrl", 16, 0.1, seed=0)], "stsb", "spearman")


def test_report_shows_the_chosen_metrics(rows):
    text = markdown_report({"rows": rows})
    assert "**stsb**: spearman × 100 on 1,379 test items, mean ± standard deviation over up to 2 seeds" in text
    assert markdown_table(rows, "stsb", "spearman") in text
    assert markdown_size_table(rows, "stsb", "spearman") in text
    assert "recall" not in text
    assert "recall@10 × 100 on 300 test items, by dimension" in markdown_report({"rows": rows}, ["recall@10"])
    only_binary = [entry for entry in rows if entry["precision"] == "binary"]
    assert "by dimension, stored as binary" in markdown_report({"rows": only_binary})
    with pytest.raises(ValueError, match="No row has one of the metrics"):
        markdown_report({"rows": rows}, ["f1"])


def test_picture_has_a_panel_per_task_and_a_colour_per_method(tmp_path, rows):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    plot_scores(rows, one, title="Title")
    plot_scores(rows, two, metrics=["spearman", "recall@10"])
    sizes = [Image.open(path).size for path in (one, two)]
    assert sizes[1][0] == 2 * sizes[0][0]
    pixels = np.asarray(Image.open(one).convert("RGB")).reshape(-1, 3)
    for colour in ("1f77b4", "ff7f0e", "2ca02c"):
        exact = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)])
        assert (pixels == exact).all(axis=1).sum() > 20, colour
    assert sorted(os.listdir(tmp_path)) == ["one.png", "two.png"]
    with pytest.raises(ValueError, match=r"No row has one of the metrics .* at precision 'int8'"):
        plot_scores(rows, one, precision="int8")


def test_readme_section_is_filled_and_stays_fillable(tmp_path, rows, capsys):
    source, readme = tmp_path / "mic_test.json", tmp_path / "README.md"
    write_results(source, "mic_test", {}, rows)
    readme.write_text("# Before é\n<!-- results:x -->\nold\n<!-- /results:x -->\nafter \\1\n", encoding="utf-8")
    assert main(["report", str(readme), "--name", "x", "--results", str(source)]) == 0
    assert "section x filled" in capsys.readouterr().out
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Before é\n<!-- results:x -->\n\n**stsb**")
    assert text.endswith("\n\n<!-- /results:x -->\nafter \\1\n")
    assert markdown_table(rows, "stsb", "spearman") in text
    assert "old" not in text
    assert fill_section(readme, "x", source) is False
    assert fill_section(readme, "x", source, metrics=["recall@10"]) is True
    shown = read_results(source)["rows"][0]
    assert fill_section(readme, "x", source, methods=[shown["method"]], dims=[shown["dim"]]) is True
    table = [line for line in readme.read_text().splitlines() if line.startswith("| ")]
    assert {line.split("|")[1].strip() for line in table} == {"method", "---", shown["method"]}
    assert all(line.count("|") == 3 for line in table)
    with pytest.raises(ValueError, match=r"no row with method \['nobody'\]"):
        fill_section(readme, "x", source, methods=["nobody"])
    with pytest.raises(ValueError, match="must hold the lines <!-- results:y -->"):
        fill_section(readme, "y", source)
    readme.write_text("<!-- /results:x --><!-- results:x -->")
    with pytest.raises(ValueError, match="in this order"):
        fill_section(readme, "x", source)


def test_report_writes_three_files_and_draws_what_is_asked(tmp_path, rows):
    written = write_score_report(rows, tmp_path / "new", "study", {"seed": 3}, title="Title")
    assert sorted(os.listdir(tmp_path / "new")) == ["study.json", "study.md", "study.png"]
    assert written == read_results(tmp_path / "new" / "study.json")
    assert written["config"] == {"seed": 3}
    assert (tmp_path / "new" / "study.md").read_text(encoding="utf-8") == markdown_report({"rows": rows}) + "\n"
    whole = Image.open(tmp_path / "new" / "study.png").size
    write_score_report(rows, tmp_path, "part", {}, drawn=rows[-1:], metrics=["recall@10"])
    assert Image.open(tmp_path / "part.png").size[1] < whole[1], "one method instead of three in the legend"
