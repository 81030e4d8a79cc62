"""KL and JSD of answers: by hand, against a loop over tokens, padding, temperature, vocabularies, gradients."""

import math

import pytest
import torch

from hf_evl_ecg.rivals import VocabularyMismatchError, divergence_loss
from hf_evl_ecg.tokens import AnswerGroups


def slow(teacher, student, kind, beta, temperature):
    """One token at a time, one entry of the vocabulary at a time, in float64."""
    per_sample = []
    for row in range(len(teacher.answer_mask)):
        values = []
        for t in range(min(int(teacher.answer_mask[row].sum()), int(student.answer_mask[row].sum()))):
            sides = []
            for features in (teacher, student):
                exps = [math.exp(v / temperature) for v in features.answer_logits[row, t].double().tolist()]
                sides.append([e / sum(exps) for e in exps])
            total = 0.0
            for p, q in zip(*sides, strict=True):
                m = beta * p + (1 - beta) * q
                total += {
                    "forward": p * math.log(p / q),
                    "reverse": q * math.log(q / p),
                    "jsd": beta * p * math.log(p / m) + (1 - beta) * q * math.log(q / m),
                }[kind]
            values.append(total)
        per_sample.append(sum(values) / len(values))
    return temperature**2 * sum(per_sample) / len(per_sample)


def call(teacher, student, **options):
    logits = teacher.answer_logits, student.answer_logits
    return divergence_loss(*logits, teacher.answer_mask, student.answer_mask, **options)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize(("beta", "temperature"), [(0.5, 1.0), (0.2, 3.0)])
def test_it_equals_a_loop_over_tokens(make_features, kind, beta, temperature):
    teacher, student = make_features(4, 11, seed=1), make_features(4, 11, seed=2)
    found = call(teacher, student, divergence=kind, beta=beta, temperature=temperature)
    assert found.item() == pytest.approx(slow(teacher, student, kind, beta, temperature), rel=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_zero_only_where_the_probabilities_agree(make_features, kind):
    teacher = make_features(4, 11, seed=1)
    shifted = make_features(4, 11, seed=1)
    shifted.answer_logits.add_(3.0)
    assert call(teacher, shifted, divergence=kind).abs() < 1e-6
    assert call(teacher, make_features(4, 11, seed=2), divergence=kind) > 0.01


def test_jsd_is_bounded_where_kl_is_not():
    mask = torch.ones(1, 1, dtype=torch.bool)
    certain, other = torch.tensor([[[200.0, 0.0]]]), torch.tensor([[[0.0, 200.0]]])
    assert divergence_loss(certain, other, mask, mask).item() == pytest.approx(200)
    jsd = divergence_loss(certain, other, mask, mask, divergence="jsd")
    assert jsd.item() == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_padding_changes_nothing_and_gets_no_gradient(make_features, kind):
    teacher, student = make_features(4, 11, seed=1), make_features(4, 11, seed=2)
    padded_t, padded_s = (make_features(4, 11, seed=s, extra=3, junk=float("nan")) for s in (1, 2))
    logits = padded_s.answer_logits.requires_grad_()
    value = call(padded_t, padded_s, divergence=kind)
    torch.testing.assert_close(value, call(teacher, student, divergence=kind))
    value.backward()
    assert (logits.grad[~padded_s.answer_mask] == 0).all()
    assert (logits.grad[padded_s.answer_mask] != 0).any()
    assert logits.grad.isfinite().all()


def test_the_teacher_gets_no_gradient_and_gradcheck(make_features):
    teacher, student = (make_features(4, 5, seed=s, dtype=torch.float64) for s in (1, 2))
    target = teacher.answer_logits.requires_grad_()
    for kind in ("forward", "reverse", "jsd"):
        assert torch.autograd.gradcheck(
            lambda x, kind=kind: divergence_loss(
                target, x, teacher.answer_mask, student.answer_mask, divergence=kind, temperature=2.0
            ),
            student.answer_logits.clone().requires_grad_(),
            atol=1e-6,
        )
    call(teacher, student)
    assert target.grad is None


def test_groups_pair_the_tokens_that_say_the_same(make_features):
    teacher, student = make_features(4, 11, seed=1), make_features(4, 11, seed=2)
    only = AnswerGroups(torch.full((3, 3), -1), torch.full((3, 3), -1))
    only.teacher[0, 1] = only.student[0, 2] = 0
    p, q = teacher.answer_logits[0, 1].softmax(0), student.answer_logits[0, 2].softmax(0)
    torch.testing.assert_close(call(teacher, student, groups=only), (p * (p / q).log()).sum())


def test_heads_with_unused_rows_are_cut_to_the_vocabulary(make_features):
    teacher, student = make_features(4, 11, seed=1), make_features(4, 11, seed=2)
    wide = torch.nn.functional.pad(teacher.answer_logits, (0, 5), value=9.0)
    found = divergence_loss(wide, student.answer_logits, teacher.answer_mask, student.answer_mask, vocab_size=11)
    torch.testing.assert_close(found, call(teacher, student))


def test_two_vocabularies_are_refused(make_features):
    with pytest.raises(VocabularyMismatchError, match="12 and 11 logits a token: a divergence needs one vocabulary"):
        call(make_features(4, 12), make_features(4, 11))
    with pytest.raises(VocabularyMismatchError):
        call(make_features(4, 11), make_features(4, 11), vocab_size=12)


def test_half_precision_is_computed_in_float32(make_features):
    teacher, student = make_features(4, 11, seed=1), make_features(4, 11, seed=2)
    half = make_features(4, 11, seed=2, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = call(teacher, half)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(call(teacher, student).item(), rel=0.02)


@pytest.mark.parametrize("options", [{"divergence": "mse"}, {"beta": 0.0}, {"beta": 1.0}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(make_features, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        call(make_features(4, 11), make_features(4, 11), **options)
