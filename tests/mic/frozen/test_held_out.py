"""What a map keeps of rows it was not fitted on: an honest split, recalls by a slow count, a warning when PCA is ahead."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import _batches, fit_map
from hf_mic.frozen.held_out import compare_with_pca, neighbours_kept, split_held_out
from hf_mic.frozen.vectors import principal_axes, unit_rows

QUICK = AdaptConfig(dims=[2, 4], batch_size=64, pool_size=256, steps=30, sir_weight=0, scr_weight=0)


@pytest.fixture(scope="module")
def vectors():
    """Points around 30 centres in 5 hidden dimensions, with little noise in all 16."""
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(30, 16)) * (np.arange(16) >= 11), 20, axis=0)
    basis = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    return ((points + 0.1 * rng.normal(size=points.shape)) @ basis).astype(np.float32)


@pytest.mark.parametrize(("count", "least", "held"), [(600, 64, 30), (64, 64, 0), (66, 64, 2), (50_000, 64, 512)])
def test_split_is_a_partition(count, least, held):
    fit, held_out = split_held_out(count, least, seed=0)
    assert len(held_out) == held
    assert np.array_equal(np.sort(np.concatenate([fit, held_out])), np.arange(count))
    assert (np.diff(fit) > 0).all()
    if held:
        assert not np.array_equal(held_out, split_held_out(count, least, seed=1)[1])


def test_neighbours_kept_is_the_slow_count():
    rng = np.random.default_rng(1)
    queries, rows = rng.normal(size=(7, 3)), rng.normal(size=(40, 3))
    nearest = np.stack([rng.choice(40, 5, replace=False) for _ in range(7)])
    expected = []
    for query, wanted in zip(queries, nearest, strict=True):
        cosine = [query @ row / np.linalg.norm(row) for row in rows]
        expected.append(len(set(np.argsort(cosine)[-5:]) & set(wanted)) / 5)
    result = neighbours_kept(*map(torch.from_numpy, (queries, rows, nearest)))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_a_map_that_is_behind_is_told_of_once_with_both_numbers(vectors):
    axes = principal_axes(vectors)
    fit, held_out = split_held_out(len(vectors), 64, seed=0)
    last_first = axes.flip(1)
    with pytest.warns(UserWarning, match=r"30 held-out rows than PCA: .* against .* % at dim 2, .* at dim 4") as caught:
        rows = compare_with_pca(lambda x: x @ last_first, axes, vectors, fit, held_out, [2, 4])
    assert len(caught) == 1
    assert all(row["map"] < row["pca"] for row in rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = compare_with_pca(lambda x: x @ axes, axes, vectors, fit, held_out, [2, 4])
        assert compare_with_pca(lambda x: x, axes, vectors, fit, held_out[:0], [2]) == []
    assert [row["dim"] for row in same] == [2, 4]
    assert all(row["map"] == row["pca"] > 0.2 for row in same)
    plain = compare_with_pca(lambda x: x, axes, vectors, fit, held_out, [2, 4])
    assert all(row["map"] == row["truncation"] for row in plain)
    assert [row["truncation"] for row in same] == [row["truncation"] for row in plain]


def test_fit_measures_rows_it_has_not_seen(vectors):
    fitted = fit_map(vectors, QUICK, progress=False)
    fit, held_out = split_held_out(len(vectors), QUICK.batch_size, QUICK.seed)
    mapped = fitted.apply(vectors, dim=4)
    unit = unit_rows(vectors).numpy()
    found = 0
    for row in held_out:
        wanted = set(np.argsort(unit[fit] @ unit[row])[-10:])
        found += len(wanted & set(np.argsort(mapped[fit] @ mapped[row])[-10:]))
    assert fitted.held_out[1]["map"] == pytest.approx(found / 10 / len(held_out), abs=0.01)  # ties in rounding
    changed = vectors.copy()
    changed[held_out] = np.roll(vectors[held_out], 3, axis=1)
    assert torch.equal(fit_map(changed, QUICK, progress=False).weight, fitted.weight)
    with pytest.warns(UserWarning, match="fewer of the 10 nearest neighbours"):
        fit_map(vectors, dataclasses.replace(QUICK, init="identity", steps=1), progress=False)


def test_batches_bring_the_nearest_rows(vectors):
    """With a pool of all rows each is an anchor once per round, beside its true neighbours."""
    config = dataclasses.replace(QUICK, neighbours=3, batch_size=64, pool_size=600, steps=37)
    fit = np.arange(0, 600, 2)
    unit = unit_rows(vectors[fit])
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-1)
    nearest = cosines.topk(3).indices
    whole = np.zeros(len(fit), dtype=int)
    for batch in _batches(vectors, fit, config):
        assert len(batch) <= 64
        numbers = (batch @ unit.T).argmax(dim=1)
        assert len(numbers.unique()) == len(batch)
        present = torch.isin(nearest, numbers).all(dim=1)
        whole[numbers[present[numbers]].numpy()] += 1
    # 37 batches of 16 anchors are two rounds over 18 * 16 of the 300 rows
    assert (whole >= 2).mean() > 0.9
