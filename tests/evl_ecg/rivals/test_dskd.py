"""DSKD-CMA: against a loop over tokens, padding that teaches nothing, what each term trains, samples without answers."""

import math

import pytest
import torch
from torch import nn

from hf_evl_ecg.rivals.dskd import AnswerSide, CrossModelProjectors, cross_model_attention, dskd_terms

D_S, D_T, V_S, V_T = 4, 6, 7, 9
NAMES = ("t2s_ce", "t2s", "s2t")


def side(dim, vocab, lengths, seed, *, width=None, junk=0.0, dtype=torch.float64):
    """Answers of several samples, padded on the right with anything."""
    gen = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    parts = [torch.full((len(lengths), width, size), junk, dtype=dtype) for size in (dim, dim, dim, vocab)]
    ids = torch.full((len(lengths), width), -100)
    for row, n in enumerate(lengths):
        mask[row, :n] = True
        for part in parts:
            part[row, :n] = 2 * torch.randn(n, part.shape[2], generator=gen, dtype=torch.float64).to(dtype)
        ids[row, :n] = torch.randint(vocab, (n,), generator=gen)
    return AnswerSide(*parts, ids, mask)


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return CrossModelProjectors(D_S, D_T).double()


@pytest.fixture
def heads():
    gen = torch.Generator().manual_seed(5)
    return [torch.randn(v, d, generator=gen, dtype=torch.float64) for v, d in ((V_S, D_S), (V_T, D_T))]


def softmax(values):
    top = max(values)
    exps = [math.exp(v - top) for v in values]
    return [e / sum(exps) for e in exps]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow(teacher, student, maps, heads, temperature):
    """Sample by sample and token by token, without any padding; as the paper's Eq. 6 to 11, with the code's normalisation."""
    totals = {name: [] for name in NAMES}
    for row in range(len(teacher.mask)):
        n, m = int(teacher.mask[row].sum()), int(student.mask[row].sum())
        t = [part[row, :n] for part in teacher[:5]]
        s = [part[row, :m] for part in student[:5]]
        keys = torch.cat([t[1], t[2]], 1)
        keys = keys / keys.std()
        values = t[0] / t[0].std() + t[2] / t[2].std()
        queries = maps.query(torch.cat([s[1], s[2]], 1))
        scores = [[float(q @ k) / math.sqrt(2 * D_T) for k in keys] for q in queries]
        found = {name: [] for name in NAMES}
        for i in range(m):
            weights = softmax(scores[i])
            seen = maps.t2s(sum(w * v for w, v in zip(weights, values, strict=True)))
            logits = (heads[0] @ seen).tolist()
            found["t2s_ce"].append(-math.log(softmax(logits)[s[4][i]]))
            right = logits.index(max(logits)) == int(s[4][i])
            p, q = (softmax([v / temperature for v in side]) for side in (logits, s[3][i].tolist()))
            found["t2s"].append(kl(p, q) if right else 0.0)
        for j in range(n):
            weights = softmax([scores[i][j] for i in range(m)])
            shown = maps.s2t(sum(w * v for w, v in zip(weights, s[0], strict=True)))
            p, q = (softmax([v / temperature for v in x]) for x in (t[3][j].tolist(), (heads[1] @ shown).tolist()))
            found["s2t"].append(kl(p, q))
        for name in NAMES:
            totals[name].append(sum(found[name]) / len(found[name]))
    return {name: sum(values) / len(values) for name, values in totals.items()}


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_terms_equal_a_loop_over_tokens(maps, heads, temperature):
    teacher, student = side(D_T, V_T, (3, 5, 2), 1), side(D_S, V_S, (4, 2, 3), 2)
    # so that some tokens are named rightly and some are not
    with torch.no_grad():
        expected = slow(teacher, student, maps, heads, temperature)
        found = dskd_terms(teacher, student, maps, *heads, temperature=temperature)
    for name in NAMES:
        assert found[name].item() == pytest.approx(expected[name], rel=1e-6), name


def test_tokens_that_the_teacher_names_wrongly_do_not_teach(maps, heads):
    teacher, student = side(D_T, V_T, (3,), 1), side(D_S, V_S, (3,), 2)
    with torch.no_grad():
        for wanted in range(V_S):
            found = dskd_terms(teacher, student._replace(ids=torch.full((1, 3), wanted)), maps, *heads)
            expected = slow(teacher, student._replace(ids=torch.full((1, 3), wanted)), maps, heads, 2.0)
            assert found["t2s"].item() == pytest.approx(expected["t2s"], abs=1e-9)


def test_padding_does_not_change_what_is_taught(maps, heads):
    """The authors divide by deviations that are taken over the padding as well: a longer batch then teaches something else."""
    short = side(D_T, V_T, (3, 2), 1), side(D_S, V_S, (4, 2), 2)
    wide = side(D_T, V_T, (3, 2), 1, width=40, junk=float("nan")), side(D_S, V_S, (4, 2), 2, width=50, junk=1e9)
    zeroed = [  # as `answer_side` hands them over
        AnswerSide(*(part.masked_fill(~x.mask.unsqueeze(2), 0) for part in x[:3]), *x[3:]) for x in wide
    ]
    states = zeroed[1].states.requires_grad_()
    expected, found = dskd_terms(*short, maps, *heads), dskd_terms(*zeroed, maps, *heads)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])
    sum(found.values()).backward()
    assert (states.grad[~zeroed[1].mask] == 0).all()
    assert states.grad[zeroed[1].mask].abs().min() > 0

    def of_the_authors(x):
        return x.states / x.states.std()

    assert not torch.allclose(of_the_authors(zeroed[0])[:, :3], of_the_authors(short[0]), rtol=0.1)


def test_a_batch_is_the_mean_of_its_samples(maps, heads):
    teacher, student = side(D_T, V_T, (3, 5), 1), side(D_S, V_S, (4, 2), 2)
    alone = [
        dskd_terms(
            AnswerSide(*(x[i : i + 1] for x in teacher)), AnswerSide(*(x[i : i + 1] for x in student)), maps, *heads
        )
        for i in (0, 1)
    ]
    for name, value in dskd_terms(teacher, student, maps, *heads).items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize("lost", ["teacher", "student"])
def test_a_sample_that_one_model_does_not_answer_is_left_out(maps, heads, lost):
    teacher, student = side(D_T, V_T, (3, 5), 1), side(D_S, V_S, (4, 2), 2)
    expected = dskd_terms(AnswerSide(*(x[:1] for x in teacher)), AnswerSide(*(x[:1] for x in student)), maps, *heads)
    mask = torch.tensor([[True] * 9, [False] * 9])
    if lost == "teacher":
        teacher = teacher._replace(mask=teacher.mask & mask[:, :5])
    else:
        student = student._replace(mask=student.mask & mask[:, :4])
    for name, value in dskd_terms(teacher, student, maps, *heads).items():
        torch.testing.assert_close(value, expected[name])
    for name, value in dskd_terms(teacher._replace(mask=teacher.mask & False), student, maps, *heads).items():
        assert value == 0, name


def test_each_term_trains_what_it_should(maps, heads):
    heads = [nn.Linear(w.shape[1], w.shape[0], bias=False).double() for w in heads]
    teacher, student = side(D_T, V_T, (6, 6), 1), side(D_S, V_S, (6, 6), 2)
    with torch.no_grad():  # the student predicts what it should, so that the heads' readings name some tokens rightly
        student = student._replace(ids=_named(teacher, student, maps, heads[0]))
    trained = {"t2s_ce": ({"query", "t2s"}, False), "t2s": (set(), True), "s2t": ({"query", "s2t"}, True)}
    for name, (expected, reaches_student) in trained.items():
        leaves = [student.states.clone().requires_grad_(), student.logits.clone().requires_grad_()]
        target = teacher.states.clone().requires_grad_()
        maps.zero_grad()
        own = student._replace(states=leaves[0], logits=leaves[1])
        dskd_terms(teacher._replace(states=target), own, maps, *heads)[name].backward()
        assert {n.split(".")[0] for n, p in maps.named_parameters() if p.grad is not None and p.grad.any()} == expected
        assert any(leaf.grad is not None and bool(leaf.grad.any()) for leaf in leaves) == reaches_student
        assert target.grad is None
        assert all(p.grad is None for head in heads for p in head.parameters())


def _named(teacher, student, maps, head):
    """The tokens that the head reads from the teacher's states."""
    from hf_evl_ecg.rivals import dskd

    seen = []
    original = dskd.read_frozen_head
    dskd.read_frozen_head = lambda h, states: seen.append(original(h, states)) or seen[-1]
    try:
        dskd_terms(teacher, student, maps, head, nn.Linear(D_T, V_T).double())
    finally:
        dskd.read_frozen_head = original
    return seen[0].argmax(1).reshape(2, 6)


def test_attention_rows_sum_to_one_over_answers_alone():
    gen = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 8, generator=gen), torch.randn(2, 5, 8, generator=gen)
    s_mask = torch.tensor([[True, True, False, False], [True] * 4])
    t_mask = torch.tensor([[True, True, True, False, False], [False] * 5])
    to_teacher, to_student = cross_model_attention(query, key, s_mask, t_mask)
    torch.testing.assert_close(to_teacher.sum(2), (s_mask & t_mask.any(1, keepdim=True)).float())
    torch.testing.assert_close(to_student.sum(2), t_mask.float())
    assert (to_teacher[0, :, 3:] == 0).all()
    assert (to_student[0, :, 2:] == 0).all()
    expected = (query[0, :2] @ key[0, :3].T / 8**0.5).softmax(1)
    torch.testing.assert_close(to_teacher[0, :2, :3], expected)


def test_half_precision_is_computed_in_float32(heads):
    torch.manual_seed(0)
    maps, heads = CrossModelProjectors(D_S, D_T), [w.float() for w in heads]
    sides = [side(D_T, V_T, (3, 5), 1, dtype=torch.float32), side(D_S, V_S, (4, 2), 2, dtype=torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        found = dskd_terms(*sides, maps, *heads)
    for name, value in dskd_terms(*sides, maps, *heads).items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value)
