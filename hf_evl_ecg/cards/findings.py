"""What a model card says of its scores: findings in words, reliability, failure cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .facts import FAILURE_RULE
from .sources import DataSource, find_source
from .tables import MIN_ITEMS, SIMULATED, TOGETHER, Line, format_value, full_task_text, split_task, task_text

__all__ = ["failure_section", "reliability_section", "verdict"]

Row = Mapping[str, Any]
Run = tuple[str, int | None]
LONGEST_TEXT = 300


def verdict(lines: Sequence[Line], runs: Sequence[Run], names: Sequence[str]) -> str:
    """Where this model beats chance, and where its interval lies apart from that of each other model.

    Args:
        lines: What to compare on, from `hf_evl_ecg.cards.tables.main_lines`.
        runs: (method, seed) of each model, this model first.
        names: Their names.
    """
    text = []
    for simulated, where in ((False, "real"), (True, "simulated")):
        own = [line for line in lines if (line.source == SIMULATED) == simulated and line.chance is not None]
        above: dict[str, list[str]] = {_short(line): [] for line in own}
        for line in own:
            above[_short(line)] += [line.metric_text] * bool(line.rows[runs[0]].get("above_chance"))
        found = [f"{task}, by {_listed(metrics)}" for task, metrics in above.items() if metrics]
        nothing = [task for task, metrics in above.items() if not metrics]
        if own:
            text.append(f"On {where} records it is above chance in {'; '.join(found) or 'nothing'}.")
            text[-1] += f" Not above chance by any measure: {'; '.join(nothing)}." if found and nothing else ""
    for run, name in list(zip(runs, names, strict=True))[1:]:
        better, worse = _apart(lines, runs[0], run)
        parts = [f"better in {'; '.join(better)}"] * bool(better) + [f"worse in {'; '.join(worse)}"] * bool(worse)
        if any(run in line.rows for line in lines):
            text.append(
                f"Against {name}, intervals lie apart: {', '.join(parts)}. Elsewhere they overlap."
                if parts
                else f"Against {name}, all intervals overlap."
            )
    return "\n".join(f"- {line}" for line in text)


def reliability_section(rows: Sequence[Row], run: Run, picture: str | None) -> str:
    """The picture and the calibration errors of this model."""
    own = [r for r in rows if (r["method"], r["seed"]) == run and r["metric"] == "calibration_error"]
    own = [r for r in own if r["n"] >= MIN_ITEMS] or own
    if any(split_task(r["task"])[0] == TOGETHER for r in own):
        own = [r for r in own if split_task(r["task"])[0] in (TOGETHER, SIMULATED)]
    if picture is None and not own:
        return ""
    lines = ["## Reliability", ""]
    if picture is not None:
        lines += [f"![Reliability: confidence against the share that is right]({picture})", ""]
    lines.append(
        "Confidence is the probability of the likeliest answer among the possible ones, without a temperature. Points below the diagonal: surer than right. The error is the mean gap over ten bins, "
        "biased upwards where there are few answers."
    )
    if own:
        lines += ["", "| task | n | calibration error |", "| --- | --: | --: |"]
        for row in own:
            source, name, _ = split_task(row["task"])
            cell = format_value(row["value"], row["metric"])
            if row["ci_low"] is not None:
                cell += f" [{format_value(row['ci_low'], '')}, {format_value(row['ci_high'], '')}]"
            lines.append(f"| {full_task_text(source, name)} | {row['n']:,} | {cell} |")
    return "\n".join(lines)


def failure_section(cases: Sequence[Row], extra: Mapping[str, DataSource]) -> str:
    """Questions that were answered wrongly, with what the model saw."""
    if not cases:
        return ""
    lines = ["## Failure cases", "", FAILURE_RULE]
    for case in cases:
        source = find_source(case["source"], extra)
        licence = f", {source.licence}" if source.licence else ""
        sure = "" if case["probability"] is None else f" (probability {case['probability']:.2f})"
        answered = f"“{_inline(case['answered'])}”" if case["answered"] else "nothing"
        lines += ["", f"![{source.title}, record {case['record']}]({case['image']})"] if case.get("image") else [""]
        lines += [
            "",
            f"{source.title}, record `{case['record']}`{licence}. “{_inline(case['question'])}” "
            f"Right: **{_inline(case['expected'])}**. "
            f"Answered: {answered}{sure}.",
        ]
    return "\n".join(lines)


def _inline(text: str) -> str:
    """Text of a model or data set as one line of at most `LONGEST_TEXT` characters that markdown shows as it is."""
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", line)


def _apart(lines: Sequence[Line], own: Run, other: Run) -> tuple[list[str], list[str]]:
    """Tasks and metrics in which the intervals of two models do not touch: better, worse."""
    better, worse = [], []
    for line in lines:
        a, b = line.rows[own], line.rows.get(other)
        if b is None or None in (a["ci_low"], b["ci_low"]):
            continue
        higher, lower = a["ci_low"] > b["ci_high"], a["ci_high"] < b["ci_low"]
        text = f"{line.task}, {line.metric_text}"
        better += [text] * (lower if line.in_unit else higher)
        worse += [text] * (higher if line.in_unit else lower)
    return better, worse


def _short(line: Line) -> str:
    """The task without its source where there is but one."""
    return task_text(line.name) if line.source in (TOGETHER, SIMULATED) else line.task


def _listed(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"
