"""Rows of a results json → markdown tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HEADLINES", "markdown_table", "seed_table"]

HEADLINES = (
    *("balanced_accuracy", "auc", "accuracy", "within_tolerance", "mean_absolute_error", "macro_f1", "macro_auc"),
    *("report_f1", "unparsed"),
)
"""Metrics that tables show unless others are named."""
SIMULATED = "Rows that begin with 'simulated' are about simulated ECGs, not patients."


def markdown_table(
    rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = (), metrics: Sequence[str] = HEADLINES
) -> str:
    """One line per task and metric, one column per method: value [95 % interval], bold where it is above chance.

    Args:
        rows: Rows of a results json.
        notes: Lines below the table.
        metrics: Metrics to show.

    Raises:
        ValueError: No row has one of the metrics.
    """
    methods = list(dict.fromkeys(_name(row) for row in rows))
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["metric"] in metrics:
            lines.setdefault((row["task"], row["metric"]), {})[_name(row)] = row
    if not lines:
        raise ValueError(f"No row has one of the metrics {list(metrics)}.")
    text = [
        f"| task | metric | n | chance | {' | '.join(methods)} |",
        f"| --- | --- | --: | --: |{' --: |' * len(methods)}",
    ]
    for (task, metric), found in lines.items():
        any_row = next(iter(found.values()))
        chance = "–" if any_row["chance"] is None else _number(any_row["chance"], metric)
        cells = " | ".join(_cell(found.get(method)) for method in methods)
        text.append(f"| {task} | {metric} | {any_row['n']} | {chance} | {cells} |")
    text += [
        "",
        "Values × 100 with 95 % bootstrap intervals over records (mean absolute errors in the unit asked for); bold: beats "
        "chance, the best answer that ignores the ECG, in at least 97.5 % of the resamples. Intervals do not cover the spread "
        "over training seeds.",
    ]
    if any(row["task"].startswith("simulated") for row in rows):
        text.append(SIMULATED)
    return "\n".join([*text, *notes]) + "\n"


def seed_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str] = HEADLINES) -> str:
    """One line per task and metric, one column per method: mean ± standard deviation over seeds, and seeds above chance.

    Args:
        rows: Rows of a results json; rows of classes are left out.
        metrics: Metrics to show.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if row["metric"] in metrics and "/" not in row["task"].split(":", 1)[-1]:
            lines.setdefault((row["task"], row["metric"]), {}).setdefault(row["method"], []).append(row)
    text = [
        f"| task | metric | n | chance | {' | '.join(methods)} |",
        f"| --- | --- | --: | --: |{' --: |' * len(methods)}",
    ]
    for (task, metric), found in lines.items():
        first = next(iter(found.values()))[0]
        chance = "–" if first["chance"] is None else _number(first["chance"], metric)
        cells = " | ".join(_seed_cell(found.get(method, []), metric) for method in methods)
        text.append(f"| {task} | {metric} | {first['n']} | {chance} | {cells} |")
    note = (
        "Values × 100 (mean absolute errors in the unit asked for), mean ± standard deviation over training seeds; in brackets: "
        "runs that beat chance, the best answer that ignores the ECG, in at least 97.5 % of the bootstrap resamples."
    )
    return "\n".join([*text, "", note]) + "\n"


def _name(row: Mapping[str, Any]) -> str:
    return row["method"] if row["seed"] is None else f"{row['method']} (seed {row['seed']})"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    text = _number(row["value"], row["metric"])
    if row["ci_low"] is not None:
        text += f" [{_number(row['ci_low'], row['metric'])}, {_number(row['ci_high'], row['metric'])}]"
    return f"**{text}**" if row["above_chance"] else text


def _seed_cell(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    if not rows:
        return "–"
    values = [row["value"] for row in rows]
    spread = f" ± {_number(statistics.stdev(values), metric)}" if len(values) > 1 else ""
    above = "" if rows[0]["chance"] is None else f" ({sum(bool(row['above_chance']) for row in rows)}/{len(rows)})"
    return f"{_number(statistics.fmean(values), metric)}{spread}{above}"


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric == "mean_absolute_error" else f"{100 * value:.1f}"
