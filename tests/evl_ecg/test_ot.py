"""The matching loss against a slow reference and finite differences."""

import numpy as np
import ot as pot
import pytest
import torch
import torch.nn.functional as F

from hf_evl_ecg.ot import ot_matching_loss, sinkhorn


def tokens(batch=2, n=7, m=5, d=6, dtype=torch.float64, seed=0):
    gen = torch.Generator().manual_seed(seed)
    teacher = torch.randn(batch, n, d, generator=gen, dtype=dtype)
    student = torch.randn(batch, m, d, generator=gen, dtype=dtype)
    return teacher, student, torch.ones(batch, n, dtype=torch.bool), torch.ones(batch, m, dtype=torch.bool)


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


def masses(n=7, m=5, batch=2, seed=3):
    gen = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, size, generator=gen, dtype=torch.float64) + 0.05 for size in (n, m))


def test_masses_by_hand():
    """One teacher token: every student token goes to it with its mass, ``sum_j b_j |t - s_j|^2``; and the reverse."""
    east, north, west = (
        torch.tensor(v, dtype=torch.float64) for v in ((1, 0), (0, 1), (-1, 0))
    )  # |.-east|^2 = 0, 2, 4
    one, three = east.view(1, 1, 2), torch.stack([east, north, west])[None]
    mask_1, mask_3 = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    weights = torch.tensor([[1.0, 2.0, 1.0]])
    assert ot_matching_loss(one, three, mask_1, mask_3, student_masses=weights).item() == pytest.approx(2)
    weights = torch.tensor([[6.0, 1.0, 1.0]])
    assert ot_matching_loss(three, one, mask_3, mask_1, teacher_masses=weights).item() == pytest.approx((2 + 4) / 8)
    student = three.clone().requires_grad_()
    weights = torch.tensor([[1.0, 2.0, 1.0]])
    assert torch.autograd.gradcheck(
        lambda s: ot_matching_loss(one, s, mask_1, mask_3, student_masses=weights), student
    )  # the plan is the masses whatever the student does, so the envelope gradient is the whole one


def test_loss_with_masses_equals_pot():
    teacher, student, t_mask, s_mask = tokens()
    t_mask[1, 5:] = False
    a, b = masses()
    total = 0.0
    for t, s, x, y, valid in zip(teacher, student, a, b, t_mask, strict=True):
        t, s, x = F.normalize(t[valid], dim=1), F.normalize(s, dim=1), (x[valid] / x[valid].sum()).numpy()
        y = (y / y.sum()).numpy()
        cost = torch.cdist(t, s).square()
        scaled = cost.numpy() / (x @ cost.numpy() @ y)
        plan = pot.sinkhorn(x, y, scaled, 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-14)
        total += float((torch.from_numpy(plan) * cost).sum())
    weights = {"teacher_masses": a, "student_masses": b}
    for backend in ("torch", "pot"):
        loss = ot_matching_loss(
            teacher, student, t_mask, s_mask, epsilon=0.1, max_iter=3000, backend=backend, **weights
        )
        assert loss.item() == pytest.approx(total / 2, rel=1e-7)


def test_gradient_with_masses_is_the_envelope_gradient():
    teacher, student, t_mask, s_mask = tokens(n=6, m=4)
    a, b = masses(6, 4)
    student = F.normalize(student, dim=2).requires_grad_()
    a.requires_grad_()
    ot_matching_loss(teacher, student, t_mask, s_mask, teacher_masses=a, student_masses=b).backward()
    assert a.grad is None
    with torch.no_grad():
        t, x, y = F.normalize(teacher, dim=2), a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
        cost = torch.cdist(t, student).square()
        plan = sinkhorn(cost / torch.einsum("bi,bij,bj->b", x, cost, y)[:, None, None], x, y)
        raw = plan.sum(1)[:, :, None] * student - plan.mT @ t  # 2 / batch of 2
        torch.testing.assert_close(student.grad, raw - (raw * student).sum(2, keepdim=True) * student)


def test_equal_masses_of_any_size_give_the_uniform_loss_bit_for_bit():
    for dtype in (torch.float32, torch.bfloat16):
        teacher, student, t_mask, s_mask = tokens(n=37, m=23, dtype=torch.float32)
        teacher, student = teacher.to(dtype), student.to(dtype)
        t_mask[0, 30:] = False
        losses, grads = [], []
        for weights in ({}, {"teacher_masses": torch.full((2, 37), 0.37), "student_masses": torch.full((2, 23), 3e-9)}):
            leaf = student.clone().requires_grad_()
            losses.append(ot_matching_loss(teacher, leaf, t_mask, s_mask, **weights))
            losses[-1].backward()
            grads.append(leaf.grad)
        assert torch.equal(*losses)
        assert torch.equal(*grads)


def test_zero_mass_is_padding_and_scale_does_not_matter():
    teacher, student, t_mask, s_mask = tokens()
    a, b = masses()
    a[:, 5:], b[0, 0] = 0, 0
    s_short = s_mask.clone()
    s_short[0, 0] = False
    student.requires_grad_()
    loss = ot_matching_loss(teacher, student, t_mask, s_mask, teacher_masses=a, student_masses=b)
    cut = ot_matching_loss(teacher[:, :5], student, t_mask[:, :5], s_short, teacher_masses=a[:, :5], student_masses=b)
    torch.testing.assert_close(loss, cut)
    assert torch.autograd.grad(loss, student)[0][0, 0].eq(0).all()
    scaled = {"teacher_masses": 1000 * a, "student_masses": torch.tensor([[0.01], [70.0]]) * b}
    torch.testing.assert_close(ot_matching_loss(teacher, student, t_mask, s_mask, **scaled), loss)
    a[1] = 0  # nothing to match in the second sample
    alone = {"teacher_masses": a[:1], "student_masses": b[:1]}
    torch.testing.assert_close(
        ot_matching_loss(teacher, student, t_mask, s_mask, teacher_masses=a, student_masses=b),
        ot_matching_loss(teacher[:1], student[:1], t_mask[:1], s_mask[:1], **alone),
    )


def test_masses_that_cannot_be_are_refused():
    teacher, student, t_mask, s_mask = tokens()
    for bad in (-torch.ones(2, 7), torch.full((2, 7), torch.nan), torch.full((2, 7), torch.inf)):
        with pytest.raises(ValueError, match="finite and not negative"):
            ot_matching_loss(teacher, student, t_mask, s_mask, teacher_masses=bad)
    with pytest.raises(ValueError, match=r"weights=\(2, 4\)"):
        ot_matching_loss(teacher, student, t_mask, s_mask, student_masses=torch.ones(2, 4))
