"""Batches that meet in one step come from one data set, whatever orders them."""

import pytest
import torch
from datasets import Dataset
from sentence_transformers.base.sampler import (
    DefaultBatchSampler,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from torch.utils.data import ConcatDataset, RandomSampler

from hf_mic.batching import JoinedBatches, SplitBatches

SIZES = (23, 41, 15)


def samplers(number, order, batches=DefaultBatchSampler, batch_size=4):
    """The order of ``number`` processes over data sets of SIZES rows, epoch by epoch."""
    parts = [Dataset.from_dict({"a": [f"{size} {i}" for i in range(size)]}) for size in SIZES]
    generator = torch.Generator().manual_seed(0)

    def of(part):
        rows = RandomSampler(part, generator=generator) if batches is DefaultBatchSampler else part
        return batches(rows, batch_size=batch_size, drop_last=True, generator=generator, seed=1)

    joined = [JoinedBatches(of(part), number) for part in parts]
    every = SplitBatches(order(ConcatDataset(parts), joined, generator=generator, seed=1), number)
    bounds = torch.tensor([0, *SIZES]).cumsum(0).tolist()
    return every, bounds


@pytest.mark.parametrize("order", [ProportionalBatchSampler, RoundRobinBatchSampler])
@pytest.mark.parametrize("batches", [DefaultBatchSampler, NoDuplicatesBatchSampler])
@pytest.mark.parametrize("number", [2, 3])
def test_batches_of_a_step_share_their_data_set(order, batches, number):
    every, bounds = samplers(number, order, batches)
    found = list(every)
    assert len(found) >= len(every) > 0  # round robin gives more than its length before sentence-transformers 6.2
    assert len(found) % number == 0
    assert all(len(batch) == 4 for batch in found)
    rows = [row for batch in found for row in batch]
    assert len(set(rows)) == len(rows)
    sources = [{sum(row >= bound for bound in bounds[1:-1]) for row in batch} for batch in found]
    steps = [set.union(*sources[i : i + number]) for i in range(0, len(found), number)]
    assert all(len(step) == 1 for step in steps)
    assert len(set.union(*steps)) > 1


def test_two_halves_are_the_batch_of_one_process():
    halves, _ = samplers(2, ProportionalBatchSampler, batch_size=4)
    whole, _ = samplers(1, ProportionalBatchSampler, batch_size=8)
    for epoch in (0, 1):
        for sampler in (halves, whole):
            sampler.set_epoch(epoch)
        parts = list(halves)
        assert [first + second for first, second in zip(parts[::2], parts[1::2], strict=True)] == list(whole)


def test_a_data_set_that_would_take_no_part_is_refused():
    with pytest.raises(ValueError, match="fills 3 batches of 4, but 4 processes"):
        samplers(4, ProportionalBatchSampler)


def test_epochs_differ_and_repeat():
    every, _ = samplers(2, RoundRobinBatchSampler)
    orders = []
    for epoch in (0, 1, 0):
        every.set_epoch(epoch)
        orders.append(list(every))
    assert orders[0] == orders[2] != orders[1]
