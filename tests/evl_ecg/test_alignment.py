"""The aligner against torch's own attention; the alignment and anchor losses by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_evl_ecg.alignment import CrossAttentionAligner, StudentToTeacherProjector, alignment_loss, anchor_loss


def inputs(b=3, l_s=5, l_t=7, d_s=16, d_t=12, dtype=torch.float64):
    gen = torch.Generator().manual_seed(0)
    student = torch.randn(b, l_s, d_s, generator=gen, dtype=dtype)
    teacher = torch.randn(b, l_t, d_t, generator=gen, dtype=dtype) * 3 + 1
    mask = torch.ones(b, l_t, dtype=torch.bool)
    mask[1:2, 4:] = False
    return student, teacher, mask


@pytest.mark.parametrize("num_heads", [1, 4, 16])
def test_equals_torch_multihead_attention_with_copied_weights(num_heads):
    student, teacher, mask = inputs()
    aligner = CrossAttentionAligner(16, 12, num_heads).double()
    reference = nn.MultiheadAttention(16, num_heads, bias=False, kdim=12, vdim=12, batch_first=True).double()
    with torch.no_grad():
        reference.q_proj_weight.copy_(aligner.query.weight)
        reference.k_proj_weight.copy_(aligner.key.weight)
        reference.v_proj_weight.copy_(aligner.value.weight)
        reference.out_proj.weight.copy_(aligner.output.weight)
    normed = F.layer_norm(teacher, (12,))
    expected, _ = reference(student, normed, normed, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(aligner(student, teacher, mask), expected)


def test_one_head_by_the_formula():
    student, teacher, mask = inputs(b=1)
    aligner = CrossAttentionAligner(16, 12, 1).double()
    h_t = (teacher - teacher.mean(2, keepdim=True)) / (teacher.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    scores = (student @ aligner.query.weight.T) @ (h_t @ aligner.key.weight.T).mT / 16**0.5
    expected = scores.softmax(2) @ (h_t @ aligner.value.weight.T) @ aligner.output.weight.T
    torch.testing.assert_close(aligner(student, teacher, mask), expected)


def test_teacher_padding_is_invisible_also_as_nan():
    student, teacher, mask = inputs()
    aligner = CrossAttentionAligner(16, 12, 4).double()
    expected = aligner(student, teacher, mask)
    wide = F.pad(teacher.masked_fill(~mask[:, :, None], torch.nan), (0, 0, 0, 2), value=torch.inf)
    wide.requires_grad_()
    aligned = aligner(student, wide, F.pad(mask, (0, 2)))
    torch.testing.assert_close(aligned, expected)
    aligned.sum().backward()
    assert wide.grad[~F.pad(mask, (0, 2))].eq(0).all()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in aligner.parameters())


def test_a_sample_without_teacher_tokens_gives_zeros():
    student, teacher, mask = inputs()
    mask[2] = False
    student.requires_grad_()
    aligned = CrossAttentionAligner(16, 12, 4).double()(student, teacher, mask)
    assert aligned[2].eq(0).all()
    assert aligned[:2].abs().sum() > 0
    aligned.sum().backward()
    assert student.grad[2].eq(0).all()
    assert student.grad.isfinite().all()


def test_permutation_and_outlier_channels():
    student, teacher, mask = inputs(b=1)
    aligner = CrossAttentionAligner(16, 12, 4).double()
    order_t, order_s = torch.randperm(7), torch.randperm(5)
    expected = aligner(student, teacher, mask)
    torch.testing.assert_close(aligner(student, teacher[:, order_t], mask), expected)
    torch.testing.assert_close(aligner(student[:, order_s], teacher, mask), expected[:, order_s])
    torch.testing.assert_close(aligner(student, 1000 * teacher, mask), expected, rtol=1e-4, atol=1e-4)


def test_precision():
    student, teacher, mask = inputs(dtype=torch.bfloat16)
    aligner = CrossAttentionAligner(16, 12, 4)
    expected = aligner(student.float(), teacher.float(), mask)
    aligned = aligner(student, teacher, mask)
    assert aligned.dtype == torch.float32
    torch.testing.assert_close(aligned, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = aligner(student, teacher, mask)
    assert low.dtype == torch.float32
    assert 0 < (low - expected).abs().max() < 0.05
    projector = StudentToTeacherProjector(16, 12)
    assert projector(student).dtype == torch.float32


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"num_heads=3: must divide student_dim=16; choose one of \[1, 2, 4, 8, 16\]"):
        CrossAttentionAligner(16, 12, 3)
    student, teacher, mask = inputs()
    aligner = CrossAttentionAligner(16, 12, 4).double()
    with pytest.raises(ValueError, match="teacher_mask must have the shape"):
        aligner(student, teacher, mask[:, 1:])
    assert torch.equal(aligner(student, teacher, mask.long()), aligner(student, teacher, mask))


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 9), (9, 4)])
def test_projector_starts_orthogonal(d_s, d_t):
    weight = StudentToTeacherProjector(d_s, d_t).weight
    gram = weight.T @ weight if d_t > d_s else weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(min(d_s, d_t)))


def test_alignment_loss_by_hand():
    student = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]], [[3.0, 0.0], [9.0, 9.0], [9.0, 9.0]]])
    target = torch.zeros_like(student)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert alignment_loss(student, target, mask, channel_mean=False).item() == pytest.approx((5 / 2 + 9) / 2)
    assert alignment_loss(student, target, mask).item() == pytest.approx((5 / 2 + 9) / 4)
    with_empty = torch.cat([mask, mask[:1] & False])
    padded = alignment_loss(torch.cat([student, student[:1] * torch.nan]), torch.cat([target, target[:1]]), with_empty)
    assert padded.item() == pytest.approx((5 / 2 + 9) / 4)


def test_alignment_loss_gives_padding_no_gradient_and_is_float32():
    student = torch.randn(2, 4, 3).bfloat16().requires_grad_()
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = alignment_loss(student, torch.zeros(2, 4, 3), mask)
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.grad[~mask].eq(0).all()
    assert student.grad[mask].abs().sum() > 0


def answers():
    gen = torch.Generator().manual_seed(1)
    aligned = torch.randn(2, 6, 4, generator=gen, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[3, 4, -1], [1, -1, -1]])
    ids = torch.tensor([[2, 0, -100], [5, -100, -100]])
    return aligned, index, ids, nn.Linear(4, 7, dtype=torch.float64)


def test_anchor_loss_by_hand_through_a_frozen_head():
    aligned, index, ids, head = answers()
    log_p = head(aligned).log_softmax(2)
    expected = -((log_p[0, 3, 2] + log_p[0, 4, 0]) / 2 + log_p[1, 1, 5]) / 2
    loss = anchor_loss(aligned, index, ids, head)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert head.weight.grad is None
    assert head.bias.grad is None
    touched = (aligned.grad.abs().sum(2) > 0).nonzero().tolist()
    assert touched == [[0, 3], [0, 4], [1, 1]]


def test_anchor_loss_takes_a_weight_and_samples_without_answers():
    aligned, index, ids, head = answers()
    bare = nn.Linear(4, 7, bias=False, dtype=torch.float64)
    bare.weight = head.weight
    expected = anchor_loss(aligned, index, ids, bare)
    torch.testing.assert_close(anchor_loss(aligned, index, ids, head.weight), expected)
    ids[1] = -100
    alone = anchor_loss(aligned[:1], index[:1], ids[:1], bare)
    torch.testing.assert_close(anchor_loss(aligned, index, ids, bare), alone)
    with pytest.raises(ValueError, match="No answer token is among the covered"):
        anchor_loss(aligned, torch.full_like(index, -1), ids, bare)
    no_answers = anchor_loss(aligned, index, torch.full_like(ids, -100), bare)
    assert no_answers.item() == 0
    assert no_answers.requires_grad
