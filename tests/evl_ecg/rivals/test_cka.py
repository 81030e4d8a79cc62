"""Linear CKA: against its definition by covariances, invariances, gradients, sets without variance."""

import pytest
import torch

from hf_evl_ecg.rivals import cka_loss


def states(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_equals_the_definition_by_hsic():
    """CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with HSIC = tr(K H L H) (arXiv 1905.00414, Eq. 3 and 4)."""
    x, y = states(7, 4, 0), states(7, 6, 1)
    k, m, h = x @ x.T, y @ y.T, torch.eye(7, dtype=torch.float64) - 1 / 7

    def hsic(a, b):
        return sum((a @ h @ b @ h)[i, i] for i in range(7))

    expected = 1 - hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()
    torch.testing.assert_close(cka_loss(y, x), expected)


def test_rotation_scale_and_offset_do_not_count():
    x, y = states(7, 4, 0), states(7, 6, 1)
    turn = torch.linalg.qr(states(4, 4, 2)).Q
    torch.testing.assert_close(cka_loss(y, -5 * x @ turn + 3), cka_loss(y, x))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cka_loss(y[order], x[order]), cka_loss(y, x))
    assert cka_loss(x, 2 * x @ turn).abs() < 1e-12
    assert 0.05 < cka_loss(y, x) < 1


def test_gradient_reaches_the_student_alone():
    y, x = states(5, 6, 1).requires_grad_(), states(5, 3, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: cka_loss(y, s), x)
    cka_loss(y, x).backward()
    assert y.grad is None


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_what_does_not_vary_gives_zero_and_no_gradient(rows):
    x = torch.ones(rows, 4, requires_grad=True)
    value = cka_loss(states(rows, 6, 1).float(), x)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_half_precision_is_computed_in_float32():
    x, y = states(7, 4, 0), states(7, 6, 1)
    with torch.autocast("cpu", torch.bfloat16):
        value = cka_loss(y.float(), x.float())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(cka_loss(y, x).item(), rel=1e-4)
