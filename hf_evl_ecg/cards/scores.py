"""What a card says of scores beside its table: classes, chance, and where intervals lie apart."""

from __future__ import annotations

from collections.abc import Sequence

from hf_evl_ecg.scores.lines import ERROR, SIMULATED, TOGETHER, Line, Row, Run, side_by_side
from hf_evl_ecg.scores.names import task_text

__all__ = ["above_chance", "class_lines", "intervals_apart", "lopsided", "with_unparsed"]

WIDE, ONE_SIDED = (
    0.1,
    0.25,
)  # narrower intervals need no comment; a share of the width that even skewed ones leave on each side


def class_lines(rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """Lines of single classes, real records first, of single sources only where they are not also scored together."""
    own = [line for line in side_by_side(rows, runs) if line.label is not None]
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


def lopsided(lines: Sequence[Line], run: Run) -> list[str]:
    """Tasks and metrics of a model whose score is a mean over classes and lies near one end of its interval.

    A resample of the records may hold none of a rare class, and then scores the others alone: the interval reaches further to that side.
    """
    found = []
    for line in lines:
        row = line.rows.get(run)
        if row is None or row["ci_low"] is None or line.metric not in ("balanced_accuracy", "macro_f1", "macro_auc"):
            continue
        width = row["ci_high"] - row["ci_low"]
        nearest = min(row["value"] - row["ci_low"], row["ci_high"] - row["value"])
        if width > WIDE and nearest < ONE_SIDED * width:
            found.append(f"{line.task}, {line.metric_text}")
    return found


def with_unparsed(lines: Sequence[Line], rows: Sequence[Row], runs: Sequence[Run]) -> list[Line]:
    """The lines, and behind those of each task the share of answers that could not be read, where there were texts to read."""
    unread = {
        (line.source, line.name): line
        for line in side_by_side(rows, runs)
        if line.label is None and line.metric == "unparsed"
    }
    found: list[Line] = []
    for line, after in zip(lines, [*lines[1:], None], strict=False):
        found.append(line)
        task = line.source, line.name
        if task in unread and (after is None or (after.source, after.name) != task):
            found.append(unread[task])
    return found
