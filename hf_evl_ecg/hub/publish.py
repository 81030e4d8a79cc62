"""Students and rendered data sets on the Hub: checked before they are sent, and again as the Hub returns them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, DatasetDict, Features, Image
from datasets.table import embed_table_storage
from torch import Tensor
from transformers import AutoModelForImageTextToText

from hf_evl_ecg.files import write_text
from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.qa.prompts import RHYTHM_QUESTION

from .checks import check_files, check_repo_id, place_card
from .push import Preview, PublishError, Push, PushOptions, preview_folder, publish_folder
from .reload_check import relative_difference, reload_logits

__all__ = [
    "DATASET_FILES",
    "STUDENT_FILES",
    "PublishReport",
    "preview_dataset",
    "preview_student",
    "publish_dataset",
    "publish_student",
    "render_dataset",
]

_CARD_FILES = ("README.md", "LICENSE", "*.png", "*.jpg", "results/*.json", ".eval_results/*.yaml")
STUDENT_FILES = (
    *_CARD_FILES,
    *("config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors"),
    *("model.safetensors.index.json", "processor_config.json", "*preprocessor_config.json", "chat_template.j*"),
    *("additional_chat_templates/*.jinja", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
)
DATASET_FILES = (*_CARD_FILES, "data/*.parquet")
_LOCATION = ("storage", "root", "gain_per_mv", "missing", "patient")
_SHARD_BYTES = 500 * 2**20
_SAME = 1e-5  # of the largest logit; the same files on the same machine, so normally 0


@dataclass(frozen=True)
class PublishReport:
    """What is on the Hub, and how it was checked.

    Attributes:
        push: Where it is.
        difference: Largest difference of logits between the folder and what the Hub returned, each run in a new
            process, over the largest logit.
    """

    push: Push
    difference: float


def publish_student(
    folder: str | Path,
    repo_id: str,
    *,
    card: str | Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    check_inputs: Mapping[str, Tensor] | None = None,
    **options: Unpack[PushOptions],
) -> PublishReport:
    """Publish what `hf_evl_ecg.hub.export.export_student` wrote, and prove that the copy on the Hub computes the same.

    Nothing is sent unless the folder holds the student and its card alone, without pickles or weights that are not the
    student's, and loads in a new process that cannot import this package. Then the branch is made to hold exactly this
    folder (the same folder again makes no commit), downloaded into a new cache, and run in another such process. Only a
    commit that passed is tagged.

    Args:
        folder: The exported folder.
        repo_id: ``namespace/name``.
        card: Text of the card, or a file with it and its pictures beside it; None: README.md is in the folder already.
        provenance: Facts that the export did not have yet, such as results; added to those in ``config.json``.
        check_inputs: Model inputs to compare logits on, instead of a picture and a question through the processor.
        **options: private, revision, tag, commit_message, parent_commit and api (see `hf_evl_ecg.hub.push.publish_folder`).

    Raises:
        PublishError: The Hub refused, the connection broke, or the copy on the Hub computes something else.
        ReloadError: The folder itself does not load in a new process; nothing was sent.
        ValueError: The folder is no export, holds something else, or its card is missing or invalid.

    See docs/publish.md for a run.
    """
    check_repo_id(repo_id)  # here too: what is refused must leave the folder as it was
    folder = _completed(folder, card, provenance)

    def prove(folder: Path) -> Callable[[Path], float]:
        expected = _saved_logits(folder, check_inputs)
        return lambda copy: _compare(_saved_logits(copy, check_inputs), expected)

    return PublishReport(*publish_folder(folder, repo_id, prove, allowed=STUDENT_FILES, **options))


def preview_student(
    folder: str | Path,
    *,
    card: str | Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    check_inputs: Mapping[str, Tensor] | None = None,
) -> Preview:
    """What `publish_student` would send, after the same checks and completed in the same way; no Hub and no login are needed.

    Raises:
        ReloadError: The folder does not load in a new process.
        ValueError: As `publish_student`.
    """
    complete = _completed(folder, card, provenance)
    return preview_folder(complete, lambda folder: _saved_logits(folder, check_inputs), allowed=STUDENT_FILES)


def _completed(folder: str | Path, card: str | Path | None, provenance: Mapping[str, Any] | None) -> Path:
    """The export, checked, with its card and what it did not know yet."""
    folder = Path(folder)
    check_files(folder, STUDENT_FILES)
    _check_export(folder)
    _add_provenance(folder, provenance or {})
    if card is not None:
        place_card(folder, card)
    return folder


def render_dataset(questions: Dataset, draw: Callable[[Mapping[str, Any]], PIL.Image.Image]) -> Dataset:
    """Draw the ECG of every question: a data set that needs no waveforms, without the paths of this machine.

    Args:
        questions: Rows of `hf_evl_ecg.data.questions.question_dataset`.
        draw: Draws the ECG of a row, such as `hf_evl_ecg.data.rendered.RenderedECG`.

    Returns:
        The questions with ``image``, without what tells where the waveform is.
    """
    kept = questions.remove_columns([name for name in _LOCATION if name in questions.column_names]).features
    return questions.map(
        lambda row: {"image": draw(row)},
        remove_columns=[name for name in questions.column_names if name not in kept],
        features=Features({**kept, "image": Image()}),
        desc="Drawing ECGs",
    )


def publish_dataset(
    data: Dataset | DatasetDict, repo_id: str, *, card: str | Path, **options: Unpack[PushOptions]
) -> Push:
    """Publish pictures of ECGs with their questions, answers or labels as parquet files that `load_dataset` reads.

    Pictures are stored inside the parquet files. A data set with rows whose ``source`` is "simulated" must say
    "simulated" in its card.

    Args:
        data: Rows with an `datasets.Image` column, or several splits of them.
        repo_id: ``namespace/name``.
        card: Text of the card, or a file with it; its metadata must name the license.
        **options: private, revision, tag, commit_message, parent_commit and api (see `hf_evl_ecg.hub.push.publish_folder`).

    Raises:
        PublishError: The Hub refused, the connection broke, or the Hub returns other files.
        ValueError: There is no picture, a split is empty or tells paths or patients, or the card is missing, invalid or
            silent about simulation.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write_dataset(Path(scratch), data, card)
        return publish_folder(
            folder, repo_id, lambda folder: lambda copy: None, allowed=DATASET_FILES, repo_type="dataset", **options
        )[0]


def preview_dataset(data: Dataset | DatasetDict, *, card: str | Path) -> Preview:
    """What `publish_dataset` would send, after the same checks; no Hub and no login are needed.

    Raises:
        ValueError: As `publish_dataset`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write_dataset(Path(scratch), data, card)
        return preview_folder(folder, lambda folder: None, allowed=DATASET_FILES)


def _write_dataset(folder: Path, data: Dataset | DatasetDict, card: str | Path) -> Path:
    """The card and the splits as parquet files, checked."""
    splits = dict(data) if isinstance(data, DatasetDict) else {str(data.split or "train"): data}
    text = card.read_text(encoding="utf-8") if isinstance(card, Path) else card
    _check_splits(splits, text)
    place_card(folder, text)
    for name, rows in splits.items():
        _write_parquet(folder / "data", name, rows)
    return folder


def _check_export(folder: Path) -> None:
    """The folder is an export, and its weights are those of its architecture: no teacher, no aligner. On meta, nothing is read."""
    path = folder / "config.json"
    if not path.is_file() or PROVENANCE_KEY not in read_json(path):
        raise ValueError(f"folder={folder}: its config.json has no {PROVENANCE_KEY!r}; give what export_student wrote")
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, trust_remote_code=False, device_map="meta", output_loading_info=True
    )
    if wrong := {kind: sorted(map(str, names))[:5] for kind, names in loaded[1].items() if names}:
        raise ValueError(
            f"folder={folder}: its weights are not those that config.json describes ({wrong}); export the student again"
        )


def _add_provenance(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to what the export says of itself."""
    if facts:
        path = folder / "config.json"
        config = read_json(path)
        config[PROVENANCE_KEY] |= facts
        write_text(path, json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _saved_logits(folder: Path, check_inputs: Mapping[str, Tensor] | None) -> Tensor:
    """Logits of a saved student in a new process; the picture is noise, to which every part of the model answers."""
    if check_inputs is not None:
        return reload_logits(folder, check_inputs)["logits"]
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (220, 280, 3), dtype=np.uint8))
    return reload_logits(folder, {"image": picture}, question=RHYTHM_QUESTION)["logits"]


def _compare(found: Tensor, expected: Tensor) -> float:
    difference = relative_difference(found, expected)
    if difference > _SAME:
        raise PublishError(f"The logits of the copy on the Hub differ by {difference:.2g} of the largest.")
    return difference


def _check_splits(splits: Mapping[str, Dataset], card: str) -> None:
    for name, rows in splits.items():
        if private := [column for column in _LOCATION if column in rows.column_names]:
            raise ValueError(f"split={name!r}: columns {private} tell where a waveform lies or whose it is; drop them")
        if not len(rows) or not any(isinstance(feature, Image) for feature in rows.features.values()):
            raise ValueError(
                f"split={name!r}: {len(rows)} rows of {list(rows.features)}; rows with a picture are needed"
            )
        simulated = "source" in rows.column_names and "simulated" in rows.unique("source")
        if simulated and "simulated" not in card.lower():
            raise ValueError(
                f"split={name!r}: it holds simulated ECGs; the card must say that they are simulated, not patients"
            )


def _write_parquet(folder: Path, split: str, rows: Dataset) -> None:
    """Shards of at most 500 MB, pictures inside."""
    folder.mkdir(exist_ok=True)
    stored = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100, keep_in_memory=False)
    count = 1 + stored.data.nbytes // _SHARD_BYTES
    for i in range(count):
        shard = stored.with_format(None).shard(count, i, contiguous=True)
        shard.to_parquet(folder / f"{split}-{i:05d}-of-{count:05d}.parquet")
