"""Model cards for the Hub, made from a results json alone: what was not measured is not in the card.

Render the card that a YAML file describes (see `read_spec`), with its pictures and evaluation results::

    python -m hf_evl_ecg.cards.card model_cards/ecg_small.yaml
    python -m hf_evl_ecg.cards.card model_cards/ecg_small.yaml --output exported/README.md --model exported

The first writes ``ecg_small.md`` beside the file, the second a README.md into an exported model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from hf_evl_ecg.files import write_text
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.results import read_results

from . import findings as findings
from . import sections as sections
from .pictures import plot_reliability, plot_scores
from .spec import CardSpec, MissingResultsError, read_spec
from .tables import (
    METHOD_NAMES,
    MIN_ITEMS,
    class_table,
    headline_rows,
    main_lines,
    metric_name,
    score_table,
    seed_table,
    task_text,
)

__all__ = ["CardSpec", "MissingResultsError", "read_spec", "render_card", "write_card"]

TAGS = ("ecg", "electrocardiogram", "medical", "vision-language", "arxiv:2605.29977")
PLACE = "path/to/this/folder"


def render_card(
    results: Mapping[str, Any],
    spec: CardSpec,
    *,
    facts: Mapping[str, Any] | None = None,
    model_config: Mapping[str, Any] | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Render a card. The same arguments give the same text.

    Args:
        results: A results json, as from `hf_evl_ecg.results.read_results`; all numbers come from its rows and settings.
        spec: What the card is about.
        facts: What examples/evl_ecg/card_data.py found about the same study, method and seed: architecture, reliability,
            failure cases, seconds. Sections without facts are left out.
        model_config: ``config.json`` of the exported model, whose provenance is shown.
        pictures: File names of the pictures "scores" and "reliability", where they were drawn.

    Returns:
        The markdown with its metadata.

    Raises:
        ValueError: The results hold no row of the method and seed, several seeds and none is chosen, or the facts are
            about another model.

    Example:
        >>> render_card(read_results("ecg_small.json"), CardSpec("ECG-small", "evl_ecg", seed=0))  # doctest: +SKIP
    """
    rows, config, facts, pictures = results["rows"], results["config"], facts or {}, pictures or {}
    runs = _runs(rows, spec)
    _check_facts(results, spec, runs[0], facts)
    names = _names(runs)
    report = config.get("questions_report")
    model_id = spec.model_id or PLACE
    parts = [
        f"# {spec.name}\n\n{_introduction(spec, config, facts)}",
        sections.use_section(config),
        sections.run_section(model_id, config.get("images", {}), config.get("evaluate", {}).get("max_new_tokens", 64)),
        _scores(rows, runs, names, pictures.get("scores")),
        _classes(rows, runs[:2], names[:2]),
        findings.reliability_section(rows, runs[0], pictures.get("reliability")),
        findings.failure_section(facts.get("failures", ()), spec.sources),
        sections.data_section(report, spec.sources),
        sections.method_section(config, spec.method, spec.teacher_model),
        sections.architecture_section(facts.get("models", {}), {"student": "this model", "teacher": "teacher"}),
        sections.cost_section(facts.get("stages", ()), results["machine"], *runs[0]),
        sections.limits_section(rows, config, spec.limits),
        _origin(results, model_config),
        sections.citation_section(report, spec.sources),
    ]
    body = "\n\n".join(part for part in parts if part)
    text = f"---\n{_metadata(rows, spec, runs[0]).to_yaml()}\n---\n\n{body}\n"
    ModelCard(text)  # parses the metadata back, or raises
    return text


def evaluation_entries(rows: Sequence[Mapping[str, Any]], spec: CardSpec) -> list[dict[str, Any]]:
    """Entries of ``.eval_results/*.yaml`` for the benchmarks that the description names.

    Raises:
        ValueError: A benchmark names a task and metric that this model has no row of.
    """
    method, seed = _runs(rows, spec)[0]
    entries = []
    for benchmark in spec.benchmarks:
        wanted = method, seed, benchmark["task"], benchmark["metric"]
        found = [row for row in rows if (row["method"], row["seed"], row["task"], row["metric"]) == wanted]
        if len(found) != 1:
            raise ValueError(f"the results hold {len(found)} rows of {wanted}; a benchmark needs exactly one")
        note = benchmark.get("notes") or metric_name(benchmark["metric"])
        entries.append(
            EvalResultEntry(benchmark["dataset_id"], benchmark["task_id"], round(found[0]["value"], 6), notes=note)
        )
    return eval_result_entries_to_yaml(entries)


def write_card(path: str | Path, output: str | Path | None = None, model: str | Path | None = None) -> Path:
    """Write the card that a YAML file describes, its pictures beside it, and ``.eval_results/NAME.yaml`` below it.

    Args:
        path: The YAML file (see `read_spec`).
        output: Where the card goes; default: beside the YAML file, ending in ``.md``.
        model: Folder of the exported model, whose provenance is shown.

    Returns:
        The card.

    Raises:
        MissingResultsError: The results, or the facts that are named, are not there.
    """
    spec, results_path, facts_path = read_spec(path)
    for needed in (results_path, facts_path):
        if needed is not None and not needed.is_file():
            how = f"; run `{spec.command}` first" if spec.command else ""
            raise MissingResultsError(f"{needed} is not there, and a card is made of measured results only{how}")
    source, stem = Path(path).parent, Path(path).stem
    output = Path(output) if output is not None else Path(path).with_suffix(".md")
    results = read_results(results_path)
    facts = json.loads(facts_path.read_text(encoding="utf-8")) if facts_path else {}
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8")) if model else None
    runs = _runs(results["rows"], spec)
    names = _names(runs)
    known = dict(zip((method for method, _ in runs), names, strict=True))
    curves = {known.get(method, method): found for method, found in facts.get("reliability", {}).items()}
    drawn = {
        "scores": plot_scores(results["rows"], runs, names, output.parent / f"{stem}_scores.png"),
        "reliability": plot_reliability(curves, output.parent / f"{stem}_reliability.png"),
    }
    pictures = {name: f"{stem}_{name}.png" for name, there in drawn.items() if there}
    text = render_card(results, spec, facts=facts, model_config=config, pictures=pictures)
    for case in facts.get("failures", ()):
        if Path(case.get("image") or "").name != (case.get("image") or ""):
            raise ValueError(f"{facts_path}: picture {case['image']!r}; allowed: a file name in {source}")
        if case.get("image") and output.parent.resolve() != source.resolve():
            shutil.copyfile(source / case["image"], output.parent / case["image"])
    if entries := evaluation_entries(results["rows"], spec):
        text_of_entries = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        write_text(output.parent / ".eval_results" / f"{stem}.yaml", text_of_entries)
    write_text(output, text)
    return output


def _runs(rows: Sequence[Mapping[str, Any]], spec: CardSpec) -> list[tuple[str, int | None]]:
    """(method, seed) of this model, of the teacher and of the baselines: with the same seed where they have it."""
    seeds: dict[str, list[int | None]] = {}
    for row in rows:
        if row["seed"] not in seeds.setdefault(row["method"], []):
            seeds[row["method"]].append(row["seed"])
    own = seeds.get(spec.method, [])
    if spec.seed not in own and not (spec.seed is None and len(own) == 1):
        raise ValueError(
            f"the results hold method {spec.method!r} with seeds {own}, not {spec.seed}; methods: {list(seeds)}"
        )
    run = spec.method, spec.seed if spec.seed in own else own[0]
    others = [m for m in seeds if m != spec.teacher] if spec.baselines is None else list(spec.baselines)
    wanted = [*([spec.teacher] if spec.teacher in seeds else []), *others]
    if absent := [method for method in wanted if method not in seeds]:
        raise ValueError(f"the results hold no row of {absent}; methods: {list(seeds)}")
    return [run, *((m, run[1] if run[1] in seeds[m] else seeds[m][0]) for m in wanted if m and m != spec.method)]


def _names(runs: Sequence[tuple[str, int | None]]) -> list[str]:
    return ["this model", *(METHOD_NAMES.get(method, method) for method, _ in runs[1:])]


def _check_facts(
    results: Mapping[str, Any], spec: CardSpec, run: tuple[str, int | None], facts: Mapping[str, Any]
) -> None:
    if facts and (facts["study"], facts["method"], facts["seed"]) != (results["study"], *run):
        raise ValueError(
            f"the facts are about {facts['method']}, seed {facts['seed']}, of {facts['study']}; the card {spec.name!r} is about "
            f"{run[0]}, seed {run[1]}, of {results['study']}"
        )


def _introduction(spec: CardSpec, config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    models, methods = facts.get("models", {}), config.get("methods", {})
    size = f" of {models['student']['parameters']:,} parameters" if "student" in models else ""
    text = f"A vision-language model{size}: it takes the picture of a 12-lead ECG and a question, and answers in a few words."
    if spec.method in methods:
        larger = f" ({models['teacher']['parameters']:,} parameters)" if "teacher" in models else ""
        alone = (methods[spec.method] or {}).get("sft_only")
        text += " Trained without a teacher." if alone else f" Taught by {spec.teacher_model}{larger}."
    parts = [spec.summary.strip(), text, "**For research only. Not a medical device; not for diagnosis.**"]
    return "\n\n".join(part for part in parts if part)


def _scores(
    rows: Sequence[Mapping[str, Any]], runs: Sequence[tuple[str, int | None]], names: Sequence[str], picture: str | None
) -> str:
    seed = "" if runs[0][1] is None else f" This model is `{runs[0][0]}`, seed {runs[0][1]}."
    lines = headline_rows(rows, runs)
    main, single = main_lines(lines)
    parts = [
        "## Results",
        *([f"![Scores with intervals]({picture})"] if picture else []),
        score_table(main, runs, names),
    ]
    parts.append(
        f"Values × 100 with 95 % bootstrap intervals over records (mean absolute errors in the unit asked for) on test records;"
        f" bold: beats chance, the best answer that ignores the ECG, in at least 97.5 % of the resamples.{seed}"
    )
    if len(main) + len(single) < len(lines) and not single:
        parts.append(f"Tasks with fewer than {MIN_ITEMS} questions are left out.")
    parts.append(findings.verdict(main, runs, names))
    if spread := seed_table(rows, main, list(dict.fromkeys(method for method, _ in runs))):
        parts += ["Mean ± standard deviation over training seeds:", spread]
    if single:
        summary = f"<summary>Each source alone (tasks with at least {MIN_ITEMS} questions)</summary>"
        parts.append(f"<details>\n{summary}\n\n{score_table(single, runs, names)}\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def _classes(rows: Sequence[Mapping[str, Any]], runs: Sequence[tuple[str, int | None]], names: Sequence[str]) -> str:
    table = class_table(rows, runs, names)
    return (
        f"## Results by class\n\n{table}\n\nClasses with too few records in the test set have no line." if table else ""
    )


def _origin(results: Mapping[str, Any], model_config: Mapping[str, Any] | None) -> str:
    versions = ", ".join(f"{name} {results['machine'][name]}" for name in ("torch", "transformers"))
    commit = f", commit `{results['commit']}`" if results["commit"] else ""
    lines = [f"All numbers are from the results of the study `{results['study']}`{commit} ({versions})."]
    known = (model_config or {}).get(PROVENANCE_KEY) or {}
    lines += [
        f"- {key}: {value if isinstance(value, str | int | float) else json.dumps(value)}"
        for key, value in known.items()
    ]
    return "## Provenance\n\n" + "\n".join(lines[:1] + [""] * (len(lines) > 1) + lines[1:])


def _metadata(rows: Sequence[Mapping[str, Any]], spec: CardSpec, run: tuple[str, int | None]) -> ModelCardData:
    lines = [line for part in main_lines(headline_rows(rows, [run])) for line in part]
    results = [
        EvalResult(
            task_type="visual-question-answering",
            task_name="Questions about 12-lead ECGs",
            dataset_type=line.source or line.name,
            dataset_name=f"{line.task}, test records",
            dataset_config=line.name,
            dataset_split="test",
            metric_type=line.metric,
            metric_name=f"{metric_name(line.metric)}, {task_text(line.name)}",
            metric_value=round(line.rows[run]["value"], 6),
        )
        for line in lines
    ]
    given: dict[str, Any] = {"base_model": spec.base_model, "datasets": list(spec.datasets)}
    return ModelCardData(
        language="en",
        license=spec.license,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=list(TAGS),
        metrics=list(dict.fromkeys(line.metric for line in lines)),
        model_name=spec.name,
        eval_results=results,
        **{name: value for name, value in given.items() if value},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hf_evl_ecg.cards.card", description="Render a model card from its results."
    )
    parser.add_argument("spec", help="YAML file that describes the card")
    parser.add_argument("--output", help="where the card goes; default: beside the YAML file, ending in .md")
    parser.add_argument("--model", help="folder of the exported model, whose provenance is shown")
    given = parser.parse_args(arguments)
    try:
        print(f"Written: {write_card(given.spec, given.output, given.model)}")
    except MissingResultsError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
