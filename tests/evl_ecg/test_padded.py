"""Padded token sets: what is kept, pooled and averaged, and that padding never counts."""

import pytest
import torch

from hf_evl_ecg.padded import (
    gather_tokens,
    mean_over_samples,
    normalise_weights,
    pool_tokens,
    promote,
    take_tokens,
    token_variance,
    zero_padding,
)


def test_gather_and_pool_by_hand():
    states = torch.arange(10.0).view(2, 5, 1).requires_grad_()
    keep = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]).bool()
    kept, mask = gather_tokens(states, keep)
    assert kept.squeeze(-1).tolist() == [[0.0, 2.0, 3.0], [9.0, 0.0, 0.0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    pooled, pooled_mask = pool_tokens(kept, mask, 2)
    assert pooled.squeeze(-1).tolist() == [[1.0, 3.0], [9.0, 0.0]]
    assert pooled_mask.tolist() == [[True, True], [True, False]]
    pooled.sum().backward()
    assert states.grad.squeeze(-1).tolist() == [[0.5, 0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]


def test_take_by_hand():
    states = torch.arange(6.0).view(1, 3, 2)
    taken = take_tokens(states, torch.tensor([[2, 0, 1]]), torch.tensor([[True, True, False]]))
    assert taken.tolist() == [[[4.0, 5.0], [0.0, 1.0], [0.0, 0.0]]]


def test_zero_padding_hides_nan_and_its_gradient():
    tokens = torch.tensor([[[1.0], [torch.nan]]], requires_grad=True)
    zeroed = zero_padding(tokens, torch.tensor([[True, False]]))
    assert zeroed.flatten().tolist() == [1.0, 0.0]
    zeroed.sum().backward()
    assert tokens.grad.flatten().tolist() == [1.0, 0.0]


def test_mean_over_samples_weighs_samples_not_tokens():
    total, count = torch.tensor([8.0, 1.0, 0.0]), torch.tensor([4, 1, 0])
    assert mean_over_samples(total, count).item() == pytest.approx((2 + 1) / 2)
    nothing = torch.zeros(2, requires_grad=True)
    mean = mean_over_samples(nothing, torch.zeros(2, dtype=torch.int64))
    assert mean.item() == 0
    mean.backward()
    assert nothing.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_promotion(given, expected):
    assert promote(torch.zeros(1, dtype=given)).dtype == expected


def test_weights_are_relative_to_the_largest_and_zero_at_padding():
    weights = torch.tensor([[2.0, 8.0, float("nan")], [0.0, 0.0, 5.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, False]])
    found = normalise_weights(weights, mask)
    assert found.tolist() == [[0.25, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert not found.requires_grad
    equal = normalise_weights(torch.full((1, 1000), 0.1), torch.ones(1, 1000, dtype=torch.bool))
    assert equal.eq(1).all()
    assert normalise_weights(torch.ones(1, 1).half(), mask[:1, :1]).dtype == torch.float32


def test_samples_without_tokens_do_not_lower_the_variance():
    tokens, mask = torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    expected = tokens[[0, 2]].var(1, correction=0).mean()
    torch.testing.assert_close(token_variance(tokens, mask), expected)
    assert token_variance(tokens, torch.zeros_like(mask)) == 0
