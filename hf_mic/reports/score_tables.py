"""Markdown tables made from the rows of a results json."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from hf_mic.results import Rows

from .inline import inline

__all__ = [
    "HEADLINE_METRICS",
    "markdown_report",
    "markdown_size_table",
    "markdown_table",
    "over_seeds",
    "select_rows",
]

HEADLINE_METRICS = ("spearman", "accuracy", "ndcg@10")
"""The one metric of each kind of task that reports and pictures show unless others are named."""

LOWER_IS_BETTER = frozenset(("cross_correlation", "diagonal_cv", "eigen_cv", "residual_r2", "residual_r2_adjusted"))
"""Measures of redundancy and unevenness, of which the least is the best."""


def select_rows(rows: Rows, **wanted: Any) -> list[Mapping[str, Any]]:
    """Rows with the wanted values; a row without a precision is of float32.

    Raises:
        ValueError: If there is none.

    Example:
        >>> [row["dim"] for row in select_rows([{"task": "a", "metric": "m", "dim": 8}, {"task": "b", "metric": "m", "dim": 16}], task="b")]
        [16]
    """
    found = [row for row in rows if all(row.get(key, "float32") == value for key, value in wanted.items())]
    if not found:
        raise ValueError(
            f"No row has {wanted}; tasks and metrics are {sorted({(r['task'], r['metric']) for r in rows})}."
        )
    return found


def over_seeds(rows: Rows, key: Callable[[Mapping[str, Any]], Any]) -> dict[Any, tuple[float, float | None]]:
    """Mean and sample standard deviation (None for one seed) of 100 x value per group, in order of appearance.

    Args:
        rows: Rows of the study.
        key: The group of a row.

    Raises:
        ValueError: If a group has two rows of one seed.

    Example:
        >>> over_seeds([{"seed": 0, "dim": 8, "value": 0.5}, {"seed": 1, "dim": 8, "value": 0.7}], lambda row: row["dim"])
        {8: (60.0, 14.142135623730951)}
    """
    groups: dict[Any, dict[Any, float]] = {}
    for row in rows:
        seeds = groups.setdefault(key(row), {})
        if row["seed"] in seeds:
            raise ValueError(f"Two rows for {key(row)}, seed {row['seed']}: give repeated runs different seeds.")
        seeds[row["seed"]] = 100 * row["value"]
    return {
        group: (mean(seeds.values()), stdev(seeds.values()) if len(seeds) > 1 else None)
        for group, seeds in groups.items()
    }


def _layout(header: Sequence[str], body: Sequence[Sequence[str]], text_columns: int) -> str:
    align = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, align, *body))


def _cells(values: Sequence[tuple[float, float | None] | None], bold: Sequence[bool]) -> list[str]:
    cells = []
    for value, best in zip(values, bold, strict=True):
        text = "–" if value is None else f"{value[0]:.2f}" + ("" if value[1] is None else f" ± {value[1]:.2f}")
        cells.append(f"**{text}**" if best else text)
    return cells


def markdown_table(rows: Rows, task: str, metric: str, *, precision: str = "float32") -> str:
    """Methods x dimensions, mean ± standard deviation over seeds, times 100; the best mean of a dimension in bold.

    Args:
        rows: Rows of the study.
        task: Which task.
        metric: Which metric.
        precision: Which precision.

    Raises:
        ValueError: If no row matches, or two rows share method, seed and dimension.

    Example:
        >>> row = {"method": "mic", "seed": 0, "task": "stsb", "dim": 16, "metric": "spearman", "value": 0.75, "n": 9}
        >>> print(markdown_table([row], "stsb", "spearman"))
        | method | 16 |
        | --- | --: |
        | mic | **75.00** |
    """
    chosen = select_rows(rows, task=task, metric=metric, precision=precision)
    scores = over_seeds(chosen, lambda row: (row["method"], row["dim"]))
    methods, dims = list(dict.fromkeys(method for method, _ in scores)), sorted({dim for _, dim in scores})
    pick = min if metric in LOWER_IS_BETTER else max
    best = {dim: pick(scores[method, dim][0] for method in methods if (method, dim) in scores) for dim in dims}
    body = []
    for method in methods:
        values = [scores.get((method, dim)) for dim in dims]
        bold = [value is not None and value[0] == best[dim] for value, dim in zip(values, dims, strict=True)]
        body.append([inline(method), *_cells(values, bold)])
    return _layout(["method", *map(str, dims)], body, 1)


def markdown_size_table(rows: Rows, task: str, metric: str) -> str:
    """Quality against storage: one line per (dimension, precision) by bytes per vector, one column per method.

    Args:
        rows: Rows of the study, with ``precision`` and ``bytes_per_vector``.
        task: Which task.
        metric: Which metric.
    """
    chosen = select_rows(rows, task=task, metric=metric)
    scores = over_seeds(chosen, lambda row: (row["bytes_per_vector"], row["dim"], row["precision"], row["method"]))
    methods = list(dict.fromkeys(key[-1] for key in scores))
    body = [
        [*map(str, size), *_cells([scores.get((*size, method)) for method in methods], [False] * len(methods))]
        for size in sorted({key[:-1] for key in scores})
    ]
    return _layout(["bytes per vector", "dim", "precision", *map(inline, methods)], body, 3)


def markdown_report(results: Mapping[str, Any], metrics: Sequence[str] = HEADLINE_METRICS) -> str:
    """All tables of a study: per task and metric by dimension and, with several precisions, by bytes per vector.

    Args:
        results: From :func:`hf_mic.results.read_results`.
        metrics: Which metrics to show.
    """
    rows = results["rows"]
    parts = []
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows if row["metric"] in metrics):
        chosen = select_rows(rows, task=task, metric=metric)
        seeds = max(len({row["seed"] for row in chosen if row["method"] == m}) for m in {r["method"] for r in chosen})
        spread = f", mean ± standard deviation over up to {seeds} seeds" if seeds > 1 else ""
        precisions = list(dict.fromkeys(row.get("precision", "float32") for row in chosen))
        stored = "" if precisions[0] == "float32" else f", stored as {precisions[0]}"
        parts.append(
            f"**{inline(task)}**: {metric} × 100 on {chosen[0]['n']:,} test items{spread}, by dimension{stored}"
        )
        parts.append(markdown_table(rows, task, metric, precision=precisions[0]))
        if len(precisions) > 1:
            parts += [
                f"**{inline(task)}**: {metric} × 100 by bytes per vector",
                markdown_size_table(rows, task, metric),
            ]
    if not parts:
        raise ValueError(f"No row has one of the metrics {list(metrics)}.")
    return "\n\n".join(parts)
