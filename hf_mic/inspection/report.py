"""An inspection as files: json, markdown, pictures and, if wanted, one HTML page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mic.files import replaced_files
from hf_mic.geometry.pictures import plot_spectra
from hf_mic.geometry.report import geometry_table
from hf_mic.reports.inline import inline
from hf_mic.reports.score_pictures import plot_scores
from hf_mic.reports.score_tables import markdown_report
from hf_mic.results import summarize_machine

from .findings import verdict
from .inspection import Inspection
from .page import markdown_page
from .pictures import plot_geometry, plot_neighbours

__all__ = ["inspection_json", "inspection_markdown", "write_inspection"]

NEIGHBOURS, SPECTRA, GEOMETRY, SCORES = "neighbours.png", "spectra.png", "geometry.png", "scores.png"

EXPLANATION = """## How to read

- Neighbours kept: of each text's or vector's nearest neighbours by cosine at full width, the share that is still among as many nearest when only some coordinates are compared. More of them make it harder, so compare on the same ones.
- Coordinates drawn at random are what any coordinates would give; the first coordinates of a model trained for truncation do better. Principal axes are fitted on what is measured itself, so they are an optimistic estimate of what a rotation can add.
- residual_r2: share of the variance of the remaining coordinates that a linear map of the prefix explains. cross_correlation: mean squared correlation between prefix and remaining coordinates. Both say how far the prefix and the rest repeat each other.
- eigen_cv: spread of the covariance eigenvalues over their mean, 0 for an even spread. participation_ratio, effective_rank: number of directions that carry the variance. uniformity: lower is a more even spread of directions.
- Dashed lines in the pictures of the geometry are about what as many independent isotropic Gaussian vectors would give."""


def write_inspection(inspection: Inspection, output_dir: str | os.PathLike[str], *, html: bool = False) -> list[Path]:
    """Write ``inspection.json``, ``inspection.md``, the pictures and, if wanted, ``inspection.html`` into one folder.

    Everything is made in a temporary folder first and then moved, so a failure leaves an older report as it was. Files of an
    older report that this one does not have are removed.

    Args:
        inspection: What was measured.
        output_dir: The folder, made if missing; other files in it are left alone.
        html: Also write one page with all pictures inside.

    Returns:
        The files, ``inspection.json`` last.
    """
    target = Path(output_dir)
    with replaced_files(target) as folder:
        plot_neighbours(inspection, folder / NEIGHBOURS)
        plot_spectra(dict(inspection.spectra), folder / SPECTRA)
        plot_geometry(inspection, folder / GEOMETRY)
        if inspection.scores:
            precision = inspection.settings["precisions"][0]
            plot_scores(inspection.scores, folder / SCORES, precision=precision)
        text = inspection_markdown(inspection)
        (folder / "inspection.md").write_text(text, encoding="utf-8")
        if html:
            pictures = {path.name: path.read_bytes() for path in folder.glob("*.png")}
            page = markdown_page(text, title=f"Inspection of {inspection.model['name']}", pictures=pictures)
            (folder / "inspection.html").write_text(page, encoding="utf-8")
        content = json.dumps(inspection_json(inspection), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "inspection.json").write_text(content + "\n", encoding="utf-8")
        order = sorted(folder.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
        written = [target / path.name for path in order]
    for name in {SCORES, "inspection.html"} - {path.name for path in written}:
        (target / name).unlink(missing_ok=True)
    return written


def inspection_json(inspection: Inspection) -> dict[str, Any]:
    """The inspection as plain data: its attributes, the verdict, and what it was computed with."""
    return {
        "verdict": verdict(inspection),
        "model": dict(inspection.model),
        "texts": dict(inspection.texts),
        "settings": dict(inspection.settings),
        "neighbours": [dict(row) for row in inspection.neighbours],
        "storage": [dict(row) for row in inspection.storage],
        "geometry": [dict(row) for row in inspection.geometry],
        "spectra": {str(dim): values.tolist() for dim, values in inspection.spectra.items()},
        "scores": [dict(row) for row in inspection.scores],
        **({"mapped": _plain(inspection.mapped)} if inspection.mapped else {}),
        "machine": summarize_machine(),
    }


def _plain(mapped: Mapping[str, Any]) -> dict[str, Any]:
    return {**mapped, "spectra": {str(dim): values.tolist() for dim, values in mapped["spectra"].items()}}


def inspection_markdown(inspection: Inspection) -> str:
    """The report in markdown; pictures are named as :func:`write_inspection` writes them."""
    parts = [
        f"# Inspection of {inline(inspection.model['name'])}",
        "\n".join(f"- {line}" for line in verdict(inspection)),
    ]
    parts += [
        "## Vectors" if inspection.texts.get("from") == "vectors" else "## Model and texts",
        _facts_table(inspection),
    ]
    parts += ["## Neighbours kept", f"![Neighbours kept]({NEIGHBOURS})", _neighbour_table(inspection.neighbours)]
    parts += ["## Bytes per vector", _storage_table(inspection.storage, inspection.settings["precisions"])]
    if inspection.mapped:
        parts += _map_parts(inspection)
    if inspection.scores:
        parts += ["## Scores", f"![Scores by dimension]({SCORES})", markdown_report({"rows": inspection.scores})]
    parts += ["## Geometry", f"![Spectra]({SPECTRA})", f"![Geometry by dimension]({GEOMETRY})"]
    return "\n\n".join([*parts, geometry_table(inspection.geometry), EXPLANATION]) + "\n"


def _facts_table(inspection: Inspection) -> str:
    model, texts, settings = inspection.model, inspection.texts, inspection.settings
    if texts.get("from") == "vectors":
        measured = f"{texts['measured']:,} distinct ones of {texts['given']:,}"
        return _table({"vectors": measured, "width": model["width"], "type": model["dtype"]})
    prompt = settings["prompt"] or settings["prompt_name"] or model["default_prompt_name"]
    facts = {
        "modules": " → ".join(model["modules"]),
        "parameters": f"{model['parameters']:,} ({model['dtype']})",
        "width": model["width"],
        "truncate_dim": model["truncate_dim"],
        "longest input (tokens)": model["max_seq_length"],
        "similarity": model["similarity"],
        "stored prompts": ", ".join(f"{key}: {text!r}" for key, text in model["prompts"].items()),
        "prompt chosen": None if prompt is None else repr(prompt),
        "texts": f"{texts['measured']:,} of {texts['given']:,} distinct ones"
        f"{' of the tasks' if texts['from'] == 'tasks' else ''}, {texts['mean_characters']:g} characters on average",
    }
    return _table(facts)


def _table(facts: Mapping[str, Any]) -> str:
    shown = [(name, inline(str(value))) for name, value in facts.items() if value]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in shown)])


def _map_parts(inspection: Inspection) -> list[str]:
    """The same tables after the map; neighbours are those of before."""
    mapped = inspection.mapped
    parts = [
        f"## After {inline(mapped['name'])}",
        "Of the neighbours at full width before the map:",
        _neighbour_table(mapped["neighbours"]),
    ]
    if code := mapped.get("code"):
        parts.append(
            f"The code, {code['dim']} coordinates of {code['bits']} bits in {code['bytes_per_vector']} bytes, with float queries, keeps "
            f"{100 * code['kept']:.1f} %."
        )
    return [
        *parts,
        _storage_table(mapped["storage"], inspection.settings["precisions"]),
        geometry_table(mapped["geometry"]),
    ]


def _neighbour_table(measured: Sequence[Mapping[str, Any]]) -> str:
    header = "| dim | first coordinates | random coordinates | principal axes |"
    rows = [
        f"| {row['dim']} | {100 * row['first']:.1f} | {100 * row['random']:.1f} | {100 * row['principal_axes']:.1f} |"
        for row in measured
    ]
    return "\n".join([header, "| --: | --: | --: | --: |", *rows])


def _storage_table(storage: Sequence[Mapping[str, Any]], precisions: Sequence[str]) -> str:
    """One line per dimension, bytes and neighbours kept for each precision."""
    table: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in storage:
        table.setdefault(row["dim"], {})[row["precision"]] = row
    header = ["dim", *(f"{precision}: bytes | kept (%)" for precision in precisions)]
    lines = [f"| {' | '.join(header)} |", f"|{' --: |' * (1 + 2 * len(precisions))}"]
    for dim, cells in table.items():
        shown = (f"{cells[p]['bytes_per_vector']:,} | {100 * cells[p]['kept']:.1f}" for p in precisions)
        lines.append(f"| {' | '.join([str(dim), *shown])} |")
    return "\n".join(lines)
