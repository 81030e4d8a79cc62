"""RivalLoss: weighted terms, what each needs and owns, padding, batches, and no loop over samples."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hf_evl_ecg.rivals import (
    RivalLoss,
    affinity_loss,
    cka_loss,
    divergence_loss,
    hungarian_loss,
    pooled_mse_loss,
    rkd_angle_loss,
    rkd_distance_loss,
)
from hf_evl_ecg.rivals.answer_states import paired_answer_states
from hf_evl_ecg.rivals.dskd import answer_side, dskd_terms
from hf_evl_ecg.rivals.hungarian import match_tokens
from hf_evl_ecg.rivals.pooled import pool_states
from hf_evl_ecg.tokens import AnswerGroups
from hf_evl_ecg.uld import uld_loss

D_S, D_T, V = 4, 6, 11
TERMS = ("kl", "rkd_distance", "rkd_angle", "cka", "em_kd", "feature_mse")
OVER_SAMPLES = ("kl", "em_kd", "feature_mse")  # means over samples; the others relate the samples of a batch


def make(*names, **options):
    torch.manual_seed(0)
    return RivalLoss(D_S, D_T, **{f"lambda_{name}": 1.0 for name in names}, **options)


@pytest.fixture
def pair(make_features):
    """Function (options) → teacher and student, whose states take a gradient."""

    def get(**options):
        teacher = make_features(D_T, V, (9, 6, 8, 7), (3, 2, 3, 2), seed=1, **options)
        student = make_features(D_S, V, (7, 8, 6, 9), (3, 2, 3, 2), seed=2, **options)
        student.hidden.requires_grad_()
        student.answer_logits.requires_grad_()
        return teacher, student

    return get


def test_terms_are_weighted_functions(pair):
    teacher, student = pair()
    weights = dict(zip(TERMS, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0), strict=True))
    torch.manual_seed(0)
    loss = RivalLoss(D_S, D_T, alpha=0.3, **{f"lambda_{name}": weight for name, weight in weights.items()})
    terms = loss(student, teacher)
    pooled = [pool_states(side.hidden, side.mask) for side in (teacher, student)]
    projected = loss.projectors["em_kd"](student.hidden)
    target = F.layer_norm(teacher.hidden, (D_T,))
    matches = match_tokens(target, projected, teacher.mask, student.mask)
    logits = teacher.answer_logits, student.answer_logits, teacher.answer_mask, student.answer_mask
    mse = loss.projectors["feature_mse"](student.hidden)
    expected = {
        "kl": divergence_loss(*logits),
        "rkd_distance": rkd_distance_loss(*pooled),
        "rkd_angle": rkd_angle_loss(*pooled),
        "cka": cka_loss(*paired_answer_states(teacher, student, None)[:2]),
        "em_kd": hungarian_loss(target, projected, matches) + affinity_loss(teacher, student, matches),
        "feature_mse": pooled_mse_loss(teacher.hidden, mse, teacher.mask, student.mask),
    }
    assert tuple(terms) == TERMS
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(terms[name], 0.3 * weights[name] * value)


@pytest.mark.parametrize("name", TERMS)
def test_each_term_alone_needs_and_owns_only_its_own(name, pair):
    teacher, student = pair()
    loss = make(name)
    assert loss.needs_teacher
    assert loss.needs_logits == (name == "kl")
    assert loss.needs_hidden == (name != "kl")
    assert {key.split(".")[1] for key in loss.state_dict()} == {name} & {"em_kd", "feature_mse"}
    terms = loss(student, teacher)
    assert tuple(terms) == (name,)
    terms[name].backward()
    read, other = student.answer_logits.grad, student.hidden.grad
    if name != "kl":
        read, other = other, read
    assert read.abs().max() > 0
    assert other is None
    assert all(p.grad.abs().max() > 0 for p in loss.parameters())
    with pytest.raises(ValueError, match="teacher is None"):
        loss(student, None)


def test_without_weight_nothing_is_read_or_owned(pair):
    for loss in (make(), make("feature_mse", "kl", alpha=0.0)):
        assert not list(loss.parameters())
        assert not loss.needs_teacher
        assert loss(pair()[1], None) == {}


@pytest.mark.parametrize("name", TERMS)
def test_padding_changes_nothing_and_gets_no_gradient(name, pair):
    loss = make(name)
    (expected,) = loss(*reversed(pair())).values()
    teacher, student = pair(extra=3, junk=float("nan"))
    (value,) = loss(student, teacher).values()
    torch.testing.assert_close(value, expected)
    value.backward()
    for leaf, mask in ((student.hidden, student.mask), (student.answer_logits, student.answer_mask)):
        if leaf.grad is not None:
            assert (leaf.grad[~mask] == 0).all()
            assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", OVER_SAMPLES)
def test_a_batch_is_the_mean_of_its_samples(name, make_features):
    loss, values = make(name), []
    lengths, answers = ((9, 6), (7, 8)), (3, 2)
    batch = [make_features(d, V, n, answers, seed=s) for d, n, s in ((D_T, lengths[0], 1), (D_S, lengths[1], 2))]
    for row in range(2):
        one = [replace(side, **{f: v[row : row + 1] for f, v in vars(side).items() if v is not None}) for side in batch]
        values.append(loss(one[1], one[0])[name])
    torch.testing.assert_close(loss(batch[1], batch[0])[name], sum(values) / 2)


@pytest.mark.parametrize("name", TERMS)
def test_weights_and_options_out_of_range_are_refused(name):
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"lambda_{name}="):
            RivalLoss(D_S, D_T, **{f"lambda_{name}": weight})


def test_dskd_is_weighted_and_needs_embeddings_and_heads(pair):
    teacher, student = pair()
    gen = torch.Generator().manual_seed(7)
    taught, learner = embedded(teacher), embedded(student)
    heads = {"lm_head": torch.randn(V, D_S, generator=gen), "teacher_lm_head": torch.randn(V, D_T, generator=gen)}
    loss, double = make("dskd", alpha=1.0), make("dskd", alpha=1.0, dskd_temperature=1.0)
    assert loss.needs_embeddings
    assert loss.needs_logits
    assert not make("cka").needs_embeddings
    terms = loss(learner, taught, **heads)
    sides = answer_side(taught, "teacher"), answer_side(learner, "student")
    expected = dskd_terms(*sides, loss.projectors["dskd"], *heads.values())
    assert list(terms) == [f"dskd_{name}" for name in expected]
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"dskd_{name}"], value)
    assert double(learner, taught, **heads)["dskd_s2t"] != terms["dskd_s2t"]
    half = make("dskd", alpha=0.5)(learner, taught, **heads)
    torch.testing.assert_close(half["dskd_s2t"], terms["dskd_s2t"] / 2)
    with pytest.raises(ValueError, match="needs lm_head and teacher_lm_head"):
        loss(learner, taught)
    with pytest.raises(ValueError, match="of the student; or set lambda_dskd=0"):
        loss(student, taught, **heads)


def test_options_reach_the_divergence(pair):
    teacher, student = pair()
    plain = make("kl")(student, teacher)["kl"]
    for options in ({"kl_divergence": "reverse"}, {"kl_divergence": "jsd"}, {"kl_temperature": 3.0}, {"vocab_size": 9}):
        assert (make("kl", **options)(student, teacher)["kl"] - plain).abs() > 1e-3
    jsd = [make("kl", kl_divergence="jsd", kl_beta=beta)(student, teacher)["kl"] for beta in (0.5, 0.1)]
    assert (jsd[0] - jsd[1]).abs() > 1e-3
    with pytest.raises(ValueError, match="kl_divergence='js'"):
        make("kl", kl_divergence="js")


def test_what_a_term_lacks_is_named(pair):
    teacher, student = pair()
    with pytest.raises(ValueError, match="lambda_kl above 0 needs answer_logits"):
        make("kl")(student, replace(teacher, answer_logits=None))
    with pytest.raises(ValueError, match="every logit of the teacher"):
        make("kl")(student, replace(teacher, answer_logsumexp=torch.zeros(4, 3)))
    for name in ("cka", "em_kd"):
        with pytest.raises(ValueError, match="hidden does not cover the answers"):
            make(name)(student, replace(teacher, answer_index=torch.full((4, 3), -1)))
        with pytest.raises(ValueError, match="the features hold no answers"):
            make(name)(student, replace(teacher, answer_index=None))


def test_states_of_answers_are_taken_where_they_are_given(pair):
    """Online with hidden_tokens='visual' they come beside ``hidden``, else from within it."""
    teacher, student = pair()
    states = teacher.hidden.gather(1, teacher.answer_index.clamp(min=0)[..., None].expand(-1, -1, D_T))
    beside = replace(teacher, answer_hidden=states, answer_index=torch.full((4, 3), -1))
    loss = make("cka")
    torch.testing.assert_close(loss(student, beside)["cka"], loss(student, teacher)["cka"])


def test_groups_decide_what_cka_compares(pair):
    teacher, student = pair()
    one = AnswerGroups(torch.zeros(4, 3).long(), torch.zeros(4, 3).long())  # the whole answer is one group
    means = [pool_states(side.hidden[:, -9:], _answers(side)) for side in (teacher, student)]
    torch.testing.assert_close(make("cka", alpha=1.0)(student, teacher, answer_groups=one)["cka"], cka_loss(*means))


def _answers(features):
    mask = torch.zeros_like(features.mask)
    for row, index in enumerate(features.answer_index):
        mask[row, index[index >= 0]] = True
    return mask


def embedded(features):
    """The same features with embeddings of the answers."""
    shape = (*features.answer_mask.shape, features.hidden.shape[2])
    gen = torch.Generator().manual_seed(7)
    return replace(features, **{n: torch.randn(shape, generator=gen) for n in ("answer_read", "answer_wanted")})


class CountedOperations(TorchDispatchMode):
    """Number of tensor operations inside the context."""

    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*(name for name in TERMS if name != "em_kd"), "dskd", "uld"])
def test_no_term_loops_over_samples(name, make_features):
    """TRL's GOLD compares answers sample by sample, a dozen kernels each; here a batch costs the operations of a sample.

    EM-KD's assignment is an algorithm for one sample on the CPU, wherever it is done.
    """
    counts = []
    for batch in (3, 24):
        teacher = make_features(D_T, V, (8,) * batch, (3,) * batch, seed=1)
        student = make_features(D_S, V, (7,) * batch, (3,) * batch, seed=2)
        loss = None if name == "uld" else make(name)
        heads = {}
        if name == "dskd":
            teacher, student = embedded(teacher), embedded(student)
            heads = {"lm_head": torch.randn(V, D_S), "teacher_lm_head": torch.randn(V, D_T)}
        logits = teacher.answer_logits, student.answer_logits, teacher.answer_mask, student.answer_mask
        with CountedOperations() as counted:
            if loss is None:
                uld_loss(*logits)
            else:
                loss(student, teacher, **heads)
        counts.append(counted.count)
    assert counts[0] == counts[1] > 5
