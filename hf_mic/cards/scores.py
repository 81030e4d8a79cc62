"""Rows of a results json as the cards of one model show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from hf_mic.reports.score_tables import HEADLINE_METRICS, over_seeds, select_rows
from hf_mic.results import Rows

__all__ = ["COMPARED_METRICS", "compare_methods", "model_index_results", "own_rows", "rows_by_dim"]

COMPARED_METRICS = ("spearman", "accuracy_standardised", "ndcg@10")
"""The one metric of each kind of task by which methods are compared; standardised, as PCA changes the scale of coordinates."""

TASK_TYPES = {"spearman": "semantic-similarity", "ndcg@10": "information-retrieval", "recall@10": "information-retrieval",
              "recall@100": "information-retrieval", "accuracy_standardised": "text-classification",
              "accuracy": "text-classification", "average_precision": "pair-classification"}  # fmt: skip


def own_rows(rows: Rows, method: str, seed: int | None) -> list[Mapping[str, Any]]:
    """Full-precision rows of one model.

    Raises:
        ValueError: If there are none, or several for one score.
    """
    own = [row for row in rows if row["method"] == method and _is_full(row) and seed in (None, row["seed"])]
    if not own:
        known = sorted({(row["method"], row["seed"]) for row in rows}, key=str)
        raise ValueError(f"method={method!r}, seed={seed}: the results hold no row of it; methods and seeds: {known}")
    if len({(row["task"], row["metric"], row["dim"]) for row in own}) < len(own):
        raise ValueError(f"method={method!r}: the results hold several runs of it; give the seed of this model")
    return own


def rows_by_dim(own: Rows) -> list[tuple[str, str, dict[int, Mapping[str, Any]]]]:
    """Task, metric and the rows of one model by dimension, for the metrics that cards show."""
    keys = dict.fromkeys((r["task"], r["metric"]) for r in own if r["metric"] in (*HEADLINE_METRICS, *COMPARED_METRICS))
    return [(*key, {row["dim"]: row for row in own if (row["task"], row["metric"]) == key}) for key in keys]


def compare_methods(rows: Rows, method: str, others: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Task, metric and, for each other method, the dimensions at which the mean over seeds is above its own.

    Example:
        >>> rows = [{"method": m, "seed": 0, "task": "stsb", "metric": "spearman", "dim": d, "value": v}
        ...         for m, d, v in (("mic", 8, 0.7), ("mic", 16, 0.8), ("pca", 8, 0.6), ("pca", 16, 0.9))]
        >>> compare_methods(rows, "mic", ["pca"])
        [('stsb', 'spearman', ['8'])]
    """
    full = [row for row in rows if row["metric"] in COMPARED_METRICS and _is_full(row)]
    found = []
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in full):
        scores = over_seeds(select_rows(full, task=task, metric=metric), lambda row: (row["method"], row["dim"]))
        texts = []
        for other in others:
            both = sorted(dim for name, dim in scores if name == method and (other, dim) in scores)
            above = [str(dim) for dim in both if scores[method, dim][0] > scores[other, dim][0]]
            texts.append("–" if not both else "all" if len(above) == len(both) else ", ".join(above) or "none")
        found.append((task, metric, texts))
    return found


def model_index_results(rows: Rows, method: str, seed: int | None) -> list[EvalResult]:
    """Entries of the model-index: full-precision scores of one model.

    Raises:
        ValueError: As :func:`own_rows`.
    """
    own = own_rows(rows, method, seed)
    order = {metric: i for i, metric in enumerate(HEADLINE_METRICS)}
    first = {row["task"]: i for i, row in reversed(list(enumerate(own)))}
    own.sort(key=lambda row: (first[row["task"]], order.get(row["metric"], len(order)), row["metric"], row["dim"]))
    return [
        EvalResult(
            task_type=TASK_TYPES.get(row["metric"], "sentence-similarity"),
            dataset_type=row["task"],
            dataset_name=row["task"],
            metric_type=row["metric"],
            metric_name=f"{row['metric']} at {row['dim']} dimensions",
            metric_value=round(row["value"], 6),
        )
        for row in own
    ]


def _is_full(row: Mapping[str, Any]) -> bool:
    return row.get("precision", "float32") == "float32"
