"""RKD: against loops over pairs and triplets, invariances, coinciding samples, bounded memory."""

import math

import pytest
import torch

from hf_evl_ecg.rivals import rkd_angle_loss, rkd_distance_loss


def points(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def slow_distances(x):
    n = len(x)
    d = [[math.dist(x[i], x[j]) for j in range(n)] for i in range(n)]
    mean = sum(map(sum, d)) / (n * (n - 1))
    return [[v / mean for v in row] for row in d]


def cosine_at(x, i, j, k):
    """Cosine of the angle at j."""
    if j in (i, k):
        return 0.0
    a, b = [u - v for u, v in zip(x[i], x[j])], [u - v for u, v in zip(x[k], x[j])]
    return sum(u * v for u, v in zip(a, b)) / (math.hypot(*a) * math.hypot(*b))


def test_distance_equals_a_loop_over_pairs():
    teacher, student = points(5, 7, 0), points(5, 4, 1)
    t, s = slow_distances(teacher.tolist()), slow_distances(student.tolist())
    expected = sum(huber(s[i][j] - t[i][j]) for i in range(5) for j in range(5)) / 25
    assert rkd_distance_loss(teacher, student).item() == pytest.approx(expected, rel=1e-9)


def test_angle_equals_a_loop_over_triplets():
    teacher, student = points(5, 7, 0), points(5, 4, 1)
    t, s, n = teacher.tolist(), student.tolist(), range(5)
    total = sum(huber(cosine_at(s, i, j, k) - cosine_at(t, i, j, k)) for i in n for j in n for k in n)
    assert rkd_angle_loss(teacher, student).item() == pytest.approx(total / 125, rel=1e-9)


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
def test_rotation_scale_and_translation_do_not_count(loss):
    teacher, student = points(6, 5, 0), points(6, 5, 1)
    turn = torch.linalg.qr(points(5, 5, 2)).Q
    torch.testing.assert_close(loss(teacher, 3 * student @ turn + 2), loss(teacher, student))
    assert loss(teacher, 3 * teacher @ turn + 2) < 1e-12


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
def test_gradient_reaches_the_student_alone(loss):
    teacher, student = points(4, 5, 0).requires_grad_(), points(4, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(teacher, s), student)
    loss(teacher, student).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_give_zero_with_a_graph(loss, count):
    student = points(count, 3, 1).requires_grad_()
    value = loss(points(count, 5, 0), student)
    value.backward()
    assert student.grad.isfinite().all()
    assert value.item() == pytest.approx(0)


def test_samples_that_coincide_have_a_bounded_gradient():
    student = points(4, 3, 1).float()
    student[1] = student[0]
    student.requires_grad_()
    rkd_angle_loss(points(4, 5, 0).float(), student).backward()
    assert student.grad.abs().max() < 10


def test_triplets_are_bounded():
    teacher, student = points(9, 5, 0), points(9, 3, 1)
    torch.testing.assert_close(
        rkd_angle_loss(teacher, student, max_samples=4), rkd_angle_loss(teacher[:4], student[:4])
    )
