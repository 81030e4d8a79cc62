"""EM-KD: the assignment against every permutation, the terms against loops, padding on both sides, memory of affinities."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from hf_evl_ecg.rivals import affinity_loss, hungarian_loss
from hf_evl_ecg.rivals.hungarian import match_tokens


def tokens(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def best_pairs(teacher, student):
    """The cheapest one-to-one assignment, by trying all of them."""
    short, long = sorted((teacher, student), key=len)
    cost = [
        (sum(float((short[i] - long[j]).abs().sum()) for i, j in enumerate(chosen)), chosen)
        for chosen in permutations(range(len(long)), len(short))
    ]
    pairs = set(enumerate(min(cost)[1]))
    return pairs if short is teacher else {(j, i) for i, j in pairs}


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 3), (2, 5)])
def test_the_assignment_is_the_cheapest_of_all(n, m):
    teacher, student = tokens(n, 3, 0), tokens(m, 3, 1)
    everyone = torch.ones(1, n, dtype=torch.bool), torch.ones(1, m, dtype=torch.bool)
    t, s, mask = match_tokens(teacher[None], student[None], *everyone)
    assert mask.all()
    assert set(zip(t[0].tolist(), s[0].tolist(), strict=True)) == best_pairs(teacher, student)


def padded(rows, width, junk, left=False):
    """Samples of different lengths, padded to a width."""
    states = torch.full((len(rows), width, rows[0].shape[1]), junk)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        at = slice(width - len(row), None) if left else slice(0, len(row))
        states[i, at], mask[i, at] = row, True
    return states, mask


@pytest.mark.parametrize("left", [False, True])
def test_padding_is_never_matched(left):
    teacher, student = [tokens(4, 3, 0), tokens(3, 3, 1)], [tokens(3, 3, 2), tokens(5, 3, 3)]
    alone = [
        hungarian_loss(t[None], s[None], match_tokens(t[None], s[None], *_full(t, s))) for t, s in zip(teacher, student)
    ]
    (t, t_mask), (s, s_mask) = padded(teacher, 7, float("nan"), left), padded(student, 6, float("inf"), left)
    s.requires_grad_()
    value = hungarian_loss(t, s, match_tokens(t, s, t_mask, s_mask))
    torch.testing.assert_close(value, sum(alone) / 2)
    value.backward()
    assert (s.grad[~s_mask] == 0).all()
    assert s.grad.isfinite().all()


def _full(t, s):
    return torch.ones(1, len(t), dtype=torch.bool), torch.ones(1, len(s), dtype=torch.bool)


def test_matched_tokens_are_compared_by_huber():
    teacher, student = torch.tensor([[[0.0, 0.0], [9.0, 9.0]]]), torch.tensor([[[9.0, 6.0], [0.5, 0.0]]])
    everyone = torch.ones(1, 2, dtype=torch.bool)
    value = hungarian_loss(teacher, student, match_tokens(teacher, student, everyone, everyone))
    assert value.item() == pytest.approx((0.5 * 0.5**2 + (3 - 0.5)) / 4)


def test_a_permutation_of_the_students_tokens_changes_nothing():
    teacher, student = tokens(6, 3, 0)[None], tokens(5, 3, 1)[None]
    masks = _full(teacher[0], student[0])
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    values = [hungarian_loss(teacher, s, match_tokens(teacher, s, *masks)) for s in (student, student[:, order])]
    torch.testing.assert_close(*values)


def test_a_sample_without_tokens_does_not_count():
    (t, t_mask), (s, s_mask) = (
        padded([tokens(4, 3, 0), tokens(3, 3, 1)], 4, 0.0),
        padded([tokens(2, 3, 2), tokens(2, 3, 3)], 2, 0.0),
    )
    t_mask[1] = False
    value = hungarian_loss(t, s, match_tokens(t, s, t_mask, s_mask))
    torch.testing.assert_close(value, hungarian_loss(t[:1], s[:1], match_tokens(t[:1], s[:1], t_mask[:1], s_mask[:1])))
    t_mask[0] = False
    assert hungarian_loss(t, s, match_tokens(t, s, t_mask, s_mask)) == 0


def test_affinity_equals_a_loop_over_groups_and_matches(make_features, groups):
    """Words of three samples against their own visual states, each model in its own space."""
    teacher = make_features(6, 5, (5, 4, 6), (3, 2, 3), seed=1)
    student = make_features(4, 5, (4, 5, 6), (4, 2, 2), seed=2)
    matches = match_tokens(teacher.hidden[..., :4], student.hidden, teacher.mask, student.mask)
    sides = [  # a group's words of each sample: positions in the answer, by hand from the fixture
        [[[0], [1], [2]], [[0], [1]], [[0, 1]]],
        [[[0, 1], [2], [3]], [[0], [1]], [[0]]],
    ]
    expected = []
    for row in range(3):
        values = []
        for t_words, s_words in zip(sides[0][row], sides[1][row], strict=True):
            for pair in matches[2][row].nonzero().flatten().tolist():
                cosines = []
                for features, words, index in ((teacher, t_words, matches[0]), (student, s_words, matches[1])):
                    word = features.hidden[row, features.answer_index[row, words]].mean(0)
                    cosines.append(F.cosine_similarity(word, features.hidden[row, index[row, pair]], dim=0))
                values.append(F.smooth_l1_loss(cosines[1], cosines[0]))
        expected.append(sum(values) / len(values))
    found = affinity_loss(teacher, student, matches, groups)
    torch.testing.assert_close(found, sum(expected) / 3)


def test_affinity_ignores_padding_and_the_teacher_gets_no_gradient(make_features, groups):
    def value(extra, junk):
        teacher = make_features(6, 5, (5, 4, 6), (3, 2, 3), seed=1, extra=extra, junk=junk)
        student = make_features(4, 5, (4, 5, 6), (4, 2, 2), seed=2, extra=extra, junk=junk)
        wide = [F.pad(side, (0, extra), value=-1) for side in (groups.teacher, groups.student)]
        leaves = teacher.hidden.requires_grad_(), student.hidden.requires_grad_()
        matches = match_tokens(teacher.hidden[..., :4], student.hidden, teacher.mask, student.mask)
        loss = affinity_loss(teacher, student, matches, replace(groups, teacher=wide[0], student=wide[1]))
        loss.backward()
        assert leaves[0].grad is None
        assert (leaves[1].grad[~student.mask] == 0).all()
        return loss.detach()

    torch.testing.assert_close(value(0, 0.0), value(3, float("nan")))
