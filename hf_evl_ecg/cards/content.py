"""What the template of a card is filled with: the models that are compared, their scores, the study's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from hf_evl_ecg.config import EVLECGConfig
from hf_evl_ecg.drawing.config import RenderConfig, read_stored_config
from hf_evl_ecg.rivals.presets import PRESETS
from hf_evl_ecg.scores.lines import Row, Run, headline_lines, main_lines, side_by_side
from hf_evl_ecg.scores.names import find_source, method_name, split_task
from hf_evl_ecg.scores.tables import MIN_ITEMS, few_records

from .scores import above_chance, class_lines, intervals_apart, lopsided, with_unparsed
from .spec import CardSpec

__all__ = ["compared_runs", "score_content", "study_content"]


def compared_runs(rows: Sequence[Row], spec: CardSpec) -> dict[Run, str]:
    """(method, seed) → name of this model, of the teacher and of the baselines: with the same seed where they have it."""
    seeds: dict[str, list[int | None]] = {}
    for row in rows:
        if row["seed"] not in seeds.setdefault(row["method"], []):
            seeds[row["method"]].append(row["seed"])
    own = seeds.get(spec.method, [])
    if spec.seed not in own and not (spec.seed is None and len(own) == 1):
        raise ValueError(
            f"method={spec.method!r}, seed={spec.seed}: the results hold seeds {own} of it; methods: {list(seeds)}"
        )
    run = spec.method, spec.seed if spec.seed in own else own[0]
    others = [m for m in seeds if m != spec.teacher] if spec.baselines is None else list(spec.baselines)
    wanted = [*([spec.teacher] if spec.teacher in seeds else []), *others]
    if absent := [method for method in wanted if method not in seeds]:
        raise ValueError(f"baselines={absent}: the results hold no row of them; methods: {list(seeds)}")
    seeds_of = {m: run[1] if run[1] in seeds[m] else seeds[m][0] for m in wanted if m and m != spec.method}
    return {run: "this model", **{(m, seed): method_name(m) for m, seed in seeds_of.items()}}


def score_content(rows: Sequence[Row], compared: Mapping[Run, str]) -> dict[str, Any]:
    """What the template says of scores."""
    runs = list(compared)
    lines = headline_lines(rows, runs)
    main, single = main_lines(lines)
    others = [(compared[run], run) for run in runs[1:] if any(run in line.rows for line in main)]
    return {
        "rows": rows,
        "runs": runs,
        "names": list(compared.values()),
        "main": with_unparsed(main, rows, runs),
        "single": with_unparsed(single, rows, runs),
        "small_left_out": len(main) < len(lines) and not single,
        "min_items": MIN_ITEMS,
        "seeds": {method: len({row["seed"] for row in rows if row["method"] == method}) for method, _ in runs},
        "chance": above_chance(main, runs[0]),
        "others": [(name, *intervals_apart(main, runs[0], run)) for name, run in others],
        "classes": class_lines(rows, runs[:2]),
        "lopsided": lopsided(main, runs[0]),
        "few_records": few_records([line.rows[runs[0]] for line in main]),
        "calibration": main_lines(
            [line for line in side_by_side(rows, runs[:1]) if line.metric == "calibration_error"]
        )[0],
        "scored_sources": {split_task(row["task"])[0] for row in rows},
    }


def study_content(config: Mapping[str, Any], spec: CardSpec) -> dict[str, Any]:
    """What the template says of the study's settings and data."""
    report, images = config.get("questions_report") or {}, config.get("images", {})
    counts = report.get("counts", ())
    sources = [find_source(str(count["source"]).partition("/")[0], spec.sources) for count in counts]
    page, default = read_stored_config(images).to_dict(), RenderConfig().to_dict()
    return {
        "settings": _resolved_settings(config, spec.method),
        "tasks": config.get("questions", {}).get("tasks") or (),
        "images": images,
        "page": page,
        "page_arguments": ", ".join(f"{key}={value!r}" for key, value in page.items() if value != default[key]),
        "max_new_tokens": config.get("evaluate", {}).get("max_new_tokens", 64),
        "counts": counts,
        "source_notes": report.get("sources", ()),
        "find_source": lambda name: find_source(name, spec.sources),
        "cited": list({source.cite: source for source in sources if source.cite}.values()),
    }


def _resolved_settings(config: Mapping[str, Any], method: str) -> dict[str, Any] | None:
    """All settings of a method: the trainer's defaults, its preset, those of all students, its own; None if not described."""
    if method not in (config.get("methods") or {}):
        return None
    defaults = {f.name: f.default for f in fields(EVLECGConfig) if f.default is not MISSING}
    given = {**config.get("student", {}), **(config["methods"][method] or {})}
    return {**defaults, **PRESETS.get(given.get("method", ""), {}), **given}
