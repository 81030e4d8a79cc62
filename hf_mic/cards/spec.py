"""What the card of a study's model is about, beside what was measured: a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_mic.files import read_mapping

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
        ValueError: If it is not YAML, a field is unknown or of another type, or name, method or results are missing.
    """
    path = Path(path)
    required = {"name", "method", "results"}
    values = read_mapping(path, {f.name for f in fields(CardSpec)} | required, required)
    texts = {"results", *(f.name for f in fields(CardSpec) if f.type in ("str", "str | None"))}
    for name, value in values.items():
        optional = value is None and name not in required
        if name in texts and not (isinstance(value, str) or optional):
            raise ValueError(f"{path}: {name}={value!r:.80}: must be a text.")
    results = path.parent / values.pop("results")
    return CardSpec(**values), results
