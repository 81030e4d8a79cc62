"""Sinkhorn against POT, exact transport and hand-made plans."""

import sys

import numpy as np
import ot as pot
import pytest
import torch
import torch.nn.functional as F
from ot.batch import solve_batch
from torch.utils._python_dispatch import TorchDispatchMode

import hf_evl_ecg.sinkhorn
from hf_evl_ecg.sinkhorn import marginal_error, sinkhorn


def problem(batch=3, n=20, m=13, dtype=torch.float64, seed=0, ragged=True):
    """Random costs in [0, 1] with random masses; with ``ragged`` the last rows and columns of some samples are padding."""
    gen = torch.Generator().manual_seed(seed)
    cost = torch.rand(batch, n, m, generator=gen, dtype=dtype)
    a = torch.rand(batch, n, generator=gen, dtype=dtype) + 0.1
    b = torch.rand(batch, m, generator=gen, dtype=dtype) + 0.1
    if ragged:
        for i in range(batch):
            a[i, n - 2 * i :] = 0
            b[i, m - i :] = 0
    return cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)


def test_two_by_two_has_the_closed_form():
    eps = 0.3
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    on = 0.5 / (1 + np.exp(-1 / eps))  # symmetric problem: the plan is the kernel, normalised
    expected = torch.tensor([[[on, 0.5 - on], [0.5 - on, on]]], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(cost, half, half, epsilon=eps), expected)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.5, 0.05])
def test_equals_pot_sample_by_sample(epsilon, chunk_size):
    cost, a, b = problem()
    plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=5000, tol=1e-13, chunk_size=chunk_size)
    for i in range(len(cost)):
        rows, columns = a[i] > 0, b[i] > 0
        reference = pot.sinkhorn(
            a[i, rows].numpy(), b[i, columns].numpy(), cost[i][rows][:, columns].numpy(), epsilon,
            method="sinkhorn_log", numItermax=20000, stopThr=1e-14,
        )  # fmt: skip
        np.testing.assert_allclose(plan[i][rows][:, columns].numpy(), reference, rtol=1e-7, atol=1e-12)
        assert plan[i][~rows].abs().sum() == 0
        assert plan[i][:, ~columns].abs().sum() == 0


def test_equals_pot_batch_solver():
    cost, a, b = problem(ragged=False)
    expected = solve_batch(cost, 0.05, a, b, max_iter=3000, tol=0, method="log_sinkhorn", grad="detach").plan
    torch.testing.assert_close(sinkhorn(cost, a, b, epsilon=0.05, max_iter=3000), expected, rtol=1e-9, atol=1e-13)


def test_pot_backend_takes_the_same_problem():
    cost, a, b = problem()
    cost[1, -1] = torch.nan  # a padded row
    ours = sinkhorn(cost, a, b, epsilon=0.1, max_iter=2000)
    theirs = sinkhorn(cost, a, b, epsilon=0.1, max_iter=2000, backend="pot")
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)


def test_missing_pot_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot.batch", None)
    with pytest.raises(ImportError, match="pip install"):
        sinkhorn(*problem(), backend="pot")


def test_tends_to_exact_transport():
    cost, a, b = problem(n=9, m=9, ragged=False)
    exact = np.array([pot.emd2(x.numpy(), y.numpy(), c.numpy()) for c, x, y in zip(cost, a, b, strict=True)])
    gaps = []
    for epsilon in (0.1, 0.01, 1e-3):
        plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=100_000, tol=1e-9)
        gaps.append(((plan * cost).sum((1, 2)).numpy() - exact).max())
    assert gaps[0] > gaps[1] > gaps[2] > -1e-8
    assert gaps[2] < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.05, 1e-2, 1e-3])
def test_small_epsilon_stays_finite_and_follows_the_log_domain(epsilon, dtype):
    """Same iterates as log-domain Sinkhorn from the same start, also where the kernel of the plain form underflows."""
    cost, a, b = problem(batch=2, n=40, m=30, dtype=dtype)
    plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=200)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(1), b, rtol=1e-5, atol=1e-7)
    wide, log_a, log_b = cost.double() / -epsilon, a.double().log(), b.double().log()
    f = (cost.masked_fill(b[:, None] == 0, torch.inf)).amin(2).double()
    v = (cost.double() - f[:, :, None]).masked_fill(a[:, :, None] == 0, torch.inf).amin(1) / epsilon + log_b
    for _ in range(200):
        u = log_a - torch.logsumexp(wide + v[:, None], 2)
        v = log_b - torch.logsumexp(wide + u[:, :, None], 1)
    reference = (wide + u[:, :, None] + v[:, None]).exp()
    atol = 2e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(plan.double(), reference, rtol=0, atol=atol)


def test_absorption_survives_costs_far_beyond_the_kernels_range():
    """One row and one column lie 1000 epsilon away from the rest: their kernel is zero in any float format."""
    cost = torch.rand(1, 12, 12)
    cost[0, 0] += 1000
    cost[0, :, 3] += 1000
    mass = torch.full((1, 12), 1 / 12)
    plan = sinkhorn(cost, mass, mass, epsilon=1.0, max_iter=500)
    base = cost - 1000 * (torch.arange(12) == 0)[None, :, None] - 1000 * (torch.arange(12) == 3)
    torch.testing.assert_close(plan, sinkhorn(base, mass, mass, epsilon=1.0, max_iter=500), rtol=2e-3, atol=1e-6)


def test_absorption_keeps_float32_on_the_path_of_float64(monkeypatch):
    """Potentials that travel far: float32 must rebuild its kernel many times and still follow float64."""
    rebuilds = []
    rebuild = hf_evl_ecg.sinkhorn._rebuild_kernel
    monkeypatch.setattr(hf_evl_ecg.sinkhorn, "_rebuild_kernel", lambda *args: (rebuilds.append(1), rebuild(*args)))
    x = torch.linspace(0, 1, 64)[None]
    cost, mass = (x[:, :, None] - x[:, None].square()).square(), torch.full((1, 64), 1 / 64)
    plan = sinkhorn(cost, mass, mass, epsilon=1e-4, max_iter=3000)
    assert len(rebuilds) > 20
    reference = sinkhorn(cost.double(), mass.double(), mass.double(), epsilon=1e-4, max_iter=3000)
    assert (plan - reference).abs().sum() < 1e-4


class LargeStorages(TorchDispatchMode):
    """Addresses of all storages of at least ``size`` elements that operations return."""

    def __init__(self, size):
        super().__init__()
        self.size, self.addresses = size, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= 4 * self.size:
                self.addresses.add(tensor.untyped_storage().data_ptr())
        return result


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_memory_is_two_cost_matrices(chunk_size):
    """No operation makes a tensor as large as one sample's cost, except the plan: the kernel lives in it."""
    cost, a, b = problem(n=60, m=50, dtype=torch.float32)
    with LargeStorages(cost[0].numel()) as seen:
        plan = sinkhorn(cost, a, b, epsilon=0.05, tol=1e-6, chunk_size=chunk_size)
    new = seen.addresses - {cost.untyped_storage().data_ptr()}
    assert new == {plan.untyped_storage().data_ptr()}


def test_marginals_within_tolerance_and_frozen_after_it():
    cost, a, b = problem(batch=4, dtype=torch.float32)
    cost[2] *= 30  # converges much later than the others
    together = sinkhorn(cost, a, b, epsilon=0.1, max_iter=2000, tol=1e-4, chunk_size=4)
    assert (marginal_error(together, a, b) <= 1.2e-4).all()
    for i in range(4):
        alone = sinkhorn(cost[i : i + 1], a[i : i + 1], b[i : i + 1], epsilon=0.1, max_iter=2000, tol=1e-4)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-8)
    tighter = sinkhorn(cost, a, b, epsilon=0.1, max_iter=2000, tol=1e-5, chunk_size=4)
    assert (marginal_error(tighter, a, b) < marginal_error(together, a, b)).all()


@pytest.mark.parametrize("tol", [0.0, 1e-4])
@pytest.mark.parametrize("chunk_size", [1, 4])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_sample_changes_no_other(bad, chunk_size, tol):
    cost, a, b = problem(batch=4, dtype=torch.float32)
    clean = sinkhorn(cost, a, b, epsilon=1e-2, max_iter=300, tol=tol, chunk_size=chunk_size)
    cost[1, 2] = bad
    plan = sinkhorn(cost, a, b, epsilon=1e-2, max_iter=300, tol=tol, chunk_size=chunk_size)
    others = [0, 2, 3]
    assert torch.equal(plan[others], clean[others])
    assert not plan[1].isfinite().all()


def test_infinite_cost_forbids_a_pair():
    cost, a, b = problem(ragged=False)
    cost[:, 0, 1:] = torch.inf
    cost[:, 1:, 0] = torch.inf
    a[:, 0] = b[:, 0] = 0.2
    a[:, 1:] *= 0.8 / a[:, 1:].sum(1, keepdim=True)
    b[:, 1:] *= 0.8 / b[:, 1:].sum(1, keepdim=True)
    plan = sinkhorn(cost, a, b, max_iter=500)
    torch.testing.assert_close(plan[:, 0, 0], a[:, 0])
    assert plan[:, 0, 1:].abs().sum() == 0


def test_padding_is_invisible_and_permutation_carries_over():
    cost, a, b = problem(ragged=False)
    plan = sinkhorn(cost, a, b)
    wide = sinkhorn(F.pad(cost, (0, 4, 0, 3), value=torch.nan), F.pad(a, (0, 3)), F.pad(b, (0, 4)))
    torch.testing.assert_close(wide[:, :20, :13], plan)
    assert wide[:, 20:].abs().sum() + wide[:, :, 13:].abs().sum() == 0
    rows, columns = torch.randperm(20), torch.randperm(13)
    shuffled = sinkhorn(cost[:, rows][:, :, columns], a[:, rows], b[:, columns])
    torch.testing.assert_close(shuffled, plan[:, rows][:, :, columns])


def test_a_sample_without_tokens_gets_an_empty_plan():
    cost, a, b = problem(ragged=False)
    a[1] = b[1] = 0
    plan = sinkhorn(cost, a, b, tol=1e-6, max_iter=500, chunk_size=3)
    assert plan[1].abs().sum() == 0
    assert (marginal_error(plan, a, b) < 1e-5).all()


def test_dtypes_and_autocast():
    cost, a, b = problem(dtype=torch.float32)
    assert sinkhorn(cost.double(), a, b).dtype == torch.float64
    low = cost.bfloat16()
    assert torch.equal(sinkhorn(low, a, b), sinkhorn(low.float(), a, b))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinkhorn(cost, a, b), sinkhorn(cost.requires_grad_(), a, b))
    assert not sinkhorn(cost, a, b).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"backend": "geomloss"}, "backend='geomloss'"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(*problem(), **change)


def test_bad_problems():
    cost, a, b = problem()
    with pytest.raises(ValueError, match=r"cost must be \(B, N, M\)"):
        sinkhorn(cost, b, a)
    with pytest.raises(ValueError, match="sample 0 differ: a sums to 2"):
        sinkhorn(cost, 2 * a, b)
    with pytest.raises(ValueError, match="negative"):
        sinkhorn(cost, -a, b)
