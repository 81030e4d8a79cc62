"""Tables, pictures and README sections made from the rows of a results json.

Fill the section of a README between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``::

    python -m hf_mic.evaluation.score_tables README.md NAME model_cards/results/NAME.json
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from hf_mic.files import write_atomically, write_text
from hf_mic.results import Rows, read_results

__all__ = [
    "HEADLINE_METRICS",
    "fill_section",
    "markdown_report",
    "markdown_size_table",
    "markdown_table",
    "plot_scores",
]

HEADLINE_METRICS = ("spearman", "accuracy", "ndcg@10")
"""The one metric of each kind of task that reports and pictures show unless others are named."""

LOWER_IS_BETTER = frozenset(("cross_correlation", "diagonal_cv", "eigen_cv", "residual_r2", "residual_r2_adjusted"))
"""Measures of redundancy and unevenness, of which the least is the best."""


def _select(rows: Rows, **wanted: Any) -> list[Mapping[str, Any]]:
    found = [row for row in rows if all(row.get(key, "float32") == value for key, value in wanted.items())]
    if not found:
        raise ValueError(
            f"No row has {wanted}; tasks and metrics are {sorted({(r['task'], r['metric']) for r in rows})}."
        )
    return found


def _over_seeds(rows: Rows, key: Callable[[Mapping[str, Any]], Any]) -> dict[Any, tuple[float, float | None]]:
    """Mean and sample standard deviation (None for one seed) of 100 x value per group, in order of appearance."""
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
    chosen = _select(rows, task=task, metric=metric, precision=precision)
    scores = _over_seeds(chosen, lambda row: (row["method"], row["dim"]))
    methods, dims = list(dict.fromkeys(method for method, _ in scores)), sorted({dim for _, dim in scores})
    pick = min if metric in LOWER_IS_BETTER else max
    best = {dim: pick(scores[method, dim][0] for method in methods if (method, dim) in scores) for dim in dims}
    body = []
    for method in methods:
        values = [scores.get((method, dim)) for dim in dims]
        bold = [value is not None and value[0] == best[dim] for value, dim in zip(values, dims, strict=True)]
        body.append([method, *_cells(values, bold)])
    return _layout(["method", *map(str, dims)], body, 1)


def markdown_size_table(rows: Rows, task: str, metric: str) -> str:
    """Quality against storage: one line per (dimension, precision) by bytes per vector, one column per method.

    Args:
        rows: Rows of the study, with ``precision`` and ``bytes_per_vector``.
        task: Which task.
        metric: Which metric.
    """
    chosen = _select(rows, task=task, metric=metric)
    scores = _over_seeds(chosen, lambda row: (row["bytes_per_vector"], row["dim"], row["precision"], row["method"]))
    methods = list(dict.fromkeys(key[-1] for key in scores))
    body = [
        [*map(str, size), *_cells([scores.get((*size, method)) for method in methods], [False] * len(methods))]
        for size in sorted({key[:-1] for key in scores})
    ]
    return _layout(["bytes per vector", "dim", "precision", *methods], body, 3)


def markdown_report(results: Mapping[str, Any], metrics: Sequence[str] = HEADLINE_METRICS) -> str:
    """All tables of a study: per task and metric by dimension and, with several precisions, by bytes per vector.

    Args:
        results: From :func:`read_results`.
        metrics: Which metrics to show.
    """
    rows = results["rows"]
    parts = []
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows if row["metric"] in metrics):
        chosen = _select(rows, task=task, metric=metric)
        seeds = max(len({row["seed"] for row in chosen if row["method"] == m}) for m in {r["method"] for r in chosen})
        spread = f", mean ± standard deviation over up to {seeds} seeds" if seeds > 1 else ""
        precisions = list(dict.fromkeys(row.get("precision", "float32") for row in chosen))
        stored = "" if precisions[0] == "float32" else f", stored as {precisions[0]}"
        parts.append(f"**{task}**: {metric} × 100 on {chosen[0]['n']:,} test items{spread}, by dimension{stored}")
        parts.append(markdown_table(rows, task, metric, precision=precisions[0]))
        if len(precisions) > 1:
            parts += [f"**{task}**: {metric} × 100 by bytes per vector", markdown_size_table(rows, task, metric)]
    if not parts:
        raise ValueError(f"No row has one of the metrics {list(metrics)}.")
    return "\n\n".join(parts)


def plot_scores(
    rows: Rows,
    path: str | Path,
    *,
    metrics: Sequence[str] = HEADLINE_METRICS,
    precision: str = "float32",
    title: str | None = None,
) -> None:
    """Draw score against dimension, one panel per (task, metric) and one line per method.

    The dimension axis is logarithmic (base 2). A band of one standard deviation surrounds a method with several seeds.

    Args:
        rows: Rows of the study.
        path: Where to write the png; replaced as a whole.
        metrics: Which metrics to draw.
        precision: Which precision to draw.
        title: Title of the picture.

    Raises:
        ValueError: If no row has one of the metrics at that precision.
    """
    drawn = [row for row in rows if row["metric"] in metrics and row.get("precision", "float32") == precision]
    panels = list(dict.fromkeys((row["task"], row["metric"]) for row in drawn))
    if not panels:
        raise ValueError(f"No row has one of the metrics {list(metrics)} at precision {precision!r}.")
    methods = list(dict.fromkeys(row["method"] for row in drawn))
    figure = Figure(figsize=(4.6 * len(panels), 4.0 + 0.2 * len(methods)), layout="constrained")
    for axis, (task, metric) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        scores = _over_seeds(_select(drawn, task=task, metric=metric), lambda row: (row["method"], row["dim"]))
        for number, method in enumerate(methods):
            points = sorted((dim, *value) for (name, dim), value in scores.items() if name == method)
            if not points:
                continue
            dims, means, spreads = zip(*points, strict=True)
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
            axis.plot(dims, means, marker="o", markersize=3.5, label=method, **style)
            low, high = ([m + sign * (s or 0) for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            if any(spreads):
                axis.fill_between(dims, low, high, color=style["color"], alpha=0.2, linewidth=0)
        ticks = sorted({dim for _, dim in scores})
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(dim) for dim in ticks])
        axis.minorticks_off()
        axis.set(title=task, xlabel="dimension", ylabel=f"{metric} × 100")
        axis.grid(alpha=0.3)
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def fill_section(
    path: str | Path,
    name: str,
    results_path: str | Path,
    *,
    metrics: Sequence[str] = HEADLINE_METRICS,
    methods: Sequence[str] | None = None,
    dims: Sequence[int] | None = None,
) -> bool:
    """Fill the section ``<!-- results:NAME -->`` … ``<!-- /results:NAME -->`` of a markdown file from a results json.

    Args:
        path: The markdown file; replaced as a whole.
        name: Name of the section.
        results_path: The results json.
        metrics: Which metrics to show.
        methods: Which methods to show; default all.
        dims: Which dimensions to show; default all.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: If the file does not hold the two markers exactly once each, in order, or a method or dimension has no
            row.
    """
    text = Path(path).read_text(encoding="utf-8")
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if text.count(begin) != 1 or text.count(end) != 1 or not section.search(text):
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order.")
    results = read_results(results_path)
    for key, wanted in (("method", methods), ("dim", dims)):
        present = {row[key] for row in results["rows"]}
        if missing := [value for value in wanted or () if value not in present]:
            raise ValueError(f"{results_path} has no row with {key} {missing}; there are {sorted(present, key=str)}.")
        if wanted:
            results["rows"] = [row for row in results["rows"] if row[key] in wanted]
    made = f"commit {results['commit'][:12]}" if results["commit"] else "no commit recorded"
    source = f"From `{Path(results_path).name}` ({made}, {results['machine']['cpu']})."
    content = f"{begin}\n\n{markdown_report(results, metrics)}\n\n{source}\n\n{end}"
    filled = section.sub(lambda _: content, text)
    if filled != text:
        write_text(path, filled)
    return filled != text


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hf_mic.evaluation.score_tables", description="Fill a README section with results."
    )
    parser.add_argument("markdown", help="file that holds the markers of the section")
    parser.add_argument("name", help="name of the section: <!-- results:NAME --> ... <!-- /results:NAME -->")
    parser.add_argument("results", help="results json")
    parser.add_argument("--metrics", nargs="+", default=list(HEADLINE_METRICS), help="metrics to show")
    parser.add_argument("--methods", nargs="+", help="methods to show; default all")
    parser.add_argument("--dims", nargs="+", type=int, help="dimensions to show; default all")
    given = parser.parse_args(arguments)
    changed = fill_section(
        given.markdown, given.name, given.results, metrics=given.metrics, methods=given.methods, dims=given.dims
    )
    print(f"{given.markdown}: section {given.name} {'filled' if changed else 'was up to date'}")


if __name__ == "__main__":
    _main()
