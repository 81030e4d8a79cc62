"""Data sets that can be trained on, and batches of several, so that all processes take theirs from the same one in each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from datasets import Dataset, IterableDataset, Value
from sentence_transformers.base.sampler import SetEpochMixin
from torch.utils.data import BatchSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["EpochOrder", "JoinedBatches", "SplitBatches", "check_datasets", "is_scored"]

_IDENTIFIERS = frozenset(("id", "idx", "index", "uid", "uuid", "guid", "docid", "qid", "pid"))
"""Names of columns that name a row, in lower case; and whatever ends in _id."""


class JoinedBatches(SetEpochMixin, BatchSampler):
    """Batches of one data set, several in a row joined to one; what does not fill the last is dropped.

    Args:
        batches: Batches of the data set, all of its ``batch_size``.
        number: How many to join: the number of processes.

    Raises:
        ValueError: If there are not that many batches, so that the data set would take no part.

    Example:
        >>> list(JoinedBatches(BatchSampler(range(10), batch_size=2, drop_last=True), 2))
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    def __init__(self, batches: BatchSampler, number: int) -> None:
        if len(batches) < number:
            raise ValueError(
                f"A data set fills {len(batches)} batches of {batches.batch_size}, but {number} processes take one each in a "
                "step: lower the batch size or leave the data set out."
            )
        super().__init__((), batch_size=number * batches.batch_size, drop_last=True)
        self.batches, self.number = batches, number

    def __iter__(self) -> Iterator[list[int]]:
        rows = iter(self.batches)
        for joined in zip(*[rows] * self.number, strict=False):
            yield [row for batch in joined for row in batch]

    def __len__(self) -> int:
        return len(self.batches) // self.number

    def set_epoch(self, epoch: int) -> None:
        """Hand the number of the epoch, from which the order of the rows follows, to the batches."""
        _set_epoch(self.batches, epoch)


class SplitBatches(SetEpochMixin, BatchSampler):
    """Joined batches of several data sets, taken apart again.

    Data loaders hand consecutive batches to consecutive processes, so the parts of a joined batch meet in one step.

    Args:
        joined: Batches of all data sets, each of ``number`` times the batch size of a process.
        number: Parts of each.

    Example:
        >>> list(SplitBatches(BatchSampler(range(8), batch_size=4, drop_last=True), 2))
        [[0, 1], [2, 3], [4, 5], [6, 7]]
    """

    def __init__(self, joined: BatchSampler, number: int) -> None:
        super().__init__((), batch_size=joined.batch_size // number, drop_last=True)
        self.joined, self.number = joined, number

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.joined:
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]

    def __len__(self) -> int:
        return self.number * len(self.joined)

    def set_epoch(self, epoch: int) -> None:
        """Hand the number of the epoch to the joined batches."""
        _set_epoch(self.joined, epoch)


class EpochOrder(TrainerCallback):
    """Tell the batches which epoch begins, so that a resumed one continues in its own order.

    The trainer looks below one wrapper; a run of several processes that resumes within an epoch has two, and would go on in the
    order of the first epoch.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the number of the epoch."""
        batches = kwargs["train_dataloader"].batch_sampler
        while isinstance(batches, BatchSamplerShard | SkipBatchSampler):
            batches = batches.batch_sampler
        # The epoch is a float: after a resume within an epoch it may be 1.9999999 for 2.
        _set_epoch(batches, int((state.epoch or 0) + 1e-6))


def _set_epoch(batches: BatchSampler | None, epoch: int) -> None:
    if isinstance(batches, SetEpochMixin):
        batches.set_epoch(epoch)


def check_datasets(data: Any, role: str) -> None:
    """Refuse what is neither a data set nor a dict of some.

    Args:
        data: What was given; None is allowed.
        role: Its name in messages.

    Raises:
        TypeError: If it is a list, a torch data set or anything else.
    """
    parts = data.values() if isinstance(data, Mapping) else [data]
    for part in parts:
        if part is not None and not isinstance(part, (Dataset, IterableDataset)):
            raise TypeError(
                f"{role} is or holds a {type(part).__name__}: give a datasets.Dataset or IterableDataset, or several as a dict "
                "{name: data set}."
            )


def is_scored(dataset: Dataset | IterableDataset, label_columns: list[str], name: str = "train_dataset") -> bool:
    """Tell scored pairs from pairs, triplets and tuples of texts by the columns, and refuse all else.

    Args:
        dataset: Any columns of text, and at most one of ``label_columns``.
        label_columns: Names under which sentence-transformers looks for labels.
        name: Name of the data set in messages.

    Returns:
        True for two texts and a number, False for two or more texts.

    Raises:
        ValueError: If there are too few or too many columns, labels are not numbers, or there are no rows.

    Example:
        >>> is_scored(Dataset.from_dict({"anchor": ["a"], "positive": ["b"]}), ["label", "score"])
        False
    """
    columns = list(dataset.column_names or ())
    labels = [column for column in columns if column in label_columns]
    texts = [column for column in columns if column not in labels]
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError(f"{name} has no rows.")
    if len(labels) > 1:
        raise ValueError(f"{name} has several label columns {labels}: keep one of them.")
    _check_texts(dataset, texts, name)
    if labels:
        kind = getattr(dataset.features[labels[0]], "dtype", "list")
        if not kind.startswith(("int", "uint", "float", "bool")):
            raise ValueError(f"{name}: column {labels[0]!r} must hold numbers, it holds values of type {kind}.")
        if len(texts) != 2:
            raise ValueError(
                f"{name} has the label column {labels[0]!r} and the text columns {texts}: a score needs exactly two texts. "
                "Select columns, or pass a loss that fits the data."
            )
    elif len(texts) < 2:
        raise ValueError(
            f"{name} has the columns {columns}: a pair needs at least two text columns, such as anchor and positive. Single "
            "texts become pairs with hf_mic.evaluation.simcse_pairs."
        )
    return bool(labels)


def _check_texts(dataset: Dataset | IterableDataset, columns: list[str], name: str) -> None:
    """Refuse columns that would be trained on as texts and hold none: numbers, dicts, and what names a row.

    Raises:
        ValueError: If there is one.
    """
    for column in columns:
        kind = dataset.features.get(column) if dataset.features is not None else None  # a stream may not know
        number = isinstance(kind, Value) and kind.dtype not in ("string", "large_string")
        if number or isinstance(kind, dict):  # pictures and sounds are a matter between data and model
            raise ValueError(
                f"{name}: column {column!r} holds {getattr(kind, 'dtype', 'dicts')}, not texts: remove it with remove_columns, or name a "
                "score 'label' or 'score'."
            )
        if column.lower() in _IDENTIFIERS or column.lower().endswith("_id"):
            raise ValueError(
                f"{name}: column {column!r} would be trained on as a text (the third and later ones as hard negatives): remove it with "
                "remove_columns, or rename it if it does hold texts."
            )
