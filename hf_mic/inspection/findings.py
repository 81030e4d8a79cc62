"""The findings of an inspection in words: sentences that follow from the measured numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mic.reports.score_tables import HEADLINE_METRICS

from .inspection import Inspection

__all__ = ["verdict"]

KEPT = 0.9
"""Share of neighbours at which the verdict calls a prefix sufficient."""
DIFFERENCE = 0.02
"""Share of neighbours below which the verdict calls two choices of coordinates equal."""
SCORE_KEPT = 0.95
"""Share of a full-width score at which the verdict calls a prefix sufficient."""
BUDGETS = (64, 256)
"""Bytes per vector for which the verdict names the best way to store."""


def verdict(inspection: Inspection) -> list[str]:
    """Sentences that follow from the measured numbers alone, the most important one first.

    Args:
        inspection: What was measured.
    """
    below = [row for row in inspection.neighbours if row["dim"] < inspection.model["width"]]
    lines = []
    if below:
        lines = [_neighbour_sentence(inspection, below), *_order_sentences(inspection, below)]
        lines += [_redundancy_sentence(inspection, below)]
    return [
        *_map_sentences(inspection),
        *lines,
        *_storage_sentences(inspection),
        *_score_sentences(inspection),
        *_cautions(inspection),
    ]


def _neighbour_sentence(inspection: Inspection, below: Sequence[Mapping[str, Any]]) -> str:
    width, k = inspection.model["width"], inspection.settings["k"]
    enough = next((row for row in below if row["first"] >= KEPT), None)
    others = ", ".join(f"{_percent(row['first'])} at {row['dim']}" for row in reversed(below) if row is not enough)
    of_what = (
        f"of the full-width neighbours ({k} nearest of {inspection.texts['measured']:,} {_what(inspection)} by cosine"
    )
    if enough is None:
        return f"No measured prefix below the full {width} dimensions keeps {_percent(KEPT)} {of_what}): {others}."
    rest = f"; {others})" if others else ")"
    return f"Keeps {_percent(enough['first'])} {of_what}{rest} at {enough['dim']} of {width} dimensions."


def _order_sentences(inspection: Inspection, below: Sequence[Mapping[str, Any]]) -> list[str]:
    row = _typical(inspection, below)
    first, random, axes = (_percent(row[key]) for key in ("first", "random", "principal_axes"))
    gain = row["first"] - row["random"]
    against = f"{first} against {random} of the neighbours at {row['dim']} dimensions"
    if abs(gain) < DIFFERENCE:
        order = f"The first coordinates keep no more than coordinates drawn at random: {against}."
    else:
        order = (
            f"The first coordinates keep {'more' if gain > 0 else 'fewer'} than coordinates drawn at random: {against}."
        )
    rotation = f"The principal axes of these {_what(inspection)} keep {axes} there"
    if row["principal_axes"] - row["first"] < DIFFERENCE:
        return [order, f"{rotation}, no more than the coordinates as they are."]
    lines = [order, f"{rotation}, so a rotation can make prefixes better."]
    if (file := inspection.model.get("file")) and not inspection.mapped:
        size = max(1, row["dim"] // 8)  # as many bits as that prefix has coordinates
        lines.append(
            f"Next, to find one and codes of {size} bytes: hf-mic adapt {file} --bytes {size} "
            f"--output_dir outputs/{Path(file).stem}_{size}"
        )
    if command := inspection.model.get("next_command"):
        lines.append(f"Next, to find one and append it to the model: {command}")
    return lines


def _map_sentences(inspection: Inspection) -> list[str]:
    """What a map changes, if one is compared."""
    mapped, width = inspection.mapped, inspection.model["width"]
    if not mapped:
        return []
    before = {row["dim"]: row["first"] for row in inspection.neighbours}
    rows = [row for row in mapped["neighbours"] if row["dim"] < width and row["dim"] in before]
    lines = []
    if rows:
        row = _typical(inspection, rows)
        lines.append(
            f"After {mapped['name']}, the first {row['dim']} coordinates keep {_percent(row['first'])} of the neighbours "
            f"instead of {_percent(before[row['dim']])}."
        )
    if code := mapped.get("code"):
        size = code["bytes_per_vector"]
        said = (
            f"In {size} bytes per vector, the code of {mapped['name']} keeps {_percent(code['kept'])} of the neighbours"
        )
        fitting = [row for row in inspection.storage if row["bytes_per_vector"] <= size]
        if fitting:
            best = max(fitting, key=lambda row: row["kept"])
            said += f"; of prefixes that fit, {best['dim']} dimensions as {best['precision']} keep most: {_percent(best['kept'])}"
        lines.append(f"{said}.")
    return [
        *lines,
        "Of vectors that the map was fitted on it keeps a little more than of others: measure on rows held out.",
    ]


def _redundancy_sentence(inspection: Inspection, below: Sequence[Mapping[str, Any]]) -> str:
    dim, width = _typical(inspection, below)["dim"], inspection.model["width"]
    rows = {row["dim"]: row for row in inspection.geometry}
    r2, filled = rows[dim]["residual_r2_adjusted"], rows[width]["participation_ratio"]
    variance = f"The variance fills {filled:.0f} of {width} dimensions (participation ratio)"
    if r2 is None:
        return f"{variance}."
    return (
        f"{variance}; the first {dim} predict {_percent(r2)} of the variance of the other {width - dim} (adjusted R²)."
    )


def _storage_sentences(inspection: Inspection) -> list[str]:
    lines = []
    for budget in BUDGETS:
        fitting = [row for row in inspection.storage if row["bytes_per_vector"] <= budget]
        if fitting:
            best = max(fitting, key=lambda row: (row["kept"], -row["bytes_per_vector"]))
            size = f"{best['dim']} dimensions as {best['precision']} ({best['bytes_per_vector']:,} bytes)"
            lines.append(f"Within {budget} bytes per vector, {size} keep most neighbours: {_percent(best['kept'])}.")
    return lines


def _score_sentences(inspection: Inspection) -> list[str]:
    precision, width, lines = inspection.settings["precisions"][0], inspection.model["width"], []
    rows = [row for row in inspection.scores if row["precision"] == precision and row["metric"] in HEADLINE_METRICS]
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in rows):
        values = {row["dim"]: row["value"] for row in rows if (row["task"], row["metric"]) == (task, metric)}
        full = values[width]
        enough = min((dim for dim, value in values.items() if value >= SCORE_KEPT * full), default=width)
        lines.append(
            f"{task}: {metric} x 100 is {100 * values[enough]:.1f} at {enough} dimensions and {100 * full:.1f} at {width}; no "
            f"shorter measured prefix has {_percent(SCORE_KEPT)} of the full-width score."
        )
    return lines


def _cautions(inspection: Inspection) -> list[str]:
    model, texts, lines = inspection.model, inspection.texts, []
    if texts["measured"] < 2 * model["width"]:
        lines.append(
            f"Read with care: {texts['measured']:,} {_what(inspection)} are few for {model['width']} dimensions; spectra, R² and "
            f"neighbours need several times as many {_what(inspection)} as dimensions."
        )
    if model.get("one_direction"):
        lines.append(
            f"The {_what(inspection)} hardly point different ways: {model['outside_of_one_direction']:.1g} of the squared length lies "
            f"outside of one direction, so rounding decides over neighbours. {model['one_direction']}"
        )
    if model["truncate_dim"]:
        lines.append(
            f"The model is set to truncate_dim = {model['truncate_dim']}: encode returns that many coordinates."
        )
    if not 0.999 < model["norm"]["lowest"] <= model["norm"]["highest"] < 1.001:
        norm = model["norm"]
        if model.get("similarity") == "dot":
            lines.append(
                "The model compares by dot product, in which its lengths count: neighbours and scores here are by cosine, and say "
                "nothing of searches by dot product; a map of these vectors would change them."
            )
        remedy = "divide them by it" if texts.get("from") == "vectors" else "encode with normalize_embeddings=True"
        lines.append(
            f"Embeddings are not of unit length ({norm['lowest']:.3g} to {norm['highest']:.3g}): compare them by cosine, or "
            f"{remedy}."
        )
    return lines


def _what(inspection: Inspection) -> str:
    return "vectors" if inspection.texts.get("from") == "vectors" else "texts"


def _typical(inspection: Inspection, below: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the longest prefix of at most a sixth of the width, where truncation begins to cost; else the shortest."""
    short = [row for row in below if 6 * row["dim"] <= inspection.model["width"]]
    return short[-1] if short else below[0]


def _percent(share: float) -> str:
    """At most one decimal: 90 %, 89.9 %."""
    return f"{round(100 * share, 1):g} %"
