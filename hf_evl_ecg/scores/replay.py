"""Every number of a results json, computed anew from the packed answers beside it: without a model, a picture or a recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.results import read_results

from .archive import list_archive, unpack_answers, unpack_questions
from .compare import comparison_rows
from .models import score_by_source
from .tables import GAIN

__all__ = ["ReplayError", "replay"]

TOLERANCE = 1e-9
_VALUES = ("value", "n", "ci_low", "ci_high", "chance", "above_chance")


class ReplayError(ValueError):
    """Numbers that do not follow from the answers they are said to come from."""


def replay(results: str | Path, archive: str | Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, int]]:
    """Score packed answers again and compare with the results.

    Args:
        results: A results json whose answers were packed.
        archive: Folder of the packed answers, from `hf_evl_ecg.scores.archive.pack_answers`.
        names: Methods, or single runs as METHOD_SEED; None: all of the archive.

    Yields:
        Name of each run, and how many of its rows are as they stand in the results.

    Raises:
        ReplayError: A row that differs, is missing, or is there without answers; or an unknown name.
    """
    content = read_results(results)
    options = {k: v for k, v in content["config"].get("evaluate", {}).items() if k in ("n_bootstrap", "min_per_class")}
    items, found = unpack_questions(archive), list_archive(archive)
    wanted = [name for name in found if names is None or name in names or name.rpartition("_")[0] in names]
    if unknown := sorted(set(names or ()) - {part for name in wanted for part in (name, name.rpartition("_")[0])}):
        raise ReplayError(f"names={unknown}: {archive} holds the answers of {', '.join(found)}")
    runs: dict[str, list[list[Answer]]] = {}
    for name in found:
        method, seed, answers = unpack_answers(archive, name)
        runs.setdefault(method, []).append(answers)
        if name not in wanted:
            continue
        again = score_by_source(list(zip(items, answers, strict=True)), method=method, seed=seed, **options)
        written = [r for r in content["rows"] if (r["method"], r["seed"]) == (method, seed) and not _of_methods(r)]
        _compare(name, again, written)
        yield name, len(again)
    if "compare" in content["config"]:
        own = {name if name in runs else name.rpartition("_")[0] for name in wanted}
        compared = {**content["config"]["compare"], "n_bootstrap": options.get("n_bootstrap", 1000)}
        needed = {method: runs[method] for method in runs if method in own or method in compared["over"]}
        again = [row for row in comparison_rows(items, needed, **compared) if row["method"] in own]
        _compare("differences of methods", again, [r for r in content["rows"] if r["method"] in own and _of_methods(r)])
        yield "differences of methods", len(again)


def _of_methods(row: Mapping[str, Any]) -> bool:
    """Whether a row is about all runs of a method."""
    return GAIN in row["metric"] or row["metric"] == "mean_macro_auc"


def _compare(name: str, again: Sequence[dict[str, Any]], written: Sequence[dict[str, Any]]) -> None:
    new, old = ({(row["method"], row["task"], row["metric"]): row for row in rows} for rows in (again, written))
    if missing := sorted(set(new) ^ set(old)):
        raise ReplayError(f"{name}: {missing[0]} is only in the {'answers' if missing[0] in new else 'results'}")
    for key, row in new.items():
        for value in _VALUES:
            one, other = row.get(value), old[key].get(value)
            same = one == other or (
                isinstance(one, float) and isinstance(other, float) and abs(one - other) <= TOLERANCE
            )
            if not same:
                raise ReplayError(
                    f"{name}: {key[1]}, {key[2]}: {value} is {one} from the answers, {other} in the results"
                )
