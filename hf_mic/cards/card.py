"""Model cards that say how a model was trained, what it scores at each dimension, and what it is not for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from hf_mic.files import write_text
from hf_mic.losses import MICLoss
from hf_mic.reports.score_pictures import plot_scores
from hf_mic.reports.score_tables import markdown_report

from .loss_text import describe_loss
from .markdown import fill_template
from .scores import model_index_results

__all__ = ["complete_model_card", "describe_loss", "hub_name"]

PICTURE = "scores_by_dimension.png"
PLACE = "path/to/this/folder"  # stands for a model that has no name on the Hub
ESSENTIAL = (
    "per_device_train_batch_size",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "seed",
)
SECTIONS = ("Truncation", "How it was trained", "Scores by dimension", "Limits")
TAGS = ("matryoshka", "truncatable-embeddings")


def complete_model_card(
    folder: str | Path,
    *,
    loss: nn.Module | Mapping[str, nn.Module] | None = None,
    trained: str | None = None,
    results: Mapping[str, Any] | None = None,
    method: str | None = None,
    seed: int | None = None,
    truncate_dim: int = 32,
    model_id: str | None = None,
    limits: Sequence[str] = (),
) -> None:
    """Turn the README.md that sentence-transformers wrote beside a model into a complete card.

    Adds how to truncate, how the model was trained, the scores at each dimension with a picture, and limits; enters the
    scores of this model into the metadata (``model-index``); removes the template's comments and placeholders, and its
    title, which is the name of a class. Nothing is fetched, each file is replaced in one step, and a second call gives the same card.

    Args:
        folder: Folder of the saved model.
        loss: The loss, or the losses by data set, that the model was trained with.
        trained: Markdown on how the model came about, in place of what ``loss`` tells.
        results: A results json as from :func:`hf_mic.results.read_results`; all its methods are shown.
        method: Method in ``results`` that is this model.
        seed: Its seed, if ``results`` hold several of that method.
        truncate_dim: Dimension in the example of truncation.
        model_id: Name on the Hub for the code examples, if there is one.
        limits: Further limits, one sentence or paragraph each.

    Raises:
        FileNotFoundError: If there is no README.md in the folder.
        ValueError: If ``results`` hold no row of ``method`` and ``seed``, or several for one score.
    """
    path = Path(folder) / "README.md"
    card = ModelCard(path.read_text(encoding="utf-8-sig"))
    data = cast(ModelCardData, card.data)
    is_mic = any(isinstance(part, MICLoss) for part in (loss.values() if isinstance(loss, Mapping) else [loss]))
    body = _without_defaults(_without_sections(_without_comments(card.text)))
    body = _with_names(body, model_id, "MIC encoder" if is_mic else "Sentence encoder")
    if results is not None:
        plot_scores(results["rows"], path.parent / PICTURE)
        if method is not None:
            others = [entry for entry in data.eval_results or [] if not str(entry.metric_name).endswith(" dimensions")]
            data.model_name = _title(body)
            data.eval_results = others + model_index_results(results["rows"], method, seed)
    facts = {
        "model_id": model_id or PLACE,
        "truncate_dim": truncate_dim,
        "training": trained or (None if loss is None else describe_loss(loss)),
        "scores": None if results is None else markdown_report(results),
        "picture": PICTURE,
        "method": method,
        "tasks": [f"`{task}`" for task in dict.fromkeys(row["task"] for row in results["rows"])] if results else [],
        "limits": limits,
    }
    before, found, after = body.partition("\n## Training Details\n")
    body = f"{before.rstrip()}\n\n{fill_template('encoder.md', facts)}\n{found}{after}"
    tags = [*TAGS, *(["mic", "arxiv:2605.29987"] if is_mic else [])]
    data.tags = list(dict.fromkeys([*(data.tags or []), *tags]))
    write_text(path, f"---\n{data.to_yaml()}\n---\n\n{body.strip()}\n")


def hub_name(model: str) -> str | None:
    """The name on the Hub of a model that is given by it, or by its folder in the cache of huggingface_hub; None: it has none.

    Example:
        >>> hub_name("/home/ann/.cache/huggingface/hub/models--org--small/snapshots/0a1b")
        'org/small'
    """
    if found := re.search(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]", f"{Path(model).absolute()}/"):
        return f"{found[1]}/{found[2]}"
    return model if model.count("/") == 1 and not Path(model).exists() else None


def _without_comments(text: str) -> str:
    """Remove HTML comments and the lines that only said something is missing, and the gaps they leave."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*\[?More Information Needed\]?.*$", "", text, flags=re.MULTILINE | re.IGNORECASE)
    text = re.sub(r"\n[ \t]*\n(?:[ \t]*\n)+", "\n\n", text)
    return re.sub(r"^(- .*)\n\n(?=- )", r"\1\n", text, flags=re.MULTILINE)


def _without_defaults(text: str) -> str:
    """Remove the list of all hyper-parameters, about 110, but for those that one asks for; what was set stands in a list of its own."""
    found = re.search(r"^#### All Hyperparameters\n.*?</details>\n", text, re.MULTILINE | re.DOTALL)
    if found is None:
        return text
    values = dict(re.findall(r"^- `(\w+)`: (.*)$", found[0], re.MULTILINE))
    set_before = re.findall(r"^- `(\w+)`:", text[: found.start()], re.MULTILINE)
    kept = [f"`{name}` {values[name]}" for name in ESSENTIAL if name in values and name not in set_before]
    told = f"Defaults worth knowing: {', '.join(kept)}.\n" if kept else ""
    return text[: found.start()] + told + text[found.end() :]


def _without_sections(text: str) -> str:
    """Remove the sections that an earlier call added."""
    names = "|".join(map(re.escape, SECTIONS))
    return re.sub(rf"^## (?:{names})\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)


def _with_names(text: str, model_id: str | None, kind: str) -> str:
    """Put the model's name, or its kind and a place, where sentence-transformers names a class and no place."""
    text = text.replace('"sentence_transformers_model_id"', f'"{model_id or PLACE}"')
    if model_id is None:
        text = text.replace("# Download from the 🤗 Hub\n", "")
    title = kind + r"\1" if model_id is None else model_id.split("/")[-1]
    return re.sub(r"^# Sentence ?Transformer(?: model)?(.*)$", f"# {title}", text, count=1, flags=re.MULTILINE)


def _title(text: str) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else "Sentence encoder"
