"""The model card of one model of a study, made from the study's results json alone.

Render the card that a YAML file describes (see :func:`read_spec`), with its picture and evaluation results::

    python -m hf_mic.cards.study_card model_cards/mic_minilm.yaml
    python -m hf_mic.cards.study_card model_cards/mic_minilm.yaml --output exported/README.md

The first writes ``mic_minilm.md`` beside the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from hf_mic.evaluation.score_pictures import plot_scores
from hf_mic.evaluation.score_tables import HEADLINE_METRICS, markdown_report
from hf_mic.files import write_atomically
from hf_mic.results import Rows, read_results

from .parts import listed, model_index_results, own_rows, truncation_section
from .study_sections import (
    citation_section,
    cost_section,
    data_section,
    limits_section,
    origin_section,
    training_section,
)

__all__ = ["CardSpec", "MissingResultsError", "read_spec", "render_card", "write_card"]

TAGS = ("matryoshka", "truncatable-embeddings")
MIC_TAGS = ("mic", "arxiv:2605.29987")
GEOMETRY = "geometry"
UNTRAINED = {
    "truncation": "the untouched encoder, truncated",
    "pca": "PCA of the untouched encoder, fitted on the training sentences",
}
PICTURE_METRICS = ("spearman", "accuracy_standardised", "ndcg@10")


class MissingResultsError(FileNotFoundError):
    """A card was asked for whose results are not there."""


@dataclass(frozen=True)
class CardSpec:
    """What a card is about: everything that cannot be measured.

    Attributes:
        name: Title of the card.
        method: Method in the results that is this model.
        seed: Its seed, if the results hold several.
        summary: What the model is, one paragraph.
        base_model: Encoder on the Hub that training started from.
        license: Licence of the weights, as the Hub names it.
        model_id: Name on the Hub, for the code.
        baselines: Methods to compare with, in this order.
        truncate_dim: Dimension in the example.
        data: Training file, as the study's settings name it → name, licence, cite and url.
        benchmarks: Scores for ``.eval_results``: task, metric, dim, dataset_id, task_id.
        limits: Further limits, a sentence each.
        command: What makes the results.
    """

    name: str
    method: str
    seed: int | None = None
    summary: str = ""
    base_model: str | None = None
    license: str = "apache-2.0"
    model_id: str | None = None
    baselines: Sequence[str] = ("truncation", "pca")
    truncate_dim: int = 32
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    benchmarks: Sequence[Mapping[str, Any]] = ()
    limits: Sequence[str] = ()
    command: str = ""


def read_spec(path: str | Path) -> tuple[CardSpec, Path]:
    """Read a YAML file with the fields of :class:`CardSpec`, and ``results``, a results json relative to the file.

    Raises:
        ValueError: If a field is unknown, or name, method or results are missing.
    """
    path = Path(path)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {f.name for f in fields(CardSpec)}
    unknown, missing = set(values) - known - {"results"}, {"name", "method", "results"} - set(values)
    if unknown or missing:
        raise ValueError(
            f"{path}: fields {sorted(unknown)} are unknown, {sorted(missing)} are missing; known: {sorted(known)}, results."
        )
    results = path.parent / values.pop("results")
    return CardSpec(**values), results


def render_card(results: Mapping[str, Any], spec: CardSpec, *, picture: str | None = None) -> str:
    """Render a card. The same arguments give the same text.

    Args:
        results: A results json, as from :func:`hf_mic.results.read_results`; all numbers come from its rows and settings.
        spec: What the card is about.
        picture: File name of the picture of scores, where it was drawn.

    Returns:
        The markdown with its metadata.

    Raises:
        ValueError: If the results hold no row of the method, the seed or a baseline, or several seeds and none is chosen.
    """
    rows = [row for row in results["rows"] if row["task"] != GEOMETRY]
    own = own_rows(rows, spec.method, spec.seed)
    seed = own[0]["seed"]
    if absent := sorted(set(spec.baselines) - {row["method"] for row in rows}):
        raise ValueError(f"results hold no row of {absent}; methods are {sorted({row['method'] for row in rows})}.")
    plan = next((m for m in results["config"].get("methods", ()) if m["name"] == spec.method), None)
    parts = [
        f"# {spec.name}\n\n{_introduction(spec, own)}",
        truncation_section(spec.truncate_dim, spec.model_id, "How to use"),
        _intended_use(own),
        _scores(rows, own, spec, seed, picture),
        data_section(results["config"], plan, spec.data),
        training_section(results["config"], plan, max(row["dim"] for row in own)),
        cost_section(results, spec.method, seed),
        limits_section(results["config"], rows, spec.method, spec.limits),
        origin_section(results),
        citation_section(plan),
    ]
    body = "\n\n".join(part for part in parts if part)
    given: dict[str, Any] = {"base_model": spec.base_model} if spec.base_model else {}
    is_mic = plan is not None and plan["method"] == "mic"
    data = ModelCardData(
        language="en",
        license=spec.license,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", *TAGS, *(MIC_TAGS if is_mic else ())],
        model_name=spec.name,
        eval_results=model_index_results(rows, spec.method, seed),
        **given,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{body}\n"
    ModelCard(text)  # parses the metadata back, or raises
    return text


def evaluation_entries(rows: Rows, spec: CardSpec) -> list[dict[str, Any]]:
    """Entries of ``.eval_results/*.yaml`` for the benchmarks that the description names.

    Raises:
        ValueError: If a benchmark names a score that this model does not have.
    """
    own = own_rows(rows, spec.method, spec.seed)
    entries = []
    for benchmark in spec.benchmarks:
        wanted = tuple(benchmark[key] for key in ("task", "metric", "dim"))
        found = [row for row in own if (row["task"], row["metric"], row["dim"]) == wanted]
        if not found:
            raise ValueError(f"results hold no row of {wanted} for {spec.method!r}; a benchmark needs one.")
        notes = f"{wanted[1]} at {wanted[2]} dimensions"
        value = round(found[0]["value"], 6)
        entries.append(EvalResultEntry(benchmark["dataset_id"], benchmark["task_id"], value, notes=notes))
    return eval_result_entries_to_yaml(entries)


def write_card(path: str | Path, output: str | Path | None = None) -> Path:
    """Write the card that a YAML file describes, its picture beside it, and ``.eval_results/NAME.yaml`` below it.

    Args:
        path: The YAML file (see :func:`read_spec`).
        output: Where the card goes; default: beside the YAML file, ending in ``.md``.

    Returns:
        The card.

    Raises:
        MissingResultsError: If the results are not there.
    """
    spec, results_path = read_spec(path)
    if not results_path.is_file():
        how = f"; run `{spec.command}` first" if spec.command else ""
        raise MissingResultsError(f"{results_path} is not there, and a card is made of measured results only{how}")
    output = Path(output) if output is not None else Path(path).with_suffix(".md")
    results, stem = read_results(results_path), Path(path).stem
    shown = _shown(results["rows"], spec)
    metrics = [m for m in PICTURE_METRICS if any(row["metric"] == m for row in shown)]
    text = render_card(results, spec, picture=f"{stem}_scores.png" if metrics else None)
    if metrics:
        plot_scores(shown, output.parent / f"{stem}_scores.png", metrics=metrics)
    if entries := evaluation_entries(results["rows"], spec):
        content = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        write_atomically(output.parent / ".eval_results" / f"{stem}.yaml", lambda file: file.write(content.encode()))
    write_atomically(output, lambda file: file.write(text.encode()))
    return output


def _introduction(spec: CardSpec, own: Rows) -> str:
    dims = sorted({row["dim"] for row in own})
    start = f" It started from `{spec.base_model}`." if spec.base_model else ""
    text = (
        f"A sentence encoder whose embeddings can be cut: the first {listed(dims[:-1])} of its {dims[-1]} coordinates are "
        f"embeddings too, measured below at each length.{start}"
    )
    return f"{spec.summary.strip()}\n\n{text}" if spec.summary else text


def _intended_use(own: Rows) -> str:
    tasks = [f"`{task}`" for task in dict.fromkeys(row["task"] for row in own)]
    return f"""## Intended use and its limits

For search, clustering and classification of short English texts where vectors must be small. The scores are of {listed(tasks)} only:
measure on data of your own before you choose a dimension. Not made for other languages, long documents, or decisions about people."""


def _scores(rows: Rows, own: Rows, spec: CardSpec, seed: int | None, picture: str | None) -> str:
    shown = _shown(rows, spec)
    named = [f"`{name}`: {text}" for name, text in UNTRAINED.items() if name in spec.baselines]
    which = f"This model is `{spec.method}`" + (f", seed {seed}" if seed is not None else "")
    parts = ["## Scores by dimension", *([f"![Scores by dimension]({picture})"] if picture else [])]
    parts.append(
        f"{which}. {'; '.join(named)}{'.' if named else ''} Embeddings are truncated, then normalised; scores × 100."
    )
    parts.append("This model with 95 % bootstrap intervals over test items:")
    parts += [
        _own_table(own),
        "Dimensions at which its mean over seeds is above that of the other methods; elsewhere it is not:",
        _comparison(shown, spec),
    ]
    parts += ["All methods, the best mean of a dimension in bold:", markdown_report({"rows": shown}, PICTURE_METRICS)]
    return "\n\n".join(parts)


def _shown(rows: Rows, spec: CardSpec) -> list[Mapping[str, Any]]:
    """Rows of the baselines in their order, then of this model's method."""
    methods = (*spec.baselines, spec.method)
    own = [row for row in rows if row["method"] in methods]
    return sorted(own, key=lambda row: methods.index(row["method"]))


def _own_table(own: Rows) -> str:
    dims = sorted({row["dim"] for row in own})
    lines = [f"| task | metric | n | {' | '.join(map(str, dims))} |", f"| --- | --- | --: |{' --: |' * len(dims)}"]
    metrics = dict.fromkeys((*HEADLINE_METRICS, *PICTURE_METRICS))
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in own if row["metric"] in metrics):
        found = {row["dim"]: row for row in own if (row["task"], row["metric"]) == (task, metric)}
        n = next(iter(found.values()))["n"]
        lines.append(f"| {task} | {metric} | {n:,} | {' | '.join(_interval(found.get(dim)) for dim in dims)} |")
    return "\n".join(lines)


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    interval = "" if row["ci_low"] is None else f" [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    return f"{100 * row['value']:.1f}{interval}"


def _comparison(rows: Rows, spec: CardSpec) -> str:
    """For each task and baseline: dimensions at which the mean over seeds is higher, of those that both have."""
    lines = [f"| task | metric | {' | '.join(spec.baselines)} |", f"| --- | --- |{' --- |' * len(spec.baselines)}"]
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows if row["metric"] in PICTURE_METRICS):
        means = {
            method: _means([r for r in rows if (r["method"], r["task"], r["metric"]) == (method, task, metric)])
            for method in (spec.method, *spec.baselines)
        }
        own, cells = means[spec.method], []
        for other in spec.baselines:
            both = sorted(set(own) & set(means[other]))
            above = [str(dim) for dim in both if own[dim] > means[other][dim]]
            cells.append(("all" if len(above) == len(both) else ", ".join(above) or "none") if both else "–")
        lines.append(f"| {task} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _means(rows: Rows) -> dict[int, float]:
    full = [row for row in rows if row.get("precision", "float32") == "float32"]
    return {dim: mean(r["value"] for r in full if r["dim"] == dim) for dim in {row["dim"] for row in full}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the card that a YAML file describes (see the head of this file)."""
    parser = argparse.ArgumentParser(
        prog="python -m hf_mic.cards.study_card", description="Render a model card from its results."
    )
    parser.add_argument("spec", help="YAML file that describes the card")
    parser.add_argument("--output", help="where the card goes; default: beside the YAML file, ending in .md")
    given = parser.parse_args(arguments)
    try:
        print(f"Written: {write_card(given.spec, given.output)}")
    except MissingResultsError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
