"""Model cards for the Hub, made from a results json alone: what was not measured is not in the card.

``hf-evl-ecg card`` renders the card that a YAML file describes (see `read_spec`), with its pictures and evaluation results.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from hf_evl_ecg.files import write_text
from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.results import read_results
from hf_evl_ecg.scores.lines import Line, Row, Run, headline_lines, main_lines
from hf_evl_ecg.scores.names import group_name, metric_name, task_text
from hf_evl_ecg.scores.picture import plot_scores

from .content import compared_runs, score_content, study_content
from .markdown import fill_template
from .pictures import plot_reliability
from .spec import CardSpec, MissingResultsError, read_spec

__all__ = ["CardSpec", "MissingResultsError", "read_spec", "render_card", "write_card"]

TAGS = ("ecg", "electrocardiogram", "medical", "vision-language", "arxiv:2605.29977")
PLACE = "path/to/this/folder"
_SHARED_STAGES = ("teacher_vision", "teacher", "cache", "student_vision")  # that all students of a study have in common


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
        facts: What studies/evl_ecg/card_data.py found about the same study, method and seed: architecture, reliability,
            failure cases, seconds. Sections without facts are left out.
        model_config: ``config.json`` of the exported model, whose provenance is shown.
        pictures: File names of the pictures "scores" and "reliability", where they were drawn.

    Returns:
        The markdown with its metadata.

    Raises:
        ValueError: The results hold no row of the method and seed, several seeds and none is chosen, or the facts are
            about another model.

    Example:
        >>> from hf_evl_ecg.results import write_results
        >>> row = {"method": "evl_ecg", "seed": 0, "task": "ludb:rhythm_closed", "dim": None, "metric": "accuracy"}
        >>> row |= {"value": 0.8, "n": 20, "ci_low": 0.6, "ci_high": 0.95}
        >>> results = write_results("ecg_small.json", "ecg_small", {}, [row])
        >>> card = render_card(results, CardSpec("ECG-small", "evl_ecg", license="apache-2.0"))
        >>> [line for line in card.splitlines() if line.startswith(("# ", "license:"))]
        ['license: apache-2.0', '# ECG-small']
    """
    facts, rows, config = facts or {}, results["rows"], results["config"]
    compared = compared_runs(rows, spec)
    run = next(iter(compared))
    if facts and (facts["study"], facts["method"], facts["seed"]) != (results["study"], *run):
        raise ValueError(
            f"the facts are about {facts['method']}, seed {facts['seed']}, of {facts['study']}; the card {spec.name!r} is about "
            f"{run[0]}, seed {run[1]}, of {results['study']}"
        )
    provenance = ((model_config or {}).get(PROVENANCE_KEY) or {}).items()
    stages = (*_SHARED_STAGES, f"{run[0]}_{run[1]}")
    filled = {
        "spec": spec,
        "results": results,
        "model_id": spec.model_id or PLACE,
        "provenance": {key: value if isinstance(value, str) else json.dumps(value) for key, value in provenance},
        "pictures": {"scores": None, "reliability": None, **(pictures or {})},
        "models": facts.get("models", {}),
        "stages": [stage for stage in facts.get("stages", ()) if stage["stage"] in stages],
        "failures": facts.get("failures", ()),
        **score_content(rows, compared),
        **study_content(config, spec),
    }
    text = f"---\n{_metadata(rows, spec, run).to_yaml()}\n---\n\n{fill_template('card.md', filled)}\n"
    ModelCard(text)  # parses the metadata back, or raises
    return text


def evaluation_entries(rows: Sequence[Row], spec: CardSpec) -> list[dict[str, Any]]:
    """Entries of ``.eval_results/*.yaml`` for the benchmarks that the description names.

    Raises:
        ValueError: A benchmark names a task and metric that this model has no row of.
    """
    method, seed = next(iter(compared_runs(rows, spec)))
    entries = []
    for benchmark in spec.benchmarks:
        wanted = method, seed, benchmark["task"], benchmark["metric"]
        found = [row for row in rows if (row["method"], row["seed"], row["task"], row["metric"]) == wanted]
        if len(found) != 1:
            raise ValueError(
                f"benchmarks: the results hold {len(found)} rows of {wanted}; name a task and metric that have one"
            )
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
            raise MissingResultsError(
                f"{needed}: there is no such file, and a card is made of measured results only{how}"
            )
    source, stem = Path(path).parent, Path(path).stem
    output = Path(output) if output is not None else Path(path).with_suffix(".md")
    results = read_results(results_path)
    facts = read_json(facts_path) if facts_path else {}
    config = read_json(Path(model) / "config.json") if model else None
    runs = compared_runs(results["rows"], spec)
    names = {method: name for (method, _), name in runs.items()}
    curves = {names.get(method, method): found for method, found in facts.get("reliability", {}).items()}
    drawn = {
        "scores": plot_scores(results["rows"], output.parent / f"{stem}_scores.png", runs),
        "reliability": plot_reliability(curves, output.parent / f"{stem}_reliability.png"),
    }
    pictures = {name: f"{stem}_{name}.png" for name, there in drawn.items() if there}
    text = render_card(results, spec, facts=facts, model_config=config, pictures=pictures)
    for case in facts.get("failures", ()):
        if Path(case.get("image") or "").name != (case.get("image") or ""):
            raise ValueError(f"{facts_path}: image={case['image']!r}: allowed is the name of a file in {source}")
        if case.get("image") and output.parent.resolve() != source.resolve():
            shutil.copyfile(source / case["image"], output.parent / case["image"])
    if entries := evaluation_entries(results["rows"], spec):
        text_of_entries = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        write_text(output.parent / ".eval_results" / f"{stem}.yaml", text_of_entries)
    write_text(output, text)
    return output


def _metadata(rows: Sequence[Row], spec: CardSpec, run: Run) -> ModelCardData:
    # Only the main metric of a task, the others are in the tables below; entries of one data set are written as one.
    lines: dict[tuple[str, str], Line] = {}
    for line in main_lines(headline_lines(rows, [run]))[0]:
        lines.setdefault((line.source, line.name), line)
    results = [
        EvalResult(
            task_type="visual-question-answering",
            task_name="Questions about 12-lead ECGs",
            dataset_type=line.source or "questions",
            dataset_name=f"{group_name(line.source) or 'questions'}, test records",
            dataset_split="test",
            metric_type=line.metric,
            metric_name=f"{metric_name(line.metric)}, {task_text(line.name)}",
            metric_value=round(line.rows[run]["value"], 6),
        )
        for line in lines.values()
    ]
    return ModelCardData(
        language="en",
        license=spec.license,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=list(TAGS),
        metrics=list(dict.fromkeys(result.metric_type for result in results)),
        model_name=spec.name,
        eval_results=results,
        base_model=spec.base_model,
        datasets=list(spec.datasets) or None,
    )
