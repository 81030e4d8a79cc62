"""Differences to the best rival, tables and the picture of the study of bytes.

A section of a page is filled with the tables by

    python studies/mic/bytes_report.py model_cards/results/mic_bytes.json studies/configs/mic_bytes.yaml docs/results.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hf_mic.evaluation.metrics import percentile_interval
from hf_mic.files import write_atomically, write_text
from hf_mic.results import Rows, read_results

__all__ = ["HEADLINES", "TITLES", "differences", "mean_scores", "write_reports"]

HEADLINES = {"spearman", "accuracy_10nn", "ndcg@10"}
TITLES = {
    "stsb": "STS-B\nSpearman",
    "banking77": "Banking77\n10-NN accuracy",
    "scifact": "SciFact, 5,183 documents\nnDCG@10",
    "medquad": "MedQuAD, 4,832 answers\nnDCG@10",
    "wordnet": "WordNet, 19,149 synsets\nnDCG@10",
    "scifact_100k": "SciFact, 105,752 documents\nnDCG@10",
    "neighbours": "nearest at full width\nnDCG@10",
    "search_by_name": "sentence for a name\nnDCG@10",
    "area": "part of a package\n10-NN accuracy",
}
LABELS = {
    "truncation": "truncation",
    "pca": "PCA",
    "pca_rotation": "PCA + rotation",
    "random_rotation": "random rotation, as RaBitQ",
    "pq": "PQ",
    "opq": "OPQ",
    "distillation": "map: distillation",
    "mic": "map: distillation + SIR",
    "mic_1bit": "map: distillation through 1 bit + SIR",
}
COLOURS = {"distillation": "0.25", "mic": "lightcoral", "mic_1bit": "crimson"}
Scores = dict[tuple[str, int, str], float]


def mean_scores(rows: Rows) -> Scores:
    """Mean over seeds of the headline metric by (method, bytes, task)."""
    found: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        if row["metric"] in HEADLINES:
            found.setdefault((row["method"], row["bytes"], row["task"]), []).append(row["value"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def differences(
    rows: Rows, methods: Mapping[str, Any], resampled: Callable[[str, int | None], Mapping[str, NDArray]]
) -> list[dict[str, Any]]:
    """How far each map is ahead of the best rival, per size and task, and on the mean of all tasks.

    The best rival is the one with the highest score on the test items themselves, which is the hardest to be ahead of; rivals
    are all methods that are no maps and fitted on the same text. Both scores are means over seeds, and both are resampled
    together.

    Args:
        rows: Rows of the study.
        methods: The plan's methods.
        resampled: Method and seed → scores of each resample of the test items, by ``size/task/metric``.
    """
    scores = mean_scores(rows)
    seeds: dict[str, list[int | None]] = {}
    for row in rows:
        if row["seed"] not in seeds.setdefault(row["method"], []):
            seeds[row["method"]].append(row["seed"])
    kept = {name: [resampled(name, seed) for seed in those] for name, those in seeds.items()}
    metric = {row["task"]: row["metric"] for row in rows if row["metric"] in HEADLINES}
    items = {row["task"]: row["n"] for row in rows if row["metric"] in HEADLINES}

    def samples(name: str, size: int, task: str) -> NDArray:
        key = f"{size}/{task}/{metric[task]}"
        return np.mean([one[key] for one in kept[name] if key in one], axis=0)  # some sizes have fewer seeds

    found = []
    for name in [name for name in seeds if methods[name]["type"] == "map"]:
        rivals = [r for r in seeds if methods[r]["type"] != "map" and methods[r]["text"] == methods[name]["text"]]
        for size in sorted({size for method, size, _ in scores if method == name}):
            present = [r for r in rivals if all((r, size, task) in scores for task in metric)]
            if len(present) < 2:  # the best of one rival says little
                continue
            for tasks in [*([task] for task in metric), list(metric)]:
                totals = {r: float(np.mean([scores[r, size, task] for task in tasks])) for r in (*present, name)}
                rival = max(present, key=lambda r: totals[r])
                gaps = np.mean([samples(name, size, t) - samples(rival, size, t) for t in tasks], axis=0)
                low, high = percentile_interval(gaps)
                found.append(
                    {
                        "method": name,
                        "seed": None,
                        "task": tasks[0] if len(tasks) == 1 else "mean",
                        "dim": next(r["dim"] for r in rows if r["method"] == name and r["bytes"] == size),
                        "metric": "difference_to_best_rival",
                        "value": totals[name] - totals[rival],
                        "n": sum(items[task] for task in tasks),
                        "ci_low": low,
                        "ci_high": high,
                        "bytes": size,
                        "rival": rival,
                    }
                )
    return found


def write_reports(results: Mapping[str, Any], plan: Mapping[str, Any], path: Path) -> None:
    """Write the tables beside the json, and the picture."""
    write_text(path.with_suffix(".md"), report(results, plan) + "\n")
    draw(results, plan, path.with_suffix(".png"))


def report(results: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """All tables: six rows at 8 bytes, each task at all sizes, differences, probes, codes."""
    rows = results["rows"]
    parts = [six_rows(rows, plan["table"], 8)]
    for task in _tasks(rows):
        parts.append(task_table(rows, task, list(plan["methods"])))
    parts.append(difference_table(rows))
    if any(row["metric"] == "accuracy_few_shot" for row in rows):
        parts.append(probe_table(rows))
    parts.append(method_table(rows, plan["methods"]))
    return "\n\n".join(parts)


def six_rows(rows: Rows, methods: Sequence[str], size: int) -> str:
    """Methods × tasks at one size; the best of a task in bold."""
    scores, tasks = mean_scores(rows), _tasks(rows)
    methods = [name for name in methods if (name, size, tasks[0]) in scores]
    table = [[scores[name, size, task] for task in tasks] for name in methods]
    table = [[*line, float(np.mean(line))] for line in table]
    best = np.max(table, axis=0)
    body = [
        [name, *(_bold(f"{100 * v:.1f}", v == b) for v, b in zip(line, best, strict=True))]
        for name, line in zip(methods, table, strict=True)
    ]
    head = f"**{size} bytes a vector**, × 100, means over seeds"
    return f"{head}\n\n{_table(['method', *tasks, 'mean'], body)}"


def task_table(rows: Rows, task: str, methods: Sequence[str]) -> str:
    """Methods × sizes of a task, mean ± standard deviation over seeds."""
    chosen = [row for row in rows if row["task"] == task and row["metric"] in HEADLINES]
    sizes = sorted({row["bytes"] for row in chosen})
    means = mean_scores(chosen)
    best = {size: max(v for (_, s, _), v in means.items() if s == size) for size in sizes}
    body = []
    for name in methods:
        cells = []
        for size in sizes:
            values = [100 * row["value"] for row in chosen if (row["method"], row["bytes"]) == (name, size)]
            text = "–" if not values else f"{np.mean(values):.1f}"
            text += f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(_bold(text, means.get((name, size, task)) == best[size]))
        if set(cells) != {"–"}:
            body.append([name, *cells])
    head = f"**{task}**: {chosen[0]['metric']} × 100 on {chosen[0]['n']:,} test items, by bytes per vector"
    return f"{head}\n\n{_table(['method', *map(str, sizes)], body)}"


def difference_table(rows: Rows) -> str:
    """Maps against the best rival of each size and task."""
    chosen = [row for row in rows if row["metric"] == "difference_to_best_rival"]
    tasks = list(dict.fromkeys(row["task"] for row in chosen))
    body = []
    for name, size in dict.fromkeys((row["method"], row["bytes"]) for row in chosen):
        cells = []
        for task in tasks:
            row = next(r for r in chosen if (r["method"], r["bytes"], r["task"]) == (name, size, task))
            low, high = 100 * row["ci_low"], 100 * row["ci_high"]
            cells.append(f"{100 * row['value']:+.1f} [{low:+.1f}, {high:+.1f}] {row['rival']}")
        body.append([name, str(size), *cells])
    head = "**Difference to the best rival**, × 100 [95 % interval], and which that is"
    return f"{head}\n\n{_table(['method', 'bytes', *tasks], body)}"


def probe_table(rows: Rows) -> str:
    """Logistic regressions on stored vectors of Banking77, first seed."""
    chosen = [row for row in rows if row["metric"] in ("accuracy", "accuracy_few_shot")]
    sizes = sorted({row["bytes"] for row in chosen})
    body = []
    for name in dict.fromkeys(row["method"] for row in chosen):
        cells = []
        for size in sizes:
            values = {r["metric"]: 100 * r["value"] for r in chosen if (r["method"], r["bytes"]) == (name, size)}
            cells.append(f"{values['accuracy']:.1f} / {values['accuracy_few_shot']:.1f}" if values else "–")
        body.append([name, *cells])
    head = (
        "**banking77**: logistic regression on stored vectors × 100, all training texts (standardised) / MTEB's 8 of each label, "
        "by bytes per vector, first seed"
    )
    return f"{head}\n\n{_table(['method', *map(str, sizes)], body)}"


def method_table(rows: Rows, methods: Mapping[str, Any]) -> str:
    """What the methods are, their seeds, the time of a fit, and the codes that were chosen."""
    body = []
    for name, settings in methods.items():
        own = [row for row in rows if row["method"] == name]
        if not own:
            continue
        times = [row["value"] for row in own if row["metric"] == "cpu_seconds"]
        codes = {
            row["bytes"]: f"{row['dim']}×{row['bits']}{'r' if row['turned'] else ''}" for row in own if row.get("bits")
        }
        count = len({row["seed"] for row in own if "rival" not in row})
        body.append(
            [
                name,
                str(count),
                f"{np.mean(times):.1f}" if times else "–",
                settings["about"],
                ", ".join(codes.values()) or "–",
            ]
        )
    head = "Codes by size: dimensions × bits, r: after a random rotation."
    return f"{_table(['method', 'seeds', 'CPU s per fit', 'what it is', 'codes'], body)}\n\n{head}"


def fill(markdown: Path, name: str, content: str) -> None:
    """Replace what stands between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``."""
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    text = markdown.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{markdown} must hold the lines {begin} and {end} once each.")
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    write_text(markdown, section.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text))


def draw(results: Mapping[str, Any], plan: Mapping[str, Any], path: Path) -> None:
    """Score against bytes, one panel per task and one line per method, with 95 % intervals of the first seed."""
    rows = [row for row in results["rows"] if row["metric"] in HEADLINES]
    tasks = _tasks(rows)
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    figure = Figure(figsize=(0.6 + 4.4 * across, 1.2 + 3.9 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    drawn = [row for row in rows if row["method"] in plan["plot"] and row["bytes"] <= 128]
    sizes = sorted({row["bytes"] for row in drawn} - {48})  # no room beside 64
    for axis, task in zip(axes, tasks, strict=False):
        for name in plan["plot"]:
            _line(axis, [row for row in drawn if (row["method"], row["task"]) == (name, task)], name, plan)
        if whole := [row["value"] for row in rows if row["task"] == task and row["bytes"] == 1536]:
            axis.axhline(100 * whole[0], color="0.3", linewidth=1, linestyle=(0, (1, 2)), label="float32, 1,536 bytes")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_title(TITLES[task], fontsize=11)
        axis.set_xlabel("bytes per stored vector")
        axis.grid(alpha=0.25)
    for axis in axes[len(tasks) :]:
        axis.remove()
    for axis in axes[::across]:
        axis.set_ylabel("score × 100")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=1 + across if across > 1 else 2, frameon=False, fontsize=9
    )
    write_atomically(path, lambda file: figure.savefig(file, dpi=120, format="png"))


def _line(axis: Any, rows: Rows, name: str, plan: Mapping[str, Any]) -> None:
    if not rows:
        return
    number = plan["plot"].index(name)
    ours = plan["methods"][name]["type"] == "map"
    points = sorted((size, 100 * value) for (_, size, _), value in mean_scores(rows).items())
    first = {row["bytes"]: row for row in rows if row["seed"] in (0, None)}
    sizes, values = zip(*points, strict=True)
    # The interval is that of the first seed, moved to the mean: how many items there are decides its width.
    low = [100 * (first[size]["value"] - first[size]["ci_low"]) for size in sizes]
    high = [100 * (first[size]["ci_high"] - first[size]["value"]) for size in sizes]
    shift = 2 ** (0.045 * (number - len(plan["plot"]) / 2))  # so that intervals stand beside each other
    axis.errorbar(
        [size * shift for size in sizes],
        values,
        yerr=[low, high],
        label=LABELS.get(name, name),
        color=COLOURS.get(name, ("C0", "C1", "C2", "C4", "C5", "C6", "C8", "C9")[number % 8]),
        linewidth=2.4 if ours else 1.1,
        linestyle="-" if ours else ("--", ":", "-.")[number % 3],
        marker="o" if ours else "s",
        markersize=4 if ours else 3,
        elinewidth=0.7,
        zorder=3 if ours else 2,
    )


def _tasks(rows: Rows) -> list[str]:
    present = {row["task"] for row in rows if row["metric"] in HEADLINES}
    return [task for task in TITLES if task in present]


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    numbers = {"seeds", "bytes", "mean", "CPU s per fit", *TITLES}
    align = ["--:" if name in numbers or name.isdigit() else "---" for name in header]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, align, *body))


def main(words: Sequence[str]) -> None:
    """``bytes_report.py RESULTS.json PLAN.yaml MARKDOWN``: fill the section of the study's name with the tables."""
    from bytes_study import read_plan

    results_path, plan_path, markdown = words
    results = read_results(results_path)
    made = f"commit {results['commit'][:12]}" if results["commit"] else "no commit recorded"
    source = f"From `{Path(results_path).name}` ({made}, {results['machine']['cpu']})."
    fill(Path(markdown), results["study"], f"{report(results, read_plan(plan_path))}\n\n{source}")


if __name__ == "__main__":
    main(sys.argv[1:])
