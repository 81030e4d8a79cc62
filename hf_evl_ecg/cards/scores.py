"""Rows of a results json as a card compares them: task by task, model beside model, and what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_evl_ecg.qa.labels import LABELS, label_text
from hf_evl_ecg.scores.tables import HEADLINES, MIN_ITEMS

from .names import metric_name, split_task, task_text

__all__ = [
    "ERROR",
    "Line",
    "Row",
    "Run",
    "above_chance",
    "calibration_lines",
    "class_lines",
    "headline_lines",
    "intervals_apart",
    "main_lines",
]

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


def headline_lines(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Rows of several models side by side, task by task, real records first; accuracy only where nothing better is there.

    Args:
        rows: Rows of a results json.
        runs: (method, seed) of each model; the tasks are those of the first one.
    """
    shown = set(HEADLINES) - {"unparsed"}
    own = [line for line in _side_by_side(rows, runs) if line.label is None and line.metric in shown]
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


def class_lines(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Lines of single classes, real records first, of single sources only where they are not also scored together."""
    own = [line for line in _side_by_side(rows, runs) if line.label is not None]
    together = any(line.source == TOGETHER for line in own)
    kept = [line for line in own if not together or line.source in (TOGETHER, SIMULATED)]
    return sorted(kept, key=lambda line: line.source == SIMULATED)


def above_chance(lines: Sequence[Line], run: Run) -> list[tuple[str, dict[str, list[str]]]]:
    """Kind of records ("real", "simulated") and, by task, the metrics in which a model beats chance; maybe none."""
    found = []
    for where in ("real", "simulated"):
        metrics: dict[str, list[str]] = {}
        for line in lines:
            if line.chance is not None and (line.source == SIMULATED) == (where == "simulated"):
                # the sentence names the kind of records, so the task alone will do where a kind has one source
                task = task_text(line.name) if line.source in (TOGETHER, SIMULATED) else line.task
                metrics.setdefault(task, []).extend([line.metric_text] * bool(line.rows[run].get("above_chance")))
        if metrics:
            found.append((where, metrics))
    return found


def intervals_apart(lines: Sequence[Line], own: Run, other: Run) -> tuple[list[str], list[str]]:
    """Tasks and metrics in which the intervals of two models do not touch: where `own` is better, where it is worse."""
    better, worse = [], []
    for line in lines:
        a, b = line.rows[own], line.rows.get(other)
        if b is None or None in (a["ci_low"], b["ci_low"]):
            continue
        higher, lower = a["ci_low"] > b["ci_high"], a["ci_high"] < b["ci_low"]
        better += [f"{line.task}, {line.metric_text}"] * (lower if line.metric == ERROR else higher)
        worse += [f"{line.task}, {line.metric_text}"] * (higher if line.metric == ERROR else lower)
    return better, worse


def calibration_lines(rows: Sequence[Row], run: Run) -> list[Line]:
    """Calibration errors of a model, of all real records together where there are such rows."""
    return main_lines([line for line in _side_by_side(rows, [run]) if line.metric == "calibration_error"])[0]


def _side_by_side(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Lines of the tasks, classes and metrics that the first model has, its own row first."""
    lines: dict[tuple[str, str], Line] = {}
    for run in runs:
        for row in rows:
            key = row["task"], row["metric"]
            if (row["method"], row["seed"]) == run and (run == runs[0] or key in lines):
                lines.setdefault(key, Line(*split_task(row["task"]), row["metric"])).rows[run] = row
    return list(lines.values())
