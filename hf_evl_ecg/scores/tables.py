"""Rows of a results json → markdown tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "GAIN",
    "HEADLINES",
    "MIN_ITEMS",
    "MIN_RECORDS",
    "few_records",
    "gain_table",
    "markdown_table",
    "score_text",
    "seed_table",
    "seeds_text",
    "value_text",
]

Row = Mapping[str, Any]

HEADLINES = (
    *("balanced_accuracy", "macro_f1", "within_tolerance", "report_f1", "accuracy", "auc", "macro_auc"),
    *("mean_absolute_error", "unparsed"),
)
"""Metrics that tables show unless others are named, the main one of a task first."""
GAIN = "_gain_over_"
"""What stands in the name of a metric between what was compared and the method that it was compared with."""
MIN_ITEMS = 20
"""Tasks of fewer questions are left out of pictures and cards: an interval spans most of the scale."""
MIN_RECORDS = 20
"""Scores on fewer records are said to be so: a bootstrap of so few is too narrow."""
SIMULATED = "Rows that begin with 'simulated' are about simulated ECGs, not patients."


def value_text(value: float | None, metric: str) -> str:
    """A value with one decimal, × 100 or in its unit; a dash for none.

    Example:
        >>> value_text(0.7234, "auc"), value_text(8.406, "mean_absolute_error"), value_text(None, "auc")
        ('72.3', '8.4', '–')
    """
    return "–" if value is None else f"{value if metric == 'mean_absolute_error' else 100 * value:.1f}"


def score_text(row: Row | None) -> str:
    """Value and interval of a row, bold where it is above chance.

    Example:
        >>> score_text({"metric": "auc", "value": 0.7, "ci_low": 0.65, "ci_high": 0.75, "above_chance": True})
        '**70.0 [65.0, 75.0]**'
    """
    if row is None:
        return "–"
    low, value, high = (value_text(row[key], row["metric"]) for key in ("ci_low", "value", "ci_high"))
    text = value if "–" in (low, high) else f"{value} [{low}, {high}]"
    return f"**{text}**" if row.get("above_chance") else text


def seeds_text(rows: Sequence[Row]) -> str:
    """Mean ± standard deviation over rows that differ in their seed, and how many of them are above chance.

    Example:
        >>> seeds_text([{"metric": "auc", "value": v, "chance": 0.5, "above_chance": v > 0.6} for v in (0.6, 0.7)])
        '65.0 ± 7.1 (1/2)'
    """
    if not rows:
        return "–"
    values, metric = [row["value"] for row in rows], rows[0]["metric"]
    spread = f" ± {value_text(statistics.stdev(values), metric)}" if len(values) > 1 else ""
    above = "" if rows[0]["chance"] is None else f" ({sum(bool(row['above_chance']) for row in rows)}/{len(rows)})"
    return f"{value_text(statistics.fmean(values), metric)}{spread}{above}"


def few_records(rows: Sequence[Row]) -> str:
    """A warning where tasks were scored on fewer than `MIN_RECORDS` records, naming them; empty where none was, or it is not known.

    Example:
        >>> few_records([{"task": "rhythm_open", "records": 4}])
        'Few records: 4 (rhythm_open). Intervals of so few are too narrow, and tell no two models apart.'
    """
    few = {
        row["task"].partition("/")[0]: row["records"]
        for row in rows
        if (row.get("records") or MIN_RECORDS) < MIN_RECORDS
    }
    if not few:
        return ""
    counts = sorted(set(few.values()))
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    named = ", ".join(list(few)[:6]) + (f" and {len(few) - 6} more tasks" if len(few) > 6 else "")
    return f"Few records: {span} ({named}). Intervals of so few are too narrow, and tell no two models apart."


def markdown_table(rows: Sequence[Row], notes: Sequence[str] = (), metrics: Sequence[str] = HEADLINES) -> str:
    """One line per task and metric, one column per method: value [95 % interval], bold where it is above chance.

    Args:
        rows: Rows of a results json.
        notes: Lines below the table.
        metrics: Metrics to show.

    Raises:
        ValueError: No row has one of the metrics.
    """
    columns = list(dict.fromkeys(_name(row) for row in rows))
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["metric"] in metrics:
            lines.setdefault((row["task"], row["metric"]), {})[_name(row)] = row
    if not lines:
        raise ValueError(f"No row has one of the metrics {list(metrics)}.")
    warning = few_records(rows)
    text = [f"**{warning}**", ""] * bool(warning) + _head(columns)
    for found in lines.values():
        text.append(_line(next(iter(found.values())), [score_text(found.get(column)) for column in columns]))
    text += [
        "",
        "Values × 100 with 95 % bootstrap intervals over records (mean absolute errors in the unit asked for); bold: beats "
        "chance, the best answer that ignores the ECG, in at least 97.5 % of the resamples. Intervals do not cover the spread "
        "over training seeds.",
    ]
    if any(row["task"].startswith("simulated") for row in rows):
        text.append(SIMULATED)
    return "\n".join([*text, *notes]) + "\n"


def seed_table(rows: Sequence[Row], metrics: Sequence[str] = HEADLINES) -> str:
    """One line per task and metric, one column per method: mean ± standard deviation over seeds, and seeds above chance.

    Args:
        rows: Rows of a results json; rows of classes are left out.
        metrics: Metrics to show.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row["metric"] in metrics and "/" not in row["task"].split(":", 1)[-1]:
            lines.setdefault((row["task"], row["metric"]), {}).setdefault(row["method"], []).append(row)
    text = _head(methods)
    for found in lines.values():
        text.append(_line(next(iter(found.values()))[0], [seeds_text(found.get(method, ())) for method in methods]))
    note = (
        "Values × 100 (mean absolute errors in the unit asked for), mean ± standard deviation over training seeds; in brackets: "
        "runs that beat chance, the best answer that ignores the ECG, in at least 97.5 % of the bootstrap resamples."
    )
    return "\n".join([*text, "", note]) + "\n"


def gain_table(rows: Sequence[Row]) -> str:
    """One line per task and metric, one column per pair of methods: difference [95 % interval], bold where it leaves out zero.

    Args:
        rows: Rows of a results json whose metrics are named with `GAIN`; others are left out.

    Example:
        >>> row = {"method": "evl_ecg", "task": "ludb:axis_fill", "metric": "accuracy_gain_over_sft", "n": 40}
        >>> print(gain_table([row | {"value": 0.05, "ci_low": 0.01, "ci_high": 0.09}]).splitlines()[2])
        | ludb:axis_fill | accuracy | 40 | **+5.0 [+1.0, +9.0]** |
    """
    gains = [(row, *row["metric"].split(GAIN)) for row in rows if GAIN in row["metric"]]
    columns = list(dict.fromkeys(f"{row['method']} − {other}" for row, _, other in gains))
    lines: dict[tuple[str, str, int], dict[str, str]] = {}
    for row, metric, other in gains:
        value, low, high = (f"{100 * row[key]:+.1f}" for key in ("value", "ci_low", "ci_high"))
        mark = "**" if row["ci_low"] > 0 or row["ci_high"] < 0 else ""
        cells = lines.setdefault((row["task"], metric, row["n"]), {})
        cells[f"{row['method']} − {other}"] = f"{mark}{value} [{low}, {high}]{mark}"
    text = [f"| task | metric | n | {' | '.join(columns)} |", f"| --- | --- | --: |{' --: |' * len(columns)}"]
    for (task, metric, n), cells in lines.items():
        text.append(f"| {task} | {metric} | {n} | {' | '.join(cells.get(column, '–') for column in columns)} |")
    note = (
        "Differences × 100 of means over training seeds, with 95 % bootstrap intervals over records, the same for both methods; "
        "bold: the interval leaves out zero. Intervals do not cover the spread over training seeds."
    )
    return "\n".join([*text, "", note]) + "\n"


def _name(row: Row) -> str:
    return row["method"] if row["seed"] is None else f"{row['method']} (seed {row['seed']})"


def _head(columns: Sequence[str]) -> list[str]:
    return [
        f"| task | metric | n | chance | {' | '.join(columns)} |",
        f"| --- | --- | --: | --: |{' --: |' * len(columns)}",
    ]


def _line(row: Row, cells: Sequence[str]) -> str:
    chance = value_text(row["chance"], row["metric"])
    return f"| {row['task']} | {row['metric']} | {row['n']} | {chance} | {' | '.join(cells)} |"
