"""Tables of a model card from the rows of a results json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from hf_evl_ecg.qa.labels import LABELS, label_text

from .sources import DataSource, find_source

__all__ = [
    "HEADLINES",
    "METHOD_NAMES",
    "Line",
    "class_table",
    "format_value",
    "full_task_text",
    "headline_rows",
    "main_lines",
    "metric_name",
    "plain",
    "score_table",
    "seed_table",
    "source_table",
    "split_task",
    "task_text",
]

Row = Mapping[str, Any]
Run = tuple[str, int | None]

HEADLINES = (
    *("balanced_accuracy", "macro_f1", "within_tolerance", "report_f1", "accuracy", "auc", "macro_auc"),
    "mean_absolute_error",
)
"""Metrics that cards show, the main one of a task first; accuracy only where nothing above it is there."""

METHOD_NAMES = {
    "teacher": "teacher",
    "sft": "fine-tuning without teacher",
    "uld": "ULD",
    "evl_ecg": "EVL-ECG, anchored",
    "evl_ecg_paper": "EVL-ECG, as in the paper",
}
"""Names of methods for readers; others go by their own."""

_METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "within_tolerance": "within tolerance",
    "report_f1": "F1 of findings",
    "auc": "AUC",
    "macro_auc": "macro AUC",
    "mean_absolute_error": "mean absolute error",
    "calibration_error": "calibration error",
    "f1": "F1",
}
_FORMATS = {"closed": "yes/no", "choice": "choice", "fill": "fill in", "open": "open", "classes": "classes"}
_IN_UNIT = {"mean_absolute_error"}
TOGETHER, SIMULATED = "real", "simulated"  # sources of rows: all real records together, none of them
MIN_ITEMS = 20
_SOURCE_NAMES = {TOGETHER: "all real records", SIMULATED: "simulated"}


@dataclass
class Line:
    """One task and metric with the rows of several models."""

    source: str
    name: str
    metric: str
    n: int
    chance: float | None
    rows: dict[Run, Row] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Source and question for readers."""
        return full_task_text(self.source, self.name)

    @property
    def metric_text(self) -> str:
        """The metric for readers."""
        return metric_name(self.metric)

    @property
    def in_unit(self) -> bool:
        """Whether values are in the unit asked for, not fractions."""
        return self.metric in _IN_UNIT


def metric_name(metric: str) -> str:
    """Name of a metric for readers."""
    return _METRIC_NAMES.get(metric, metric.replace("_", " "))


def task_text(name: str) -> str:
    """Name of a task for readers.

    Example:
        >>> task_text("heart_rate_closed")
        'heart rate (yes/no)'
    """
    asked, _, form = name.rpartition("_")
    return f"{plain(asked)} ({_FORMATS[form]})" if form in _FORMATS else plain(name)


def full_task_text(source: str, name: str) -> str:
    """Source and task for readers."""
    return f"{_SOURCE_NAMES.get(source, source)}: {task_text(name)}" if source else task_text(name)


def plain(name: str) -> str:
    """A name with its intervals spelt as cardiologists do.

    Example:
        >>> plain("qrs_duration")
        'QRS duration'
    """
    return re.sub(r"\b(pr|qrs|qt|st)\b", lambda found: found.group().upper(), name.replace("_", " "))


def split_task(task: str) -> tuple[str, str, str | None]:
    """Source, task and class of a row's task; without a source the first is empty.

    Example:
        >>> split_task("cinc/georgia:diagnosis_closed/AF")
        ('cinc/georgia', 'diagnosis_closed', 'AF')
    """
    source, found, rest = task.rpartition(":")
    name, _, label = rest.partition("/")
    return (source if found else ""), name, label or None


def headline_rows(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Rows of several models side by side, task by task, real records first.

    Args:
        rows: Rows of a results json.
        runs: (method, seed) of each model; the tasks are those of the first one.
    """
    lines: dict[tuple[str, str], Line] = {}
    for row in rows:
        source, name, label = split_task(row["task"])
        run = row["method"], row["seed"]
        if label is None and row["metric"] in HEADLINES and run in runs:
            key = row["task"], row["metric"]
            line = lines.setdefault(key, Line(source, name, row["metric"], row["n"], row.get("chance")))
            if run == runs[0]:
                line.n, line.chance = row["n"], row.get("chance")
            line.rows[run] = row
    own = [line for line in lines.values() if runs[0] in line.rows]
    kept: list[Line] = []
    for source, name in dict.fromkeys((line.source, line.name) for line in own):
        group = [line for line in own if (line.source, line.name) == (source, name)]
        group.sort(key=lambda line: HEADLINES.index(line.metric))
        kept += group if group[0].metric == "accuracy" else [line for line in group if line.metric != "accuracy"]
    return sorted(kept, key=lambda line: (line.source == SIMULATED, line.source != TOGETHER))


def main_lines(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Lines that a card leads with, and those of single sources where all real records are also scored together.

    Tasks with fewer than 20 items are left out of both, unless there are no others.
    """
    tasks = {(line.source, line.name): 0 for line in lines}
    for line in lines:
        tasks[line.source, line.name] = max(tasks[line.source, line.name], line.n)
    large = [line for line in lines if tasks[line.source, line.name] >= MIN_ITEMS] or list(lines)
    if not any(line.source == TOGETHER for line in large):
        return large, []
    main = [line for line in large if line.source in (TOGETHER, SIMULATED)]
    return main, [line for line in large if line not in main]


def score_table(lines: Sequence[Line], runs: Sequence[Run], names: Sequence[str]) -> str:
    """One line per task and metric, one column per model: value × 100 [95 % interval], bold where above chance.

    Args:
        lines: From `headline_rows`.
        runs: (method, seed) of each model, this model first.
        names: Heads of their columns.

    Returns:
        Markdown; empty without lines.
    """
    body = []
    for line in lines:
        cells = [_cell(line.rows.get(run)) for run in runs]
        chance = "–" if line.chance is None else format_value(line.chance, line.metric)
        body.append([line.task, line.metric_text, f"{line.n:,}", chance, *cells])
    return _table(["task", "metric", "n", "chance", *names], body, 2)


def seed_table(rows: Sequence[Row], lines: Sequence[Line], methods: Sequence[str]) -> str:
    """Mean ± standard deviation over seeds for the tasks and metrics of some lines, one column per method.

    Returns:
        Markdown; empty if no method was trained with several seeds.
    """
    seeds = {method: {row["seed"] for row in rows if row["method"] == method} for method in methods}
    if max(map(len, seeds.values()), default=0) < 2:
        return ""
    body = []
    for line in lines:
        task = f"{line.source}:{line.name}" if line.source else line.name
        cells = []
        for method in methods:
            wanted = method, task, line.metric
            own = [row["value"] for row in rows if (row["method"], row["task"], row["metric"]) == wanted]
            spread = f" ± {format_value(stdev(own), line.metric)}" if len(own) > 1 else ""
            cells.append(f"{format_value(mean(own), line.metric)}{spread}" if own else "–")
        body.append([line.task, line.metric_text, *cells])
    heads = [f"{METHOD_NAMES.get(m, m)} ({len(seeds[m])} {'seed' if len(seeds[m]) == 1 else 'seeds'})" for m in methods]
    return _table(["task", "metric", *heads], body, 2)


def class_table(rows: Sequence[Row], runs: Sequence[Run], names: Sequence[str]) -> str:
    """One line per class and metric, as `score_table`; empty if there are no rows of classes."""
    found: dict[tuple[str, str], dict[Run, Row]] = {}
    for row in rows:
        if split_task(row["task"])[2] is not None and (row["method"], row["seed"]) in runs:
            found.setdefault((row["task"], row["metric"]), {})[row["method"], row["seed"]] = row
    together = any(task.startswith(f"{TOGETHER}:") for task, _ in found)
    body: list[tuple[bool, list[str]]] = []
    for (task, metric), own in found.items():
        source, name, label = split_task(task)
        if runs[0] not in own or (together and source not in (TOGETHER, SIMULATED)):
            continue
        row = own[runs[0]]
        chance = "–" if row.get("chance") is None else format_value(row["chance"], metric)
        title = label_text(label) if label in LABELS else str(label)
        cells = [title, full_task_text(source, name), metric_name(metric), f"{row['n']:,}", chance]
        body.append((source == SIMULATED, cells + [_cell(own.get(run)) for run in runs]))
    body.sort(key=lambda line: line[0])
    return _table(["class", "task", "metric", "n", "chance", *names], [cells for _, cells in body], 3)


def source_table(counts: Sequence[Row], extra: Mapping[str, DataSource] | None = None) -> str:
    """Records and questions of each source by split, with its licence; empty without counts."""
    sources = list(dict.fromkeys(str(count["source"]) for count in counts))
    splits = [s for s in ("train", "validation", "test") if any(count["split"] == s for count in counts)]
    body = []
    for name in sources:
        source = find_source(name, extra)
        title = f"{source.title}, {name.partition('/')[2]}" if "/" in name else source.title
        cells = []
        for split in splits:
            own = [c for c in counts if c["source"] == name and c["split"] == split]
            cells.append(f"{own[0]['records']:,} / {own[0]['questions']:,}" if own else "–")
        body.append([f"[{title}]({source.url})" if source.url else title, source.licence or "–", *cells])
    return _table(["source", "licence", *splits], body, 2)


def format_value(value: float, metric: str) -> str:
    """A value as cards show it: × 100, or in its unit, with one decimal."""
    return f"{value:.1f}" if metric in _IN_UNIT else f"{100 * value:.1f}"


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    text = format_value(row["value"], row["metric"])
    if row["ci_low"] is not None and row["ci_high"] is not None:
        text += f" [{format_value(row['ci_low'], row['metric'])}, {format_value(row['ci_high'], row['metric'])}]"
    return f"**{text}**" if row.get("above_chance") else text


def _table(header: Sequence[str], body: Sequence[Sequence[str]], text_columns: int) -> str:
    if not body:
        return ""
    align = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, align, *body))
