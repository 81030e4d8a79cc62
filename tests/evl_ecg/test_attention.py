"""What a student token may attend to: hidden tokens leave its target bit-identical, and nothing grows with L_s × L_t."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_evl_ecg import alignment
from hf_evl_ecg.alignment import CrossAttentionAligner, alignment_loss
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.relations import relation_loss
from hf_evl_ecg.tokens import IMAGE_TURN, NO_TURN, PADDING_PLACE, TokenFeatures, visible_tokens

PAD = (PADDING_PLACE, PADDING_PLACE)
IMAGE, SYSTEM = (IMAGE_TURN, 0), (NO_TURN, 0)
# A conversation of two turns and one of one turn; the tokenizers cut the words at other bytes. Left padding, right padding.
STUDENT = [
    [SYSTEM, IMAGE, IMAGE, (0, 0), (0, 4), (0, 7), (0, 8), (0, 10), (1, 0), (1, 2), (1, 3)],
    [PAD, PAD, PAD, SYSTEM, IMAGE, (0, 0), (0, 3), (0, 5), (0, 6), (0, 8), (0, 9)],
]
TEACHER = [
    [SYSTEM, IMAGE, (0, 0), (0, 2), (0, 4), (0, 7), (0, 8), (0, 9), (0, 11), (1, 0), (1, 2), (1, 3), (1, 4)],
    [SYSTEM, IMAGE, (0, 0), (0, 5), (0, 6), (0, 7), (0, 9), PAD, PAD, PAD, PAD, PAD, PAD],
]
FORMS = ("turn", "aligned")


def may_see(own, other, attention):
    """The rule for one pair of tokens, in words: independent of the tensor code."""
    if other == PAD:
        return False
    if other in (IMAGE, SYSTEM) or attention == "all":
        return True
    if own in (IMAGE, SYSTEM, PAD):
        return False
    return other[0] == own[0] and (attention == "turn" or other[1] <= own[1])


def rule(attention):
    return torch.tensor(
        [[[may_see(a, b, attention) for b in t] for a in s] for s, t in zip(STUDENT, TEACHER, strict=True)]
    )


def conversation(dtype=torch.float32, seed=0):
    """States and places: student (2, 11, 16), its mask and places, teacher (2, 13, 12), its mask and places."""
    generator = torch.Generator().manual_seed(seed)
    s_places, t_places = torch.tensor(STUDENT), torch.tensor(TEACHER)
    student = torch.randn(2, 11, 16, generator=generator, dtype=dtype)
    teacher = torch.randn(2, 13, 12, generator=generator, dtype=dtype)
    return student, s_places[..., 0] != PADDING_PLACE, s_places, teacher, t_places[..., 0] != PADDING_PLACE, t_places


def make_aligner(attention, dtype=torch.float32):
    torch.manual_seed(0)
    return CrossAttentionAligner(16, 12, 4, attention).to(dtype)


@pytest.mark.parametrize("attention", FORMS)
def test_visible_tokens_follow_the_rule(attention):
    _, s_mask, s_places, _, t_mask, t_places = conversation()
    found = visible_tokens(s_places, t_places, attention)
    assert torch.equal(found & s_mask.unsqueeze(2), rule(attention) & s_mask.unsqueeze(2))
    assert not (found & ~t_mask.unsqueeze(1)).any()


@pytest.mark.parametrize("attention", FORMS)
def test_what_is_hidden_leaves_a_target_bit_identical(attention):
    """For each student token: all that it may not see is replaced, and its target does not change in the last bit."""
    student, s_mask, s_places, teacher, t_mask, t_places = conversation()
    aligner, literal = make_aligner(attention), make_aligner("all")
    expected = aligner(student, teacher, t_mask, s_places, t_places)
    visible, tested = rule(attention), 0
    for row, token in s_mask.nonzero().tolist():
        hidden = t_mask[row] & ~visible[row, token]
        other = teacher.clone()
        other[row, hidden] = 7 * torch.randn(int(hidden.sum()), 12) - 3
        found = aligner(student, other, t_mask, s_places, t_places)
        assert torch.equal(found[row, token], expected[row, token])
        if hidden.any():
            tested += 1
            assert not torch.equal(
                literal(student, other, t_mask)[row, token], literal(student, teacher, t_mask)[row, token]
            )
        for at in visible[row, token].nonzero().flatten().tolist():
            other = teacher.clone()
            other[row, at] += torch.randn(12)
            changed = aligner(student, other, t_mask, s_places, t_places)[row, token]
            assert not torch.equal(changed, expected[row, token]), "what may be seen matters"
    assert tested >= (7 if attention == "turn" else 12)


@pytest.mark.parametrize("attention", FORMS)
def test_equals_torch_attention_with_the_mask_of_the_rule(attention):
    student, s_mask, s_places, teacher, t_mask, t_places = conversation(torch.float64)
    aligner = make_aligner(attention, torch.float64)
    reference = nn.MultiheadAttention(16, 4, bias=False, kdim=12, vdim=12, batch_first=True).double()
    with torch.no_grad():
        reference.q_proj_weight.copy_(aligner.query.weight)
        reference.k_proj_weight.copy_(aligner.key.weight)
        reference.v_proj_weight.copy_(aligner.value.weight)
        reference.out_proj.weight.copy_(aligner.output.weight)
    normed = F.layer_norm(teacher, (12,))
    hidden = ~rule(attention).repeat_interleave(4, 0) & s_mask.repeat_interleave(4, 0).unsqueeze(2)
    expected, _ = reference(student, normed, normed, attn_mask=hidden, need_weights=False)
    found = aligner(student, teacher, t_mask, s_places, t_places)
    torch.testing.assert_close(found[s_mask], expected[s_mask])


def test_equals_all_where_there_is_nothing_to_hide():
    """Text of the only turn under "turn", the last token of a turn under "aligned", image tokens among image tokens."""
    student, _, s_places, teacher, t_mask, t_places = conversation()
    for attention, row, tokens in (("turn", 1, slice(5, None)), ("aligned", 1, slice(10, None))):
        expected = make_aligner("all")(student, teacher, t_mask)[row, tokens]
        found = make_aligner(attention)(student, teacher, t_mask, s_places, t_places)[row, tokens]
        assert torch.equal(found, expected)
    image = torch.tensor(IMAGE).expand(2, 5, 2)
    states = (student[:, :5], teacher[:, :5], t_mask[:, :5])
    for attention in FORMS:
        assert torch.equal(make_aligner(attention)(*states, image, image), make_aligner("all")(*states))


def test_a_student_token_that_sees_nothing_gets_zero_and_no_gradient():
    """Here the teacher's input was cut before the second turn, and only states that predict answers are covered."""
    student, _, s_places, teacher, _, t_places = conversation()
    student.requires_grad_()
    teacher.requires_grad_()
    covered = (t_places[..., 0] == 0) & (t_places[..., 1] >= 7)
    for attention in FORMS:
        aligner = make_aligner(attention)
        aligned = aligner(student, teacher, covered, s_places, t_places)
        found = aligner.has_target(covered, s_places, t_places)
        expected = (rule(attention) & covered.unsqueeze(1)).any(2) & (s_places[..., 0] >= 0)
        assert torch.equal(found, expected)
        assert 0 < found.sum() < found.numel()
        assert torch.equal(aligned.ne(0).any(2), found)
        gradients = torch.autograd.grad(aligned.square().sum(), (student, teacher, *aligner.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert gradients[0][~found].eq(0).all()
    assert torch.equal(make_aligner("all").has_target(covered), covered.any(1, keepdim=True))


@pytest.mark.parametrize("attention", FORMS)
def test_parts_give_the_values_and_gradients_of_the_whole(attention, monkeypatch):
    student, _, s_places, teacher, t_mask, t_places = conversation(torch.float64)
    student.requires_grad_()
    results = []
    for elements in (alignment.MASK_ELEMENTS, 4 * t_mask.numel(), 1):
        monkeypatch.setattr(alignment, "MASK_ELEMENTS", elements)
        aligner = make_aligner(attention, torch.float64)
        aligned = aligner(student, teacher, t_mask, s_places, t_places)
        gradients = torch.autograd.grad(aligned.square().sum(), (student, *aligner.parameters()))
        results.append((aligned, aligner.has_target(t_mask, s_places, t_places), *gradients))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            torch.testing.assert_close(second, first)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes while the mode is on."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.mark.parametrize("attention", FORMS)
def test_no_tensor_grows_with_student_times_teacher_tokens(attention):
    """2,000 × 3,000 tokens of two samples are 12 million pairs; no tensor holds more than MASK_ELEMENTS of them."""
    generator = torch.Generator().manual_seed(0)
    places = [torch.stack([torch.arange(n) % 8, torch.arange(n) // 8], 1).expand(2, n, 2) for n in (2000, 3000)]
    student, teacher = (torch.randn(2, n, 16, generator=generator, requires_grad=True) for n in (2000, 3000))
    aligner = CrossAttentionAligner(16, 16, 1, attention)
    mask, kept = torch.ones(2, 3000, dtype=torch.bool), []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        aligner.has_target(mask, *places)
        aligned = aligner(student, teacher, mask, *places)
        assert max(kept) <= student.numel() * 2, "no mask is kept for the gradient"
        aligned.sum().backward()
    assert largest.elements <= alignment.MASK_ELEMENTS
    assert largest.elements > alignment.MASK_ELEMENTS / 2, "the parts are as large as allowed"
    assert student.grad.abs().sum() > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="attention='causal': allowed are 'all', 'turn', 'aligned'"):
        CrossAttentionAligner(16, 12, 4, "causal")
    student, _, s_places, teacher, t_mask, t_places = conversation()
    aligner = make_aligner("turn")
    with pytest.raises(ValueError, match="student_places=None: attention='turn' needs them"):
        aligner(student, teacher, t_mask, None, t_places)
    with pytest.raises(ValueError, match="teacher_places=None: attention='turn' needs them"):
        aligner(student, teacher, t_mask, s_places)
    with pytest.raises(ValueError, match="match='cosine': allowed are 'raw', 'normalised'"):
        alignment_loss(student, student, s_places[..., 0] >= 0, match="cosine")


def both_sides():
    student, s_mask, s_places, teacher, t_mask, t_places = conversation()
    sides = (student.requires_grad_(), s_mask, s_places), (teacher, t_mask, t_places)
    return [TokenFeatures(hidden, mask, None, None, places=places) for hidden, mask, places in sides]


@pytest.mark.parametrize("attention", FORMS)
def test_the_loss_matches_tokens_that_have_a_target_and_no_others(attention):
    student, teacher = both_sides()
    cut = TokenFeatures(teacher.hidden, teacher.mask & (teacher.places[..., 0] == 0), None, None, places=teacher.places)
    loss = EVLECGLoss(16, 12, lambda_ot=0.0, mhca_num_heads=4, attention=attention)
    assert loss.needs_places
    terms = loss(student, cut, torch.tensor(1.0))
    mask = student.mask & loss.aligner.has_target(cut.mask, student.places, cut.places)
    assert mask.sum() < student.mask.sum()
    aligned = loss.aligner(student.hidden, cut.hidden, cut.mask, student.places, cut.places)
    torch.testing.assert_close(terms["mhca"], 0.5 * alignment_loss(student.hidden, aligned, mask))
    expected = sum(relation_loss(aligned, student.hidden, mask)) / 4
    torch.testing.assert_close(terms["relation"], expected)
    sum(terms.values()).backward()
    assert student.hidden.grad[~mask].eq(0).all()
    assert (student.hidden.grad[mask].abs().sum(1) > 0).all()


def test_only_the_aligner_reads_places():
    assert not EVLECGLoss(16, 12).needs_places
    assert not EVLECGLoss(16, 12, lambda_mhca=0.0, lambda_relation=0.0, attention="turn").needs_places
    student, teacher = both_sides()
    bare = [TokenFeatures(side.hidden, side.mask, None, None) for side in (student, teacher)]
    options = {"lambda_ot": 0.0, "mhca_num_heads": 4}
    EVLECGLoss(16, 12, **options)(*bare, torch.tensor(1.0))
    with pytest.raises(ValueError, match="student_places=None"):
        EVLECGLoss(16, 12, attention="aligned", **options)(*bare, torch.tensor(1.0))


def test_normalised_states_know_no_scale_and_no_offset():
    student, mask, _, _, _, _ = conversation(torch.float64)
    target = torch.randn(2, 11, 16, dtype=torch.float64)
    plain = alignment_loss(student, target, mask, match="normalised")
    torch.testing.assert_close(
        alignment_loss(5 * student, 0.2 * target - 3, mask, match="normalised"), plain, rtol=1e-3, atol=0
    )
    by_hand = []
    for i in range(2):
        a, b = (x[i][mask[i]] for x in (student, target))
        a, b = ((x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for x in (a, b))
        by_hand.append((a - b).square().mean())
    torch.testing.assert_close(plain, sum(by_hand) / 2)
    summed = alignment_loss(student, target, mask, match="normalised", channel_mean=False)
    torch.testing.assert_close(summed, 16 * plain)
    raw = alignment_loss(student, target, mask)
    assert alignment_loss(5 * student, target, mask) > 2 * raw, "raw states are pulled at their scale"


def test_normalised_states_give_padding_no_gradient_also_as_nan():
    student, mask, _, _, _, _ = conversation()
    target = torch.randn(2, 11, 16).masked_fill(~mask.unsqueeze(2), torch.nan)
    student = student.masked_fill(~mask.unsqueeze(2), torch.nan).requires_grad_()
    loss = alignment_loss(student, target, mask, match="normalised")
    loss.backward()
    assert loss.isfinite()
    assert student.grad[~mask].eq(0).all()
    assert (student.grad[mask].abs().sum(1) > 0).all()
    double = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda x: alignment_loss(x, torch.ones_like(x).cumsum(2), ones, match="normalised"), double
    )


def test_match_reaches_the_loss():
    student, teacher = both_sides()
    found = []
    for match in ("raw", "normalised"):
        torch.manual_seed(0)
        loss = EVLECGLoss(16, 12, lambda_ot=0.0, mhca_num_heads=4, match=match)
        found.append(loss(student, teacher, torch.tensor(1.0)))
    assert not torch.allclose(found[0]["mhca"], found[1]["mhca"], rtol=1e-3)
    assert torch.equal(found[0]["relation"], found[1]["relation"])
