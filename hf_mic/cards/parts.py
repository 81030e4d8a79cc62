"""Parts that the cards of this package share: how to truncate, what a loss minimises, scores for the metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from hf_mic.evaluation.score_tables import HEADLINE_METRICS
from hf_mic.results import Rows

__all__ = [
    "MODEL_PLACE",
    "describe_mic",
    "listed",
    "model_index_results",
    "own_rows",
    "truncation_section",
]

MODEL_PLACE = "path/to/this/folder"
"""What stands for the model in code, unless it has a name on the Hub."""

TASK_TYPES = {"spearman": "semantic-similarity", "ndcg@10": "information-retrieval", "recall@10": "information-retrieval",
              "recall@100": "information-retrieval", "accuracy_standardised": "text-classification",
              "accuracy": "text-classification", "average_precision": "pair-classification"}  # fmt: skip


def truncation_section(dim: int, model_id: str | None, title: str = "Truncation") -> str:
    """Section that shows how to get embeddings of ``dim`` coordinates."""
    return f"""## {title}

Keep the first coordinates of an embedding and drop the rest; only sentence-transformers is needed:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({model_id or MODEL_PLACE!r}, truncate_dim={dim})
embeddings = model.encode(["A first sentence.", "A second one."], normalize_embeddings=True)
print(embeddings.shape)
# (2, {dim})
```

A truncated embedding is no longer of unit length: `normalize_embeddings=True` renews it, which an index by dot product needs.
Vectors that are already stored can be cut and renormalised in the same way, without the model."""


def describe_mic(config: Mapping[str, Any]) -> str:
    """Say in markdown what MIC minimises.

    Args:
        config: Settings as from :meth:`hf_mic.MICLoss.get_config_dict`. Where ``reg_dims`` are a list although the scope is
            tokens, the layers are not named.
    """
    dims, weights = config["matryoshka_dims"], config["matryoshka_weights"]
    equal = "each with weight 1" if set(weights) == {1} else f"with weights {listed(weights)}"
    drawn = "" if config["n_dims_per_step"] < 0 else f", {config['n_dims_per_step']} of them drawn per step"
    lines = [
        "Trained with MIC ([arXiv 2605.29987](https://arxiv.org/abs/2605.29987)): a Matryoshka loss plus two geometric "
        "regularisers of the prefixes of the embedding.",
        "",
        f"- Base loss: `{config['loss']}` on the first {listed(dims)} coordinates, {equal}{drawn}.",
    ]
    if config["gamma"]:
        weight = config["var_weight"]
        floor = f"and a variance floor with weight {weight:g}" if weight else "without a variance floor"
        lines += [
            f"- Regularisers: weight γ = {config['gamma']:g}, on the {_regularised(config)}.",
            f"- Soft collapse term (weight {config['scr_weight']:g}): correlations between prefix and remaining coordinates "
            f"beyond τ = {config['tau']}, {floor}.",
            f"- Spectral isotropy term (weight {config['sir_weight']:g}): {config['cv_mode']} coefficient of variation of the "
            f"variances, and uniformity with t = {config['t']:g}.",
        ]
    else:
        lines.append("- Regularisers: off (γ = 0).")
    if config["distill"]:
        lines.append(
            f"- Self-distillation of the similarities within the batch from the full width to the prefixes: weight "
            f"{config['distill_weight']:g}, temperature {config['distill_temperature']:g}."
        )
    if config["gather_across_devices"]:
        lines.append("- Batch statistics gathered over all processes.")
    return "\n".join(lines)


def own_rows(rows: Rows, method: str, seed: int | None) -> list[Mapping[str, Any]]:
    """Full-precision rows of one model.

    Raises:
        ValueError: If there are none, or several for one score.
    """
    own = [
        row
        for row in rows
        if row["method"] == method
        and (seed is None or row["seed"] == seed)
        and row.get("precision", "float32") == "float32"
    ]
    keys = [(row["task"], row["metric"], row["dim"]) for row in own]
    if not own:
        raise ValueError(f"results hold no row of method {method!r}" + ("." if seed is None else f" and seed {seed}."))
    if len(set(keys)) < len(keys):
        raise ValueError(f"results hold several runs of method {method!r}: give the seed of this model.")
    return own


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


def listed(values: Sequence[Any]) -> str:
    """Values as they stand in a sentence.

    Example:
        >>> listed([8, 16, 0.5])
        '8, 16 and 0.5'
    """
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _regularised(config: Mapping[str, Any]) -> str:
    dims = config["reg_dims"]
    if config["scope"] == "pooled":
        return f"sentence embeddings, prefixes {listed(dims)}"
    if not isinstance(dims, Mapping):
        return f"token states of the middle-to-late layers, prefixes {listed(dims)}"
    groups: dict[tuple[int, ...], list[str]] = {}
    for layer, own in dims.items():
        groups.setdefault(tuple(own), []).append(layer)
    parts = [
        f"layer{'s' if len(layers) > 1 else ''} {listed(layers)}, prefixes {listed(own)}"
        for own, layers in groups.items()
    ]
    return "token states of " + "; ".join(parts)
