"""Sections of a model card, each a function of what was measured; a section without data is an empty text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hf_evl_ecg.config import EVLECGConfig

from .sources import METHOD_BIBTEX, DataSource, find_source
from .tables import plain, source_table, split_task

__all__ = [
    "architecture_section",
    "citation_section",
    "cost_section",
    "data_section",
    "limits_section",
    "method_section",
    "run_section",
    "use_section",
]

Row = Mapping[str, Any]
_TERMS = {
    "lambda_mhca": (
        "MHCA",
        "the teacher's last hidden states are carried to the student's {tokens} by multi-head cross-attention (student states are "
        "queries, teacher states keys and values); the term is the mean squared distance between student and carried states",
    ),
    "lambda_ot": (
        "OT",
        "optimal transport between the visual tokens of both models, projected into the teacher's space and of unit length: the "
        "squared distances of all pairs, weighted by the entropic transport plan (Sinkhorn) between two uniform masses",
    ),
    "lambda_relation": (
        "REL",
        "half the sum of two mean squared differences, of pairwise distances over their mean and of pairwise cosines, between the "
        "student's {tokens} and the carried teacher's",
    ),
    "lambda_uld": (
        "ULD",
        "universal logit distillation on answer tokens: sum of absolute differences between the sorted probabilities of both "
        "vocabularies",
    ),
}
_PAGE = {"image_width": "width_px", "image_height": "height_px", "paper": "palette"}
_STAGES = {
    "teacher": "teacher",
    "cache": "the teacher's states and logits for all training questions",
    "student_vision": "vision tower of the student, before distillation",
}


def use_section(config: Mapping[str, Any]) -> str:
    """What the model is for, and what it must not be used for."""
    questions, images = config.get("questions", {}), config.get("images", {})
    asked = [plain(name) for name in questions.get("tasks") or ()]
    lines = [
        "For research: on distillation, on small vision-language models, on how far a picture of an ECG can be read by one; for "
        "teaching, and as a baseline to beat.",
        "",
        "**Not a medical device.** Not for diagnosis, triage, monitoring or treatment, nor for any other decision about a person. "
        "No regulator has assessed it. Its answers were scored automatically against the labels of public databases; no clinician "
        "reviewed them.",
        "",
        "- It always answers, and can be sure and wrong. It cannot tell that a page is no ECG or unreadable.",
    ]
    if asked:
        lines.append(f"- It was asked about {_listed(asked)}, in English; anything else was not measured.")
    if {"image_width", "image_height"} <= set(images):
        clean = "clean drawings" if not images.get("augment") else "drawings, some with artefacts"
        lines.append(
            f"- It saw {clean} of {images['image_width']} × {images['image_height']} pixels; photographs and scans of paper, other "
            "layouts and other sizes were not measured."
        )
    lines.append(
        "- Scores do not say how it does on other devices, hospitals or populations, or on children; measure there first."
    )
    return "## Intended use and its limits\n\n" + "\n".join(lines)


def data_section(report: Mapping[str, Any] | None, extra: Mapping[str, DataSource]) -> str:
    """Sources, licences, and what must be known about each."""
    table = source_table((report or {}).get("counts", ()), extra)
    if not table:
        return ""
    assert report is not None
    lines = [
        "## Data",
        "",
        "Records / questions by split; patients are kept together where they are known.",
        "",
        table,
        "",
    ]
    for source in report.get("sources", ()):
        notes = [
            *source["notes"],
            *(
                [f"{len(source['skipped'])} {'record' if len(source['skipped']) == 1 else 'records'} skipped"]
                if source["skipped"]
                else []
            ),
        ]
        if notes:
            lines.append(f"- {find_source(source['source'], extra).title}: {'; '.join(notes)}.")
    return "\n".join(lines).rstrip()


def method_section(config: Mapping[str, Any], method: str, teacher: str) -> str:
    """How the student was trained: the equation, its weights, and each term in words."""
    if method not in (config.get("methods") or {}):
        return ""
    settings = resolved_settings(config, method)
    steps = ", ".join(_training_words(settings))
    if settings.get("sft_only"):
        text = (
            "Fine-tuned on the questions and answers alone, by cross-entropy of the answer's tokens, without a teacher."
        )
        return f"## Training\n\n{text} {steps[:1].upper()}{steps[1:]}."
    active = [name for name in _TERMS if settings[name]]
    tokens = "tokens" if settings["hidden_tokens"] == "all" else f"{settings['hidden_tokens']} tokens"
    total = " + ".join(f"{settings[name]:g} {_TERMS[name][0]}" for name in active)
    lines = [
        f"Distilled from {teacher}, which stays as it is "
        "(EVL-ECG, [arXiv 2605.29977](https://arxiv.org/abs/2605.29977)). The student minimises",
        "",
        "```text",
        f"L = (1 − α) CE + α ({total}),   α = {settings['alpha']:g}",
        "```",
        "",
        "- CE: cross-entropy of the right answer's tokens.",
        *(
            f"- {_TERMS[name][0]}: {_TERMS[name][1].format(tokens=tokens)}{_details(name, settings)}."
            for name in active
        ),
        "",
        f"{steps[:1].upper()}{steps[1:]}. What carries states between the models is trained beside the student and is no part of it.",
    ]
    return "## Training\n\n" + "\n".join(lines)


def resolved_settings(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """All settings of a method: the trainer's defaults, those of all students, its own."""
    fields = dataclasses.fields(EVLECGConfig)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {**defaults, **config.get("student", {}), **(config["methods"][method] or {})}


def architecture_section(models: Mapping[str, Row], names: Mapping[str, str]) -> str:
    """Models side by side: architecture, size, tokens per page."""
    shown = {key: models[key] for key in names if key in models}
    if not shown:
        return ""
    parts: list[tuple[str, Any]] = [
        ("architecture", lambda m: f"`{m['architecture']}`"),
        ("parameters", lambda m: f"{m['parameters']:,}" if "parameters" in m else None),
        ("vision tower", lambda m: _tower(m["vision"]) + f", patches of {_patch(m['vision']['patch_px'])} px"),
        ("language model", lambda m: _tower(m["text"]) + f", {m['text']['vocabulary']:,} tokens in the vocabulary"),
        ("visual tokens per page", lambda m: m.get("visual_tokens")),
        ("tokens per page with a short question", lambda m: m.get("prompt_tokens")),
    ]
    lines = [f"| | {' | '.join(names[key] for key in shown)} |", f"| --- |{' --- |' * len(shown)}"]
    for title, read in parts:
        cells = [read(model) for model in shown.values()]
        if any(cell is not None for cell in cells):
            lines.append(f"| {title} | {' | '.join('–' if cell is None else str(cell) for cell in cells)} |")
    pages = {tuple(model["page_px"]) for model in shown.values() if "page_px" in model}
    note = [f"Pages of {pages.copy().pop()[0]} × {pages.copy().pop()[1]} pixels."] if len(pages) == 1 else []
    return "\n".join(["## Architecture", "", *lines, *(["", *note] if note else [])])


def cost_section(stages: Sequence[Row], machine: Mapping[str, Any], method: str, seed: int | None) -> str:
    """Measured seconds of the stages that made this model."""
    own = f"{method}_{seed}"
    wanted = [stage for stage in stages if stage["stage"] in (*_STAGES, own)]
    if not wanted:
        return ""
    lines = ["## Cost", "", "| stage | seconds |", "| --- | --: |"]
    for stage in wanted:
        lines.append(f"| {_STAGES.get(stage['stage'], 'this model')} | {stage['seconds']:,.0f} |")
    device = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}, no GPU"
    lines += ["", f"Wall-clock time of each stage since it was last started, on {device}; energy was not measured."]
    return "\n".join(lines)


def run_section(model_id: str, images: Mapping[str, Any], max_new_tokens: int) -> str:
    """Three lines after the import, the same with 4 bits, and how to draw a page."""
    fields = {_PAGE.get(key, key): value for key, value in images.items() if key not in ("augment", "image_seed")}
    page = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    asked = (
        'chat = [{"role": "user", "content": [{"type": "image", "image": "ecg.png"}, '
        '{"type": "text", "text": "Does this ECG show atrial fibrillation?"}]}]\n'
        f'print(ask(text=chat, max_new_tokens={max_new_tokens}, return_full_text=False)[0]["generated_text"])'
    )
    return f"""## How to run

```python
from transformers import pipeline

ask = pipeline("image-text-to-text", model="{model_id}")
{asked}
```

With 4 bits (needs a GPU and bitsandbytes; all scores here are without):

```python
import torch
from transformers import BitsAndBytesConfig, pipeline

bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
ask = pipeline("image-text-to-text", model="{model_id}", device_map="auto", model_kwargs={{"quantization_config": bits}})
{asked}
```

Draw the page as in training, from a WFDB record with 12 leads (`hf_evl_ecg`):

```python
from hf_evl_ecg import RenderConfig, read_record, render

render(read_record("path/to/record"), RenderConfig({page})).save("ecg.png")
```"""


def citation_section(report: Mapping[str, Any] | None, extra: Mapping[str, DataSource]) -> str:
    """The method and the sources of the records."""
    names = dict.fromkeys(str(count["source"]).partition("/")[0] for count in (report or {}).get("counts", ()))
    found = [find_source(name, extra) for name in names]
    cited = list(dict.fromkeys(f"- {source.cite}. <{source.url}>" for source in found if source.cite))
    data = ["", "The records:", "", *cited] if cited else []
    return "\n".join(["## Citation", "", "```bibtex", METHOD_BIBTEX, "```", *data])


def limits_section(rows: Sequence[Row], config: Mapping[str, Any], limits: Sequence[str]) -> str:
    """What the numbers do not show."""
    sources = {split_task(row["task"])[0] for row in rows}
    general = [
        "Intervals are bootstrap intervals over the test records. They do not cover the spread over training seeds.",
        "Labels are those of the databases: other readers may disagree with them, and labels that were not given count as absent "
        "only where a source labels that finding at all.",
    ]
    if "simulated" in sources:
        general.append(
            "Simulated records follow simple rules that a model can learn; their scores say nothing about patients."
        )
    if "ptb-xl-filtered" in sources:
        general.append(
            "Records of the filtered PTB-XL have no absolute voltages, so what depends on them cannot be read there."
        )
    if len(config.get("seeds") or ()) == 1:
        general.append("One training seed: differences between methods may be chance.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in [*limits, *general])


def _training_words(settings: Mapping[str, Any]) -> list[str]:
    words = []
    if "max_steps" in settings and settings["max_steps"] > 0:
        words.append(f"{settings['max_steps']:,} steps")
    elif "num_train_epochs" in settings:
        words.append(f"{settings['num_train_epochs']:g} epochs")
    if settings.get("per_device_train_batch_size"):
        words.append(f"batches of {settings['per_device_train_batch_size']} per device")
    if settings.get("learning_rate"):
        words.append(f"learning rate {settings['learning_rate']:g}")
    return [*words, "AdamW"] if words else ["AdamW"]


def _details(name: str, settings: Mapping[str, Any]) -> str:
    if name == "lambda_mhca" and settings["mhca_mode"] == "anchored":
        return (
            "; the cross-attention is trained by the answers through the student's frozen output layer (weight "
            f"{settings['lambda_anchor']:g}), and the student follows it"
        )
    if name == "lambda_ot" and settings["ot_position_weight"]:
        return (
            f"; {settings['ot_position_weight']:g} of the cost that decides the plan is the distance of the patches on the page; "
            f"entropic weight {settings['ot_epsilon']:g}"
        )
    if name == "lambda_ot":
        return f"; entropic weight {settings['ot_epsilon']:g}"
    if name == "lambda_uld" and settings["uld_top_k"]:
        return f", over the {settings['uld_top_k']} likeliest"
    return ""


def _tower(part: Mapping[str, Any]) -> str:
    return f"{part['model_type']}, {part['layers']} layers of width {part['width']:,}"


def _patch(patch: Any) -> str:
    return " × ".join(map(str, patch)) if isinstance(patch, list | tuple) else f"{patch} × {patch}"


def _listed(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"
