"""Batches of several data sets, so that all processes take theirs from the same data set in each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from sentence_transformers.base.sampler import SetEpochMixin
from torch.utils.data import BatchSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["EpochOrder", "JoinedBatches", "SplitBatches"]


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
