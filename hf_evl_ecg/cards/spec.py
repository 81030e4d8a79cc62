"""What a model card is about, beside what was measured: a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from hf_evl_ecg.files import read_mapping
from hf_evl_ecg.scores.names import DataSource

__all__ = ["CardSpec", "MissingResultsError", "read_spec"]


class MissingResultsError(FileNotFoundError):
    """A card was asked for whose results are not there."""


@dataclass(frozen=True)
class CardSpec:
    """What a card is about: everything that cannot be measured.

    Attributes:
        name: Title of the card.
        method: Method in the results that is this model.
        seed: Its seed, if the results hold several.
        summary: What the model is, one paragraph; empty: only what the results tell.
        license: Licence of the weights, as the Hub names it.
        model_id: Name on the Hub, for the code.
        base_model: Model on the Hub that the student started from.
        teacher_model: Name of the teacher, for the text.
        teacher: Method in the results that is the teacher; None without one.
        baselines: Methods to compare with; None: all others.
        datasets: Data sets on the Hub that it was trained on.
        sources: Further sources of records: name → title, licence, cite, url.
        benchmarks: Scores for ``.eval_results``: task, metric, dataset_id, task_id, and notes if there are any.
        limits: Further limits, a sentence each.
        command: What makes the results, for the error that says they are missing.
    """

    name: str
    method: str
    seed: int | None = None
    summary: str = ""
    license: str = "apache-2.0"
    model_id: str | None = None
    base_model: str | None = None
    teacher_model: str = "a larger teacher"
    teacher: str | None = "teacher"
    baselines: Sequence[str] | None = None
    datasets: Sequence[str] = ()
    sources: Mapping[str, DataSource] = field(default_factory=dict)
    benchmarks: Sequence[Mapping[str, str]] = ()
    limits: Sequence[str] = ()
    command: str = ""


def read_spec(path: str | Path) -> tuple[CardSpec, Path, Path | None]:
    """Read a YAML file with the fields of `CardSpec`, ``results`` and, if there are any, ``facts``.

    Args:
        path: The file; ``results`` (a results json) and ``facts`` (of studies/evl_ecg/card_data.py) are relative to it.

    Returns:
        The description, the results file, and the facts file.

    Raises:
        ValueError: It is no YAML with fields, one is unknown or of another type, or name, method or results are missing.
    """
    path = Path(path)
    values = read_mapping(path)
    known = {f.name for f in fields(CardSpec)}
    unknown, missing = set(values) - known - {"results", "facts"}, {"name", "method", "results"} - set(values)
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {sorted(map(str, unknown))}, missing fields {sorted(missing)}; known are {sorted(known)}, results and facts"
        )
    texts = {"results", "facts", *(f.name for f in fields(CardSpec) if f.type in ("str", "str | None"))}
    for name in sorted(texts & values.keys()):
        if not (isinstance(values[name], str) or (values[name] is None and name not in ("name", "method", "results"))):
            raise ValueError(f"{path}: {name}={values[name]!r:.80}: must be a text")
    results = path.parent / values.pop("results")
    facts = values.pop("facts", None)
    try:
        values["sources"] = {name: DataSource(**entry) for name, entry in (values.get("sources") or {}).items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: sources need title, and may have licence, cite and url: {error}") from error
    return CardSpec(**values), results, path.parent / facts if facts else None
