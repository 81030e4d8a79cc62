"""Sections of a study's model card that its settings make; one without data is an empty text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hf_mic.losses import MIC_BIBTEX
from hf_mic.results import Rows
from hf_mic.training_args import MICTrainingArguments

from .parts import describe_mic

__all__ = [
    "citation_section",
    "cost_section",
    "data_section",
    "limits_section",
    "loss_settings",
    "origin_section",
    "training_section",
]

_KINDS = {
    "single": "each sentence with itself under another dropout (SimCSE)",
    "pairs": "pairs of sentences",
    "triplets": "triplets of sentences",
}


def data_section(
    config: Mapping[str, Any], plan: Mapping[str, Any] | None, known: Mapping[str, Mapping[str, str]]
) -> str:
    """What the model was trained on, under which licence.

    Args:
        config: Settings of the study.
        plan: Those of the method; None: nothing is known.
        known: File in the settings → name, licence, cite and url, as far as they are known.
    """
    if plan is None:
        return ""
    lines = ["## Training data", "", "| data | licence | cite |", "| --- | --- | --- |"]
    for source in _sources(config, plan):
        part = known.get(source["file"], {})
        name = part.get("name", source["file"])
        title = f"[{name}]({part['url']})" if "url" in part else name
        lines.append(f"| {title} | {part.get('licence', '–')} | {part.get('cite', '–')} |")
    return "\n".join(lines)


def training_section(config: Mapping[str, Any], plan: Mapping[str, Any] | None, width: int) -> str:
    """How the model was trained, with all settings of its loss.

    Args:
        config: Settings of the study.
        plan: Those of the method; None: nothing is known.
        width: Full width of the embeddings.
    """
    if plan is None:
        return ""
    settings = {**config["training"], **plan.get("training", {})}
    kinds = {source["kind"] for source in _sources(config, plan)}
    pairs = " and on ".join(text for kind, text in _KINDS.items() if kind in kinds)
    words = [
        f"{settings[key]:,} steps" if key == "max_steps" else f"{text} {settings[key]:g}"
        for key, text in (
            ("max_steps", ""), ("per_device_train_batch_size", "batch size"), ("learning_rate", "learning rate"),
            ("weight_decay", "weight decay"),
        ) if key in settings
    ]  # fmt: skip
    rate = f", at learning rate {config['head_learning_rate']:g}" if "head_learning_rate" in config else ""
    head = {
        "orthogonal": f" An orthogonal linear map on top, which starts as the identity, is trained with the encoder{rate}."
    }
    lines = [
        "## Training",
        "",
        f"Contrastive, on {pairs}: {', '.join(words)}.{head.get(config.get('head', ''), '')}",
        "",
    ]
    if plan["method"] == "mic":
        options = loss_settings(settings, width)
        terms = "L = Σ over d of InfoNCE(first d coordinates)"
        if options["gamma"]:
            terms += " + γ · mean over d of (w_scr · SCR(d) + w_sir · SIR(d))"
        if options["distill"]:
            terms += " + w_distill · mean over d of KL(full width ‖ first d coordinates)"
        lines += [describe_mic(options), "", "In one line:", "", "```text", terms, "```"]
    else:
        lines.append(f"Loss: `{plan['method']}`.")
    return "\n".join(lines)


def loss_settings(settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """What :meth:`hf_mic.MICLoss.get_config_dict` would say of these training arguments, and the defaults of the others.

    Args:
        settings: Training arguments of one method of a study.
        width: Full width of the embeddings.
    """
    defaults = {f.name: f.default for f in fields(MICTrainingArguments)}
    names = [
        *("scope", "gamma", "tau", "var_weight", "scr_weight", "sir_weight", "t", "cv_mode", "n_dims_per_step"),
        *("distill", "distill_weight", "distill_temperature", "gather_across_devices"),
    ]
    found = {name: settings.get(name, defaults[name]) for name in names}
    dims = sorted(settings["matryoshka_dims"], reverse=True)
    regularised = settings.get("reg_dims") or [dim for dim in dims if dim < width]
    layers = settings.get("layers")
    return {
        "loss": "MultipleNegativesRankingLoss",
        "matryoshka_dims": dims,
        "matryoshka_weights": settings.get("matryoshka_weights") or [1] * len(dims),
        "reg_dims": {str(layer): regularised for layer in layers} if layers else regularised,
        **found,
    }


def cost_section(results: Mapping[str, Any], method: str, seed: int | None) -> str:
    """Measured seconds of training."""
    run = results["config"].get("runs", {}).get(f"{method}-{seed}", {})
    if "train_seconds" not in run:
        return ""
    machine = results["machine"]
    device = machine["gpu"] or f"{machine['cpu']}, no GPU"
    return f"## Cost\n\nTraining took {run['train_seconds']:,.0f} seconds of wall-clock time ({device}); energy was not measured."


def limits_section(config: Mapping[str, Any], rows: Rows, method: str, further: Sequence[str]) -> str:
    """What the numbers do not show."""
    lengths = config.get("max_seq_length", {})
    seeds = len({row["seed"] for row in rows if row["method"] == method})
    limits = [
        *further,
        "Only the leading coordinates carry the meaning of a short embedding; any other selection of coordinates does not.",
        "Whatever the starting encoder and the training text lack or distort (languages, fields, social bias, length of text) this "
        "model lacks or distorts too.",
    ]
    if {"train", "score"} <= set(lengths):
        limits.append(
            f"Trained on the first {lengths['train']} tokens of a text, scored with up to {lengths['score']}."
        )
    if seeds == 1:
        limits.append("Trained with one seed: differences from other methods may be chance.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def origin_section(results: Mapping[str, Any]) -> str:
    """Which results the numbers are from."""
    versions = ", ".join(f"{name} {results['machine'][name]}" for name in ("sentence-transformers", "torch"))
    commit = f", commit `{results['commit']}`" if results["commit"] else ""
    return f"## Provenance\n\nAll numbers are from the results of the study `{results['study']}`{commit} ({versions})."


def citation_section(plan: Mapping[str, Any] | None) -> str:
    """Citation of MIC, for models trained with it."""
    if plan is None or plan["method"] != "mic":
        return ""
    return f"## Citation\n\n```bibtex\n{MIC_BIBTEX}\n```"


def _sources(config: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(config["data"][plan.get("data", "unsupervised")])
