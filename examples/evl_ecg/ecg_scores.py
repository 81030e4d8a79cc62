"""Scores of several models on the same questions, and the table and picture made from a results json.

Fill the section between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->`` of a markdown file with means over seeds:

    python examples/evl_ecg/ecg_scores.py --results model_cards/results/ecg_small.json --markdown README.md --section ecg_small \
        --tasks real:axis_closed real:diagnosis_closed --metrics balanced_accuracy auc
"""

import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from ecg_options import ImageOptions, load_model, parse_arguments
from matplotlib.figure import Figure

from hf_evl_ecg.files import new_file, write_text
from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.qa.grading import item_kind
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.scoring import score_answers
from hf_evl_ecg.results import read_results, write_results

HEADLINES = (
    *("balanced_accuracy", "auc", "accuracy", "within_tolerance", "mean_absolute_error", "macro_f1", "macro_auc"),
    *("report_f1", "unparsed"),
)
"""Metrics that tables show unless others are named."""
FEWEST_PLOTTED = 20
"""Tasks of fewer questions are left out of the picture."""
SIMULATED = "Rows that begin with 'simulated' are about simulated ECGs, not patients."


def score_model(
    path: str,
    questions: Dataset,
    images: ImageOptions,
    *,
    method: str,
    seed: int | None = None,
    answers: str | Path | None = None,
    dtype: str = "auto",
    n_bootstrap: int = 1000,
    min_per_class: int = 10,
    device: str = "cpu",
    **options: Any,
) -> tuple[list[dict[str, Any]], list[tuple[Mapping[str, Any], Answer]]]:
    """Ask one model every question and score its answers source by source.

    Args:
        path: The model's folder or name.
        questions: From `ecg_options.load_questions`.
        images: How ECGs are drawn.
        method: Name of the method in the rows.
        seed: Training seed in the rows.
        answers: A jsonl file of its answers, which makes the work resumable.
        dtype: Precision of the weights.
        n_bootstrap: Resamples for the intervals.
        min_per_class: A class gets a row of its own from this many positive items on.
        device: Where the model runs.
        options: Further options of `hf_evl_ecg.inference.evaluation.answer_items`.

    Returns:
        Rows of a results json, whose tasks begin with the source of the records (``ludb:rhythm_closed``) or, for all
        sources but the simulated one together, with ``real``; and the questions with their answers.
    """
    model, processor = load_model(path, dtype)
    done = answer_items(
        model.to(device).eval(),
        processor,
        questions,
        load_image=images.renderer(),
        path=answers,
        **options,
    )
    pairs = list(zip(done.items, done.answers, strict=True))
    rows = []
    for source, own in _by_source(pairs).items():
        scored = score_answers(
            [item for item, _ in own],
            [answer for _, answer in own],
            method=method,
            seed=seed,
            n_bootstrap=n_bootstrap,
            min_per_class=min_per_class,
        )
        rows += [{**row, "task": f"{source}:{row['task']}"} for row in scored]
    return rows, pairs


def _by_source(pairs: Sequence[tuple[Mapping[str, Any], Answer]]) -> dict[str, list[tuple[Mapping[str, Any], Answer]]]:
    """Questions and answers of each source, and of all real ones together where there are several.

    Lists of classes differ between sources, so questions about them are not put together.
    """
    groups: dict[str, list[tuple[Mapping[str, Any], Answer]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0]["source"], []).append(pair)
    real = [source for source in groups if source != "simulated"]
    if len(real) > 1:
        together = [pair for source in real for pair in groups[source] if item_kind(pair[0]) != "classes"]
        groups = {"real": together, **groups} if together else groups
    return groups


def write_report(
    output: Path, study: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> str:
    """Write STUDY.json, STUDY.md and STUDY.png.

    Returns:
        The markdown.
    """
    output.mkdir(parents=True, exist_ok=True)
    results = write_results(output / f"{study}.json", study, config, rows)
    text = markdown_table(results["rows"], notes)
    if len({row["seed"] for row in rows}) > 1:
        text = f"{seed_table(results['rows'])}\nEach run, with its interval over the records:\n\n{text}"
    write_text(output / f"{study}.md", text)
    plot_scores(results["rows"], output / f"{study}.png")
    return text


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


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw every run with its interval, a colour per method, and where chance is.

    Classes, errors and tasks of fewer than `FEWEST_PLOTTED` questions are left out, and single sources where all real ones
    are scored together.
    """
    chosen = [row for row in rows if row["chance"] is not None and "/" not in row["task"].split(":", 1)[-1]]
    chosen = [row for row in chosen if row["metric"] in HEADLINES and row["metric"] != "mean_absolute_error"]
    if any(row["task"].startswith("real:") for row in chosen):
        chosen = [row for row in chosen if row["task"].startswith(("real:", "simulated:"))]
    chosen = [row for row in chosen if row["n"] >= FEWEST_PLOTTED] or chosen
    lines = list(dict.fromkeys((row["task"], row["metric"]) for row in chosen))
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    if not lines:
        return
    figure = Figure(figsize=(8.5, 1.3 + len(lines) * (0.22 + 0.17 * len(methods))), layout="constrained")
    axis = figure.subplots()
    for number, method in enumerate(methods):
        for position, line in enumerate(lines):
            runs = [row for row in chosen if (row["method"], row["task"], row["metric"]) == (method, *line)]
            for index, row in enumerate(runs):
                y = position + (number + (index + 0.5) / len(runs)) * 0.7 / len(methods) - 0.35
                low, high = (row[key] if row[key] is not None else row["value"] for key in ("ci_low", "ci_high"))
                axis.plot([100 * low, 100 * high], [y, y], color=f"C{number}", linewidth=1.2, alpha=0.6)
                axis.plot(100 * row["value"], y, "o", color=f"C{number}", markersize=3)
        axis.plot([], [], "o-", color=f"C{number}", markersize=4, label=method)
    for position, line in enumerate(lines):
        chance = next(row["chance"] for row in chosen if (row["task"], row["metric"]) == line)
        axis.plot([100 * chance] * 2, [position - 0.4, position + 0.4], color="black", linestyle=":", linewidth=1.2)
    axis.plot([], [], color="black", linestyle=":", label="chance")
    axis.set_yticks(range(len(lines)), [f"{task}\n{metric}" for task, metric in lines], fontsize=7)
    axis.set_ylim(len(lines) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("× 100, with 95 % interval; a line per run")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(methods) + 1)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


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


@dataclass
class SectionArguments:
    """Which results, and where the table goes."""

    results: str = field(metadata={"help": "Results json."})
    markdown: str = field(metadata={"help": "File that holds the two markers of the section."})
    section: str = field(metadata={"help": "Its name: <!-- results:NAME --> ... <!-- /results:NAME -->."})
    tasks: list[str] | None = field(default=None, metadata={"help": "Tasks to show; default all."})
    metrics: list[str] = field(default_factory=lambda: list(HEADLINES), metadata={"help": "Metrics to show."})


def main(args: SectionArguments) -> str:
    """Fill the section.

    Returns:
        The text of the whole file.

    Raises:
        ValueError: The file does not hold both markers once, or the results hold no row of a task.
    """
    path, results = Path(args.markdown), read_results(args.results)
    present = {row["task"] for row in results["rows"]}
    if missing := [task for task in args.tasks or () if task not in present]:
        raise ValueError(f"{args.results} has no row of {missing}; it has {sorted(present)}.")
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- results:{args.section} -->", f"<!-- /results:{args.section} -->"
    found = re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    if len(found) != 1 or text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order.")
    table = seed_table([row for row in results["rows"] if not args.tasks or row["task"] in args.tasks], args.metrics)
    source = f"From `{Path(args.results).name}` (commit {str(results['commit'])[:12]}, {results['machine']['cpu']})."
    text = text.replace(found[0], f"{begin}\n\n{table}\n{source}\n\n{end}")
    write_text(path, text)
    return text


if __name__ == "__main__":
    main(*parse_arguments(sys.argv[1:], SectionArguments, description=__doc__))
