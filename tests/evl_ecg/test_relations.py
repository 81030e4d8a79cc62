"""Relations against a slow loop, hand-made values and the invariances the loss promises."""

import pytest
import torch
import torch.nn.functional as F

from hf_evl_ecg.relations import cosine_relations, distance_relations, relation_loss


def batch(b=3, length=6, d_target=5, d_student=4, dtype=torch.float64, seed=0):
    gen = torch.Generator().manual_seed(seed)
    target = torch.randn(b, length, d_target, generator=gen, dtype=dtype)
    student = torch.randn(b, length, d_student, generator=gen, dtype=dtype)
    mask = torch.ones(b, length, dtype=torch.bool)
    for i in range(b):
        mask[i, length - i :] = False
    return target, student, mask


def rotation(d, seed=0):
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def slow(target, student, mask):
    """The equations, pair by pair."""
    distance_total = angle_total = 0.0
    for t, s, m in zip(target, student, mask, strict=True):
        t, s = t[m], s[m]
        n = len(t)
        psi = []
        for x in (t, s):
            d = torch.stack([torch.stack([(x[i] - x[j]).norm() for j in range(n)]) for i in range(n)])
            psi.append((d / (d.sum() / (n * (n - 1))), F.cosine_similarity(x[:, None], x[None], dim=2)))
        distance_total += (psi[0][0] - psi[1][0]).square().sum() / n**2
        angle_total += (psi[0][1] - psi[1][1]).square().sum() / n**2
    return distance_total / len(target), angle_total / len(target)


def test_equals_the_slow_reference_with_its_gradient():
    target, student, mask = batch()
    student.requires_grad_()
    expected, ours = slow(target, student, mask), relation_loss(target, student, mask)
    for term, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(term, reference)
        torch.testing.assert_close(
            torch.autograd.grad(term, student, retain_graph=True)[0],
            torch.autograd.grad(reference, student, retain_graph=True)[0],
        )


def test_gradcheck_through_the_mean_distance():
    target, student, mask = batch(b=2, length=4)
    assert torch.autograd.gradcheck(lambda s: relation_loss(target, s, mask), student.requires_grad_())


def test_invariances():
    target, student, mask = batch()
    distance, angle = relation_loss(target, student, mask)
    turned = relation_loss(target @ rotation(5), student @ rotation(4), mask)
    torch.testing.assert_close(turned, (distance, angle))
    shifted = relation_loss(7 * target + 2, 0.1 * student - 3, mask)
    torch.testing.assert_close(shifted[0], distance)
    per_token = torch.rand(3, 6, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(relation_loss(target * per_token, 3 * student, mask)[1], angle)
    order = torch.randperm(6)
    torch.testing.assert_close(relation_loss(target[:, order], student[:, order], mask[:, order]), (distance, angle))


def test_zero_exactly_for_a_rotated_and_scaled_copy_only():
    target, _, mask = batch(d_target=4)
    copy = 3 * target @ rotation(4)
    for term in relation_loss(target, copy, mask):
        assert term.item() < 1e-20
    stretched = target * torch.tensor([1.0, 1.0, 1.0, 4.0])
    for term in relation_loss(target, stretched, mask):
        assert term.item() > 1e-3


def test_padding_is_invisible_and_gets_no_gradient():
    target, student, mask = batch()
    expected = relation_loss(target, student, mask)
    wide_t = F.pad(target, (0, 0, 0, 3)).masked_fill(~F.pad(mask, (0, 3))[:, :, None], torch.nan)
    wide_s = F.pad(student, (0, 0, 0, 3)).masked_fill(~F.pad(mask, (0, 3))[:, :, None], torch.nan).requires_grad_()
    terms = relation_loss(wide_t, wide_s, F.pad(mask, (0, 3)))
    torch.testing.assert_close(terms, expected)
    sum(terms).backward()
    assert wide_s.grad[~F.pad(mask, (0, 3))].eq(0).all()
    assert wide_s.grad[F.pad(mask, (0, 3))].abs().min() > 0


def test_detached_target_by_default():
    target, student, mask = batch()
    target.requires_grad_()
    assert not sum(relation_loss(target, student, mask)).requires_grad
    sum(relation_loss(target, student, mask, detach_target=False)).backward()
    assert target.grad[mask].abs().min() > 0


def test_degenerate_samples_stay_finite():
    """One token, no token, all tokens equal, a zero token, duplicates: finite values and gradients."""
    target, student, mask = batch(b=5)
    mask[:] = True
    mask[0, 1:] = False
    mask[1] = False
    student[2] = 1.5
    student[3, 0] = 0
    student[4, 1] = student[4, 0]
    student = student.float().requires_grad_()
    terms = relation_loss(target, student, mask)
    sum(terms).backward()
    assert all(term.isfinite() for term in terms)
    assert student.grad.isfinite().all()
    assert student.grad[:2].abs().max() < 1e-12
    single = relation_loss(target[:1], student[:1], mask[:1])
    assert [term.item() for term in single] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_large_offset_costs_no_precision():
    """Outlier channels shift every token alike; distances in float32 must not see it."""
    _, student, mask = batch(dtype=torch.float32)
    plain = distance_relations(student, mask)
    offset = torch.tensor([0.0, 500.0, 0.0, 0.0])
    torch.testing.assert_close(distance_relations(student + offset, mask), plain, rtol=1e-3, atol=1e-3)
    exact = distance_relations((student + offset).double(), mask)
    torch.testing.assert_close(distance_relations(student + offset, mask).double(), exact, rtol=1e-5, atol=1e-6)


def test_long_samples_use_a_random_subset_and_short_ones_all():
    target, student, mask = batch(b=2, length=60)
    mask[:, 40:] = False
    mask[1, 10:] = False
    gen = torch.Generator()
    draws = {
        relation_loss(target, student, mask, max_tokens=20, subset=15, generator=gen.manual_seed(i)) for i in range(4)
    }
    assert len({term[0].item() for term in draws}) == 4
    again = relation_loss(target, student, mask, max_tokens=20, subset=15, generator=gen.manual_seed(0))
    first = relation_loss(target, student, mask, max_tokens=20, subset=15, generator=gen.manual_seed(0))
    assert torch.equal(torch.stack(again), torch.stack(first))
    full = relation_loss(target, student, mask, max_tokens=40, subset=15)
    torch.testing.assert_close(relation_loss(target, student, mask), full)
    short = relation_loss(target[1:], student[1:], mask[1:], max_tokens=20, subset=15)
    torch.testing.assert_close(short, relation_loss(target[1:], student[1:], mask[1:]))


def test_subset_estimates_the_full_loss_and_touches_valid_tokens_only():
    target, student, mask = batch(b=1, length=400)
    mask[:, 300:] = False
    student = student.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    full = torch.stack(relation_loss(target, student, mask))
    gen = torch.Generator().manual_seed(0)
    draws = [
        torch.stack(relation_loss(target, student, mask, max_tokens=200, subset=100, generator=gen)) for _ in range(20)
    ]
    assert ((torch.stack(draws).mean(0) - full) / full).abs().max() < 0.05
    grad = torch.autograd.grad(draws[0].sum(), student)[0]
    assert (grad.abs().sum(2) > 0).sum() == 100
    assert grad[~mask].eq(0).all()


def test_low_precision_and_errors():
    target, student, mask = batch(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = relation_loss(target, student, mask)
    assert {term.dtype for term in terms} == {torch.float32}
    torch.testing.assert_close(terms, relation_loss(target.float(), student.float(), mask))
    with pytest.raises(ValueError, match="Align the target"):
        relation_loss(target[:, :3], student, mask)
    with pytest.raises(ValueError, match="mask must have the shape"):
        relation_loss(target, student, mask[:, 1:])
    torch.testing.assert_close(relation_loss(target, student, mask.float()), relation_loss(target, student, mask))
    with pytest.raises(ValueError, match="subset=30"):
        relation_loss(target, student, mask, max_tokens=20, subset=30)


def test_cosine_of_a_zero_token_is_zero():
    tokens = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    assert cosine_relations(tokens)[0].tolist() == [[0.0, 0.0], [0.0, pytest.approx(1.0)]]


def slow_weighted(target, student, weights):
    """The weighted equations of one sample, pair by pair."""
    total, results = weights.sum() ** 2, []
    n = len(weights)
    for relation in ("distance", "angle"):
        psi = []
        for x in (target, student):
            d = torch.stack([torch.stack([(x[i] - x[j]).norm() for j in range(n)]) for i in range(n)])
            pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
            mean = sum(weights[i] * weights[j] * d[i, j] for i, j in pairs)
            mean = mean / sum(weights[i] * weights[j] for i, j in pairs)
            psi.append(d / mean if relation == "distance" else F.cosine_similarity(x[:, None], x[None], dim=2))
        squares = (psi[0] - psi[1]).square()
        results.append(sum(weights[i] * weights[j] * squares[i, j] for i in range(n) for j in range(n)) / total)
    return results


def test_weighted_pairs_equal_the_slow_reference_with_gradient():
    target, student, mask = batch(b=1)
    weights = torch.tensor([[0.5, 2.0, 0.1, 1.0, 3.0, 0.7]], dtype=torch.float64)
    student.requires_grad_()
    ours = relation_loss(target, student, mask, weights=weights)
    for term, reference in zip(ours, slow_weighted(target[0], student[0], weights[0]), strict=True):
        torch.testing.assert_close(term, reference)
    assert torch.autograd.gradcheck(lambda s: relation_loss(target, s, mask, weights=weights), student)
    torch.testing.assert_close(relation_loss(target, student, mask, weights=9 * weights), ours)


def test_weights_by_hand():
    """Three points on a line with weights 1, 1, 2: mean distance 2 (1·1·1 + 1·2·3 + 1·2·2) / 2 (1 + 2 + 2) = 11/5."""
    tokens = torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64)
    found = distance_relations(tokens, torch.tensor([[0.5, 0.5, 1.0]]))
    torch.testing.assert_close(found * 11 / 5, torch.cdist(tokens, tokens))


def test_equal_weights_give_the_unweighted_loss_bit_for_bit():
    for limits in ({}, {"max_tokens": 5, "subset": 3}):
        target, student, mask = batch(length=9, dtype=torch.float32)
        terms, grads = [], []
        for weights in (None, torch.full((3, 9), 0.37)):
            leaf, generator = student.clone().requires_grad_(), torch.Generator().manual_seed(0)
            terms.append(torch.stack(relation_loss(target, leaf, mask, weights=weights, generator=generator, **limits)))
            terms[-1].sum().backward()
            grads.append(leaf.grad)
        assert torch.equal(*terms)
        assert torch.equal(*grads)


def test_a_weight_of_zero_is_padding():
    target, student, mask = batch()
    weights = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    weights[:, 1] = 0
    student = student.clone()
    student[:, 1] = 1e6  # far from all others, were it counted
    student.requires_grad_()
    keep = torch.arange(6) != 1
    terms = relation_loss(target, student, mask, weights=weights)
    expected = relation_loss(target[:, keep], student[:, keep], mask[:, keep], weights=weights[:, keep])
    torch.testing.assert_close(terms, expected)
    assert torch.autograd.grad(sum(terms), student)[0][:, 1].eq(0).all()
    with pytest.raises(ValueError, match="not negative"):
        relation_loss(target, student, mask, weights=-weights - 1)
