"""ULD against a slow reference with unequal vocabularies."""

import pytest
import torch
import torch.nn.functional as F

from hf_evl_ecg.chat.token_groups import collate_groups
from hf_evl_ecg.tokens import AnswerGroups
from hf_evl_ecg.uld import uld_loss


def slow_uld(teacher, student, pairs):
    """Sum over ranks, term by term, over (teacher row, student row) pairs of one sample."""
    total = 0.0
    for i, j in pairs:
        p = sorted(teacher[i].softmax(0).tolist(), reverse=True)
        q = sorted(student[j].softmax(0).tolist(), reverse=True)
        width = max(len(p), len(q))
        p, q = p + [0.0] * (width - len(p)), q + [0.0] * (width - len(q))
        total += sum(abs(x - y) for x, y in zip(p, q, strict=True))
    return total / len(pairs)


def logits(b=2, a_t=4, a_s=6, v_t=11, v_s=17, dtype=torch.float64):
    gen = torch.Generator().manual_seed(0)
    teacher = 2 * torch.randn(b, a_t, v_t, generator=gen, dtype=dtype)
    student = 2 * torch.randn(b, a_s, v_s, generator=gen, dtype=dtype)
    return teacher, student, torch.ones(b, a_t, dtype=torch.bool), torch.ones(b, a_s, dtype=torch.bool)


def test_uld_equals_the_slow_reference_with_unequal_vocabularies():
    teacher, student, t_mask, s_mask = logits()
    t_mask[1, 3:] = False
    expected = (
        slow_uld(teacher[0], student[0], [(k, k) for k in range(4)])
        + slow_uld(teacher[1], student[1], [(k, k) for k in range(3)])
    ) / 2
    assert uld_loss(teacher, student, t_mask, s_mask).item() == pytest.approx(expected)
    swapped = uld_loss(student, teacher, s_mask, t_mask)
    assert swapped.item() == pytest.approx(expected)


def test_groups_compare_first_tokens_or_means():
    teacher, student, t_mask, s_mask = logits(b=1)
    groups = AnswerGroups(torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 0, 1, -1, 3, 4]]))
    first = slow_uld(teacher[0], student[0], [(0, 0), (1, 2)])  # groups 2, 3, 4 have one side only
    assert uld_loss(teacher, student, t_mask, s_mask, groups=groups).item() == pytest.approx(first)
    ranked = [F.pad(x[0].softmax(1).sort(1, descending=True).values, (0, 17 - x.shape[2])) for x in (teacher, student)]
    mean = (ranked[0][0] - ranked[1][:2].mean(0)).abs().sum() + (ranked[0][1:3].mean(0) - ranked[1][2]).abs().sum()
    loss = uld_loss(teacher, student, t_mask, s_mask, groups=groups, merge="mean")
    torch.testing.assert_close(loss, mean / 2)


def test_batch_of_groups_equals_samples_one_by_one():
    teacher, student, t_mask, s_mask = logits()
    groups = collate_groups([([0, 1, 2, 3], [0, 0, 1, 2, 3, 3]), ([0, 0, 1], [0, 1, 1, 1])])
    groups = AnswerGroups(F.pad(groups.teacher, (0, 0)), groups.student)
    t_mask[1, 3:], s_mask[1, 4:] = False, False
    both = uld_loss(teacher, student, t_mask, s_mask, groups=groups)
    each = [
        uld_loss(
            teacher[i : i + 1], student[i : i + 1], t_mask[i : i + 1], s_mask[i : i + 1],
            groups=AnswerGroups(groups.teacher[i : i + 1], groups.student[i : i + 1]),
        )
        for i in range(2)
    ]  # fmt: skip
    torch.testing.assert_close(both, sum(each) / 2)


def test_zero_for_permuted_vocabularies_and_gradcheck():
    teacher, _, t_mask, _ = logits()
    assert uld_loss(teacher, teacher[..., torch.randperm(11)], t_mask, t_mask).item() < 1e-14
    teacher, student, t_mask, s_mask = logits(b=1, a_t=2, a_s=2, v_t=4, v_s=5)
    assert torch.autograd.gradcheck(lambda s: uld_loss(teacher, s, t_mask, s_mask), student.requires_grad_())
    assert torch.autograd.gradcheck(lambda s: uld_loss(teacher, s, t_mask, s_mask, top_k=2), student)


def test_temperature_flattens_both_sides():
    teacher, student, t_mask, s_mask = logits()
    expected = uld_loss(teacher / 3, student / 3, t_mask, s_mask)
    torch.testing.assert_close(uld_loss(teacher, student, t_mask, s_mask, temperature=3.0), expected)


def test_top_k_is_a_lower_bound_that_becomes_exact():
    teacher, student, t_mask, s_mask = logits()
    full = uld_loss(teacher, student, t_mask, s_mask)
    bounds = [uld_loss(teacher, student, t_mask, s_mask, top_k=k).item() for k in (1, 3, 9, 17, 40)]
    assert bounds == sorted(bounds)
    assert bounds[0] < full.item()
    assert bounds[-1] == pytest.approx(full.item())


@pytest.mark.parametrize("stored", ["logits", "log-probabilities"])
def test_cached_top_k_logits_equal_top_k_of_the_full_ones(stored):
    teacher, student, t_mask, s_mask = logits()
    cached, norm = teacher.topk(5, dim=2).values, teacher.logsumexp(2)
    if stored == "log-probabilities":
        cached, norm = cached - norm[:, :, None], torch.zeros_like(norm)
    expected = uld_loss(teacher, student, t_mask, s_mask, top_k=5)
    shuffled = cached[..., torch.randperm(5)]
    torch.testing.assert_close(uld_loss(shuffled, student, t_mask, s_mask, teacher_logsumexp=norm), expected)
    with pytest.raises(ValueError, match="normalised at temperature 1"):
        uld_loss(cached, student, t_mask, s_mask, teacher_logsumexp=norm, temperature=2.0)


def test_padding_is_invisible_and_gets_no_gradient():
    teacher, student, t_mask, s_mask = logits()
    t_mask[0, 2:], s_mask[1, 3:] = False, False
    expected = uld_loss(teacher, student, t_mask, s_mask)
    wide_t = F.pad(teacher.masked_fill(~t_mask[:, :, None], torch.nan), (0, 0, 0, 2))
    wide_s = F.pad(student.masked_fill(~s_mask[:, :, None], torch.nan), (0, 0, 0, 3)).requires_grad_()
    loss = uld_loss(wide_t, wide_s, F.pad(t_mask, (0, 2)), F.pad(s_mask, (0, 3)))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert wide_s.grad[~F.pad(s_mask, (0, 3))].eq(0).all()
    assert wide_s.grad[0, :2].abs().sum() > 0


def test_nothing_in_common_is_zero_with_a_graph():
    teacher, student, t_mask, s_mask = logits(b=1)
    nothing = AnswerGroups(torch.full((1, 4), -1), torch.full((1, 6), -1))
    student.requires_grad_()
    for loss in (
        uld_loss(teacher, student, t_mask, s_mask, groups=nothing),
        uld_loss(teacher, student, t_mask & False, s_mask),
        uld_loss(teacher, student, t_mask, s_mask, groups=nothing, merge="mean", top_k=3),
    ):
        assert loss.item() == 0
        loss.backward()


def test_descent_gives_the_student_the_teachers_confidence():
    teacher, student, t_mask, s_mask = logits()
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        loss = uld_loss(teacher, student, t_mask, s_mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_low_precision_and_errors():
    teacher, student, t_mask, s_mask = logits(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = uld_loss(teacher, student, t_mask, s_mask)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, uld_loss(teacher.float(), student.float(), t_mask, s_mask))
    with pytest.raises(ValueError, match="merge='last'"):
        uld_loss(teacher, student, t_mask, s_mask, merge="last")
    with pytest.raises(ValueError, match="temperature=0"):
        uld_loss(teacher, student, t_mask, s_mask, temperature=0.0)
    with pytest.raises(ValueError, match="student_logits must be"):
        uld_loss(teacher, student, t_mask, s_mask.int())
    with pytest.raises(ValueError, match="Teacher has 2 samples, student 1"):
        uld_loss(teacher, student[:1], t_mask, s_mask[:1])
    with pytest.raises(ValueError, match="groups have shapes"):
        uld_loss(teacher, student, t_mask, s_mask, groups=AnswerGroups(t_mask.long()[:, :2], s_mask.long()))
