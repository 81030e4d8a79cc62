"""Model cards that say how a model was trained, what it scores at each dimension, and what it is not for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from hf_mic.evaluation.score_pictures import plot_scores
from hf_mic.evaluation.score_tables import markdown_report
from hf_mic.files import write_atomically
from hf_mic.losses import MICLoss

from .parts import MODEL_PLACE, describe_mic, listed, model_index_results, truncation_section

__all__ = ["complete_model_card", "describe_loss"]

PICTURE = "scores_by_dimension.png"
SECTIONS = ("Truncation", "How it was trained", "Scores by dimension", "Limits")
TAGS = ("matryoshka", "truncatable-embeddings")


def complete_model_card(
    folder: str | Path,
    *,
    loss: nn.Module | Mapping[str, nn.Module] | None = None,
    results: Mapping[str, Any] | None = None,
    method: str | None = None,
    seed: int | None = None,
    truncate_dim: int = 32,
    model_id: str | None = None,
    limits: Sequence[str] = (),
) -> None:
    """Turn the README.md that sentence-transformers wrote beside a model into a complete card.

    Adds how to truncate, how the model was trained, the scores at each dimension with a picture, and limits; enters the
    scores of this model into the metadata (``model-index``); removes the template's comments and placeholders. Nothing is
    fetched, each file is replaced in one step, and a second call gives the same card.

    Args:
        folder: Folder of the saved model.
        loss: The loss, or the losses by data set, that the model was trained with.
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
    card = ModelCard(path.read_text(encoding="utf-8"))
    data = cast(ModelCardData, card.data)
    body = _without_sections(_without_comments(card.text))
    body = _with_location(body, model_id)
    sections = [truncation_section(truncate_dim, model_id)]
    if loss is not None:
        sections.append("## How it was trained\n\n" + describe_loss(loss))
    if results is not None:
        sections.append(_scores(results, method))
        plot_scores(results["rows"], path.parent / PICTURE)
        if method is not None:
            others = [entry for entry in data.eval_results or [] if not str(entry.metric_name).endswith(" dimensions")]
            data.model_name = _title(body)
            data.eval_results = others + model_index_results(results["rows"], method, seed)
    sections.append(_limits(results, limits))
    before, found, after = body.partition("\n## Training Details\n")
    body = f"{before.rstrip()}\n\n" + "\n\n".join(sections) + f"\n{found}{after}"
    losses = list(_flatten(loss)) if loss is not None else []
    tags = [*TAGS, *(["mic", "arxiv:2605.29987"] if any(isinstance(part, MICLoss) for part in losses) else [])]
    data.tags = list(dict.fromkeys([*(data.tags or []), *tags]))
    text = f"---\n{data.to_yaml()}\n---\n\n{body.strip()}\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def describe_loss(loss: nn.Module | Mapping[str, nn.Module]) -> str:
    """Say in markdown what a loss minimises, with all its settings.

    Args:
        loss: A loss, or losses by the name of their data set.
    """
    if isinstance(loss, Mapping):
        return "\n\n".join(f"Data set `{name}`: {describe_loss(part)}" for name, part in loss.items())
    if isinstance(loss, MICLoss):
        return describe_mic(loss.get_config_dict())
    return f"Trained with `{type(loss).__name__}`, whose settings are listed under Training Details."


def _scores(results: Mapping[str, Any], method: str | None) -> str:
    named = f" This model is `{method}`." if method else ""
    return f"""## Scores by dimension

![Scores by dimension]({PICTURE})

Embeddings are truncated to the dimension, then normalised.{named}

{markdown_report(results)}"""


def _limits(results: Mapping[str, Any] | None, limits: Sequence[str]) -> str:
    tasks = list(dict.fromkeys(row["task"] for row in results["rows"])) if results else []
    shown = [f"`{task}`" for task in tasks]
    measured = (
        f"The scores hold for {listed(shown)} only: measure on data of your own before you choose a dimension."
        if tasks
        else "No scores by dimension were measured for this model: measure on data of your own before you choose a dimension."
    )
    general = [
        measured,
        "Only the leading coordinates carry the meaning of a short embedding; any other selection of coordinates does not.",
        "Whatever the starting model and the training text lack or distort (languages, fields, social bias, length of text) "
        "this model lacks or distorts too.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in [*limits, *general])


def _without_comments(text: str) -> str:
    """Remove HTML comments and the lines that only said something is missing, and the gaps they leave."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*\[?More Information Needed\]?.*$", "", text, flags=re.MULTILINE | re.IGNORECASE)
    text = re.sub(r"\n[ \t]*\n(?:[ \t]*\n)+", "\n\n", text)
    return re.sub(r"^(- .*)\n\n(?=- )", r"\1\n", text, flags=re.MULTILINE)


def _without_sections(text: str) -> str:
    """Remove the sections that an earlier call added."""
    names = "|".join(map(re.escape, SECTIONS))
    return re.sub(rf"^## (?:{names})\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)


def _with_location(text: str, model_id: str | None) -> str:
    text = text.replace('"sentence_transformers_model_id"', f'"{_location(model_id)}"')
    return text if model_id else text.replace("# Download from the 🤗 Hub\n", "")


def _location(model_id: str | None) -> str:
    return model_id or MODEL_PLACE


def _title(text: str) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else "Sentence encoder"


def _flatten(loss: nn.Module | Mapping[str, nn.Module]) -> Iterator[nn.Module]:
    yield from loss.values() if isinstance(loss, Mapping) else [loss]
