"""Tables made from rows, and sources that are scored together."""

from hf_evl_ecg.scores.models import by_source
from hf_evl_ecg.scores.tables import markdown_table, seed_table


def test_table_marks_what_beats_chance():
    row = {"method": "a", "seed": None, "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "method": "b", "value": 0.6, "ci_low": 0.4, "ci_high": 0.7, "above_chance": False},
    ]
    lines = markdown_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | **80.0 [70.0, 90.0]** | 60.0 [40.0, 70.0] |"


def test_seeds_are_summarised():
    row = {"method": "a", "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "seed": 0, "value": 0.6, "ci_low": 0.4, "ci_high": 0.9, "above_chance": False},
        {**row, "seed": 1, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "method": "b", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "task": "s:t/AF", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
    ]
    lines = seed_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | 70.0 ± 14.1 (1/2) | 70.0 (1/1) |"
    assert len(lines) == 5


def test_real_sources_are_also_scored_together():
    item = {"format": "closed", "answer": "yes", "labels": ["AF"]}
    classes = {"format": "open", "answer": "x", "labels": ["AF"], "options": ["atrial fibrillation"]}
    named = [("ludb", item), ("cinc/ptb", item), ("simulated", item), ("ludb", classes)]
    groups = by_source([({"source": source, **item}, None) for source, item in named])
    assert {name: len(pairs) for name, pairs in groups.items()} == {"real": 2, "ludb": 2, "cinc/ptb": 1, "simulated": 1}
    assert set(by_source([({"source": "ludb", **item}, None), ({"source": "simulated", **item}, None)])) == {
        "ludb",
        "simulated",
    }
