"""Sinkhorn against POT, exact transport and hand-made plans; the matching loss against finite differences."""

import sys

import numpy as np
import ot as pot
import pytest
import torch
import torch.nn.functional as F
from ot.batch import solve_batch
from torch.utils._python_dispatch import TorchDispatchMode

import hf_evl_ecg.sinkhorn
from hf_evl_ecg.ot import marginal_error, ot_matching_loss, sinkhorn


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


def tokens(batch=2, n=7, m=5, d=6, dtype=torch.float64, seed=0):
    gen = torch.Generator().manual_seed(seed)
    teacher = torch.randn(batch, n, d, generator=gen, dtype=dtype)
    student = torch.randn(batch, m, d, generator=gen, dtype=dtype)
    return teacher, student, torch.ones(batch, n, dtype=torch.bool), torch.ones(batch, m, dtype=torch.bool)


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


def test_loss_equals_a_slow_reference():
    teacher, student, t_mask, s_mask = tokens()
    t_mask[1, 5:] = False
    s_mask[0, 3:] = False
    total = 0.0
    for t, s, tm, sm in zip(teacher, student, t_mask, s_mask, strict=True):
        t, s = F.normalize(t[tm], dim=1), F.normalize(s[sm], dim=1)
        cost = torch.cdist(t, s).square()
        a, b = np.full(len(t), 1 / len(t)), np.full(len(s), 1 / len(s))
        plan = pot.sinkhorn(
            a, b, (cost / cost.mean()).numpy(), 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-14
        )
        total += float((torch.from_numpy(plan) * cost).sum())
    loss = ot_matching_loss(teacher, student, t_mask, s_mask, epsilon=0.1, max_iter=3000)
    assert loss.item() == pytest.approx(total / 2, rel=1e-8)
    for backend in ("torch", "pot"):
        other = ot_matching_loss(teacher, student, t_mask, s_mask, epsilon=0.1, max_iter=3000, backend=backend)
        torch.testing.assert_close(other, loss)


def test_gradient_is_the_envelope_gradient():
    """Finite differences of <P, C> with the plan held, and 2 (b_j s_j - sum_i P_ij t_i) carried through the norm."""
    teacher, student, t_mask, s_mask = tokens()
    student.requires_grad_()
    ot_matching_loss(teacher, student, t_mask, s_mask).backward()
    t = F.normalize(teacher, dim=2)

    def cost_of(x):
        return torch.cdist(t, F.normalize(x, dim=2), compute_mode="donot_use_mm_for_euclid_dist").square()

    with torch.no_grad():
        cost = cost_of(student)
        a, b = torch.full((2, 7), 1 / 7, dtype=torch.float64), torch.full((2, 5), 1 / 5, dtype=torch.float64)
        plan = sinkhorn(cost / cost.mean((1, 2), keepdim=True), a, b)
        for index in [(0, 0, 0), (0, 4, 2), (1, 2, 5)]:
            step = torch.zeros_like(student)
            step[index] = 1e-6
            held = [(plan * cost_of(student + sign * step)).sum() / 2 for sign in (1, -1)]
            assert student.grad[index].item() == pytest.approx(((held[0] - held[1]) / 2e-6).item(), rel=1e-5, abs=1e-9)
    on_sphere = F.normalize(student.detach(), dim=2).requires_grad_()
    ot_matching_loss(teacher, on_sphere, t_mask, s_mask).backward()
    raw = (2 * (plan.sum(1)[:, :, None] * on_sphere - plan.mT @ t) / 2).detach()
    tangential = raw - (raw * on_sphere).sum(2, keepdim=True) * on_sphere
    torch.testing.assert_close(on_sphere.grad, tangential.detach())


def test_converged_gradient_equals_the_gradient_of_the_value():
    """At the optimum the value <P, C> - eps H(P) has the gradient of its linear part with P held (Danskin)."""
    teacher, student, _, _ = tokens(batch=1)
    t = F.normalize(teacher, dim=2)
    a, b = torch.full((1, 7), 1 / 7, dtype=torch.float64), torch.full((1, 5), 1 / 5, dtype=torch.float64)

    def value(x):
        cost = torch.cdist(t, x, compute_mode="donot_use_mm_for_euclid_dist").square()
        plan = sinkhorn(cost, a, b, epsilon=0.5, max_iter=2000)
        return ((plan * cost).sum() + 0.5 * (plan * plan.log()).sum()).item(), plan

    x = F.normalize(student, dim=2)
    plan = value(x)[1]
    expected = 2 * (b[:, :, None] * x - plan.mT @ t)
    step = torch.zeros_like(x)
    step[0, 2, 3] = 1e-5
    assert (value(x + step)[0] - value(x - step)[0]) / 2e-5 == pytest.approx(expected[0, 2, 3].item(), rel=1e-6)


def test_loss_ignores_padding_and_gives_it_no_gradient():
    teacher, student, t_mask, s_mask = tokens()
    expected = ot_matching_loss(teacher, student, t_mask, s_mask)
    wide_t, wide_s = F.pad(teacher, (0, 0, 0, 3), value=torch.nan), F.pad(student, (0, 0, 0, 2), value=torch.nan)
    wide_s.requires_grad_()
    loss = ot_matching_loss(wide_t, wide_s, F.pad(t_mask, (0, 3)), F.pad(s_mask, (0, 2)))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert wide_s.grad[:, 5:].eq(0).all()
    assert wide_s.grad[:, :5].abs().sum() > 0


def test_samples_without_tokens_do_not_count():
    teacher, student, t_mask, s_mask = tokens(batch=3)
    expected = ot_matching_loss(teacher[:1], student[:1], t_mask[:1], s_mask[:1])
    t_mask[1], s_mask[2] = False, False
    student.requires_grad_()
    loss = ot_matching_loss(teacher, student, t_mask, s_mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad[1:].eq(0).all()
    empty = ot_matching_loss(teacher, student, t_mask & False, s_mask)
    assert empty.item() == 0
    assert empty.requires_grad


def test_loss_is_invariant_to_scale_and_order():
    teacher, student, t_mask, s_mask = tokens()
    expected = ot_matching_loss(teacher, student, t_mask, s_mask)
    order_t, order_s = torch.randperm(7), torch.randperm(5)
    torch.testing.assert_close(
        ot_matching_loss(3 * teacher[:, order_t], 7 * student[:, order_s], t_mask, s_mask), expected
    )


def test_descent_moves_the_student_onto_the_teacher():
    teacher, student, t_mask, s_mask = tokens(n=5, m=5)
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = None
    for _ in range(150):
        loss = ot_matching_loss(teacher, student, t_mask, s_mask, epsilon=0.01)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02 * first


def test_positions_decide_between_equal_features():
    """Four equal-looking patches: only position tells which is which; the loss itself stays on features."""
    centres = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    direction = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    teacher = direction + 0.1 * torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    student = teacher.flip(1).clone()  # each patch looks exactly like the opposite one
    features_only = ot_matching_loss(teacher, student, mask, mask, epsilon=0.01)
    with_positions = ot_matching_loss(
        teacher,
        student,
        mask,
        mask,
        epsilon=0.01,
        position_weight=1.0,
        teacher_positions=centres,
        student_positions=centres,
    )
    matched = (F.normalize(teacher, dim=2) - F.normalize(student, dim=2)).square().sum() / 4
    assert features_only.item() < 0.1 * matched.item()
    assert with_positions.item() == pytest.approx(matched.item(), rel=1e-3)
    with pytest.raises(ValueError, match="needs teacher_positions"):
        ot_matching_loss(teacher, student, mask, mask, position_weight=0.5)
    with pytest.raises(ValueError, match="position_weight=2"):
        ot_matching_loss(teacher, student, mask, mask, position_weight=2)


def test_low_precision_input_gives_a_float32_loss():
    teacher, student, t_mask, s_mask = tokens(dtype=torch.float32)
    low_t, low_s = teacher.bfloat16(), student.bfloat16().requires_grad_()
    expected = ot_matching_loss(low_t.float(), low_s.detach().float(), t_mask, s_mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ot_matching_loss(low_t, low_s, t_mask, s_mask)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert low_s.grad.dtype == torch.bfloat16


def test_teacher_is_a_constant_and_shapes_are_checked():
    teacher, student, t_mask, s_mask = tokens()
    teacher.requires_grad_()
    assert not ot_matching_loss(teacher, student, t_mask, s_mask).requires_grad
    with pytest.raises(ValueError, match="Project the student"):
        ot_matching_loss(teacher, student[..., :4], t_mask, s_mask)
    with pytest.raises(ValueError, match="student_mask must have the shape"):
        ot_matching_loss(teacher, student, t_mask, s_mask[:, 1:])
    as_integers = ot_matching_loss(teacher, student, t_mask.long(), s_mask.long())
    assert torch.equal(as_integers, ot_matching_loss(teacher, student, t_mask, s_mask))
