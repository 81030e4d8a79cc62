"""Mean-pooled states: against a loop, padding, samples without tokens, gradients."""

import pytest
import torch

from hf_evl_ecg.rivals import pooled_mse_loss


def slow(teacher, student):
    values = []
    for row in range(len(teacher.mask)):
        target = teacher.hidden[row][teacher.mask[row]].double().mean(0)
        target = (target - target.mean()) / (target.var(correction=0) + 1e-5).sqrt()
        values.append(((student.hidden[row][student.mask[row]].double().mean(0) - target) ** 2).mean())
    return float(sum(values) / len(values))


def call(teacher, student):
    return pooled_mse_loss(teacher.hidden, student.hidden, teacher.mask, student.mask)


def test_it_equals_a_loop_over_samples(make_features):
    teacher, student = make_features(6, 5, (9, 4, 7), seed=1), make_features(6, 5, seed=2)
    assert call(teacher, student).item() == pytest.approx(slow(teacher, student), rel=1e-5)


def test_padding_changes_nothing_and_gets_no_gradient(make_features):
    teacher, student = make_features(6, 5, seed=1), make_features(6, 5, seed=2)
    padded = make_features(6, 5, seed=1, extra=2, junk=float("nan")), make_features(6, 5, seed=2, extra=4, junk=1e30)
    states = padded[1].hidden.requires_grad_()
    value = call(*padded)
    torch.testing.assert_close(value, call(teacher, student))
    value.backward()
    assert (states.grad[~padded[1].mask] == 0).all()
    assert (states.grad[padded[1].mask] != 0).all()


def test_a_sample_without_tokens_does_not_count(make_features):
    teacher, student = make_features(6, 5, seed=1), make_features(6, 5, seed=2)
    without = teacher.mask.clone()
    without[1] = False
    found = pooled_mse_loss(teacher.hidden, student.hidden, without, student.mask)
    kept = [0, 2]
    torch.testing.assert_close(
        found, pooled_mse_loss(teacher.hidden[kept], student.hidden[kept], without[kept], student.mask[kept])
    )


def test_a_channel_of_huge_magnitude_is_not_all_that_is_learnt(make_features):
    teacher, student = make_features(6, 5, seed=1), make_features(6, 5, seed=2)
    teacher.hidden[..., 0] += 1e4
    assert call(teacher, student) < 10
