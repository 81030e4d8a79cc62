"""The model card of one model of a study, made from the study's results json alone.

Render the card that a YAML file describes (see :func:`read_spec`), with its picture and evaluation results::

    hf-mic card model_cards/mic_minilm.yaml
    hf-mic card model_cards/mic_minilm.yaml --output exported/README.md

The first writes ``mic_minilm.md`` beside the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from hf_mic.files import write_text
from hf_mic.losses import MIC_BIBTEX
from hf_mic.reports.score_pictures import plot_scores
from hf_mic.reports.score_tables import markdown_report
from hf_mic.results import Rows, read_results

from .card import PLACE, TAGS
from .loss_text import loss_settings
from .markdown import fill_template
from .scores import COMPARED_METRICS, compare_methods, model_index_results, own_rows, rows_by_dim
from .spec import CardSpec, MissingResultsError, read_spec

__all__ = ["CardSpec", "MissingResultsError", "read_spec", "render_card", "write_card"]

MIC_TAGS = ("mic", "arxiv:2605.29987")


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
    rows = [row for row in results["rows"] if row["task"] != "geometry"]
    own = own_rows(rows, spec.method, spec.seed)
    seed = own[0]["seed"]
    if absent := sorted(set(spec.baselines) - {row["method"] for row in rows}):
        raise ValueError(
            f"baselines={absent}: the results hold no row of them; methods are {sorted({row['method'] for row in rows})}"
        )
    methods = (*spec.baselines, spec.method)
    shown = sorted((r for r in rows if r["method"] in methods), key=lambda row: methods.index(row["method"]))
    facts = {
        "spec": spec,
        "seed": seed,
        "results": results,
        "model_id": spec.model_id or PLACE,
        "truncate_dim": spec.truncate_dim,
        "dims": sorted({row["dim"] for row in own}),
        "tasks": [f"`{task}`" for task in dict.fromkeys(row["task"] for row in own)],
        "picture": picture,
        "own": rows_by_dim(own),
        "compared": compare_methods(shown, spec.method, spec.baselines),
        "report": markdown_report({"rows": shown}, COMPARED_METRICS),
        "train_seconds": results["config"].get("runs", {}).get(f"{spec.method}-{seed}", {}).get("train_seconds"),
        "one_seed": len({row["seed"] for row in rows if row["method"] == spec.method}) == 1,
        "bibtex": MIC_BIBTEX,
        **_training_facts(results["config"], spec.method, max(row["dim"] for row in own)),
    }
    data = ModelCardData(
        language="en",
        license=spec.license,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", *TAGS, *(MIC_TAGS if facts["options"] else ())],
        model_name=spec.name,
        eval_results=model_index_results(rows, spec.method, seed),
        base_model=spec.base_model,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{fill_template('study.md', facts)}\n"
    ModelCard(text)  # parses the metadata back, or raises
    return text


def evaluation_entries(rows: Rows, spec: CardSpec) -> list[dict[str, Any]]:
    """Entries of ``.eval_results/*.yaml`` for the benchmarks that the description names.

    Raises:
        ValueError: If a benchmark names a score that this model does not have.
    """
    scores = {(r["task"], r["metric"], r["dim"]): r["value"] for r in own_rows(rows, spec.method, spec.seed)}
    entries = []
    for benchmark in spec.benchmarks:
        wanted = benchmark["task"], benchmark["metric"], benchmark["dim"]
        if wanted not in scores:
            raise ValueError(
                f"benchmarks: {wanted} is no score of {spec.method!r} in the results; name its task, metric and dim"
            )
        about = benchmark["dataset_id"], benchmark["task_id"], round(scores[wanted], 6)
        entries.append(EvalResultEntry(*about, notes=f"{wanted[1]} at {wanted[2]} dimensions"))
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
        raise MissingResultsError(
            f"results={results_path}: there is no such file, and a card is made of measured results only{how}"
        )
    output = Path(output) if output is not None else Path(path).with_suffix(".md")
    results, stem = read_results(results_path), Path(path).stem
    shown = [row for row in results["rows"] if row["method"] in (*spec.baselines, spec.method)]
    metrics = [metric for metric in COMPARED_METRICS if any(row["metric"] == metric for row in shown)]
    text = render_card(results, spec, picture=f"{stem}_scores.png" if metrics else None)
    if metrics:
        shown.sort(key=lambda row: (*spec.baselines, spec.method).index(row["method"]))
        plot_scores(shown, output.parent / f"{stem}_scores.png", metrics=metrics)
    if entries := evaluation_entries(results["rows"], spec):
        content = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        write_text(output.parent / ".eval_results" / f"{stem}.yaml", content)
    write_text(output, text)
    return output


def _training_facts(config: Mapping[str, Any], method: str, width: int) -> dict[str, Any]:
    """What the template says of data and training; nothing where the settings do not hold the method."""
    plan = next((plan for plan in config.get("methods", ()) if plan["name"] == method), None)
    if plan is None:
        return {"plan": None, "options": None}
    settings = {**config["training"], **plan.get("training", {})}
    options = loss_settings(settings, width) if plan["method"] == "mic" else None
    return {
        "plan": plan,
        "sources": config["data"][plan.get("data", "unsupervised")],
        "settings": settings,
        "options": options,
        "loss": fill_template("loss.md", options) if options else None,
    }
