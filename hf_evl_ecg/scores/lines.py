"""Rows of a results json as tasks and metrics with several models side by side, and which of them lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_evl_ecg.qa.labels import LABELS, label_text

from .names import metric_name, split_task, task_text
from .tables import HEADLINES, MIN_ITEMS

__all__ = ["ERROR", "SIMULATED", "TOGETHER", "Line", "Row", "Run", "headline_lines", "main_lines", "side_by_side"]

Row = Mapping[str, Any]
Run = tuple[str, int | None]  # method and seed: a model

TOGETHER, SIMULATED = "real", "simulated"  # sources of rows: all real records together, none of them
ERROR = "mean_absolute_error"  # in the unit asked for; the less the better


@dataclass
class Line:
    """One task, or one class of it, and one metric with the rows of several models."""

    source: str
    name: str
    label: str | None
    metric: str
    rows: dict[Run, Row] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Questions that the first model, which the card is about, was scored on."""
        return int(next(iter(self.rows.values()))["n"])

    @property
    def chance(self) -> float | None:
        """Score of the best answer that ignores the ECG, on the same questions; None where there is none."""
        return next(iter(self.rows.values())).get("chance")

    @property
    def task(self) -> str:
        """Source and question for readers."""
        return task_text(self.name, self.source)

    @property
    def class_text(self) -> str:
        """The class for readers."""
        return label_text(self.label) if self.label in LABELS else str(self.label)

    @property
    def metric_text(self) -> str:
        """The metric for readers."""
        return metric_name(self.metric)


def side_by_side(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Lines of the tasks, classes and metrics that the first model has, its own row first."""
    lines: dict[tuple[str, str], Line] = {}
    for run in runs:
        for row in rows:
            key = row["task"], row["metric"]
            if (row["method"], row["seed"]) == run and (run == runs[0] or key in lines):
                lines.setdefault(key, Line(*split_task(row["task"]), row["metric"])).rows[run] = row
    return list(lines.values())


def headline_lines(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Rows of several models side by side, task by task, real records first; accuracy only where nothing better is there.

    Args:
        rows: Rows of a results json.
        runs: (method, seed) of each model; the tasks are those of the first one.
    """
    shown = set(HEADLINES) - {"unparsed"}
    own = [line for line in side_by_side(rows, runs) if line.label is None and line.metric in shown]
    kept: list[Line] = []
    for task in dict.fromkeys((line.source, line.name) for line in own):
        group = [line for line in own if (line.source, line.name) == task]
        group.sort(key=lambda line: HEADLINES.index(line.metric))
        kept += group if group[0].metric == "accuracy" else [line for line in group if line.metric != "accuracy"]
    return sorted(kept, key=lambda line: (line.source == SIMULATED, line.source != TOGETHER))


def main_lines(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Lines that a card leads with, and those of single sources where all real records are also scored together.

    Tasks with fewer than 20 items are left out of both, unless there are no others.
    """
    items: dict[tuple[str, str], int] = {}
    for line in lines:
        items[line.source, line.name] = max(items.get((line.source, line.name), 0), line.n)
    large = [line for line in lines if items[line.source, line.name] >= MIN_ITEMS] or list(lines)
    if not any(line.source == TOGETHER for line in large):
        return large, []
    main = [line for line in large if line.source in (TOGETHER, SIMULATED)]
    return main, [line for line in large if line not in main]
