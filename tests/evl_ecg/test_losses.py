"""EVLECGLoss: the terms and weights of the equation, what each mode trains, what a zero weight costs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_evl_ecg.alignment import alignment_loss, anchor_loss
from hf_evl_ecg.losses import EVLECGLoss
from hf_evl_ecg.ot import ot_matching_loss
from hf_evl_ecg.relations import relation_loss
from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures
from hf_evl_ecg.uld import uld_loss

D_S, D_T, V_S, V_T = 8, 12, 19, 23
LAMBDAS = ("lambda_mhca", "lambda_ot", "lambda_relation", "lambda_uld")


def features(d, v, length, visual, seed, dtype=torch.float32):
    """Two samples; the second is shorter. The answer is predicted by the states before the last ones."""
    gen = torch.Generator().manual_seed(seed)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, -2:] = False
    visual_mask = torch.ones(2, visual, dtype=torch.bool)
    visual_mask[1, -1:] = False
    answer_index = torch.tensor([[length - 4, length - 3, length - 2], [length - 5, length - 4, -1]])
    hidden = torch.randn(2, length, d, generator=gen, dtype=dtype)
    return TokenFeatures(
        hidden=hidden,
        mask=mask,
        visual=torch.randn(2, visual, d, generator=gen, dtype=dtype),
        visual_mask=visual_mask,
        visual_positions=torch.rand(2, visual, 2, generator=gen),
        answer_hidden=hidden.gather(1, answer_index.clamp(min=0)[:, :, None].expand(-1, -1, d)),
        answer_logits=torch.randn(2, 3, v, generator=gen, dtype=dtype),
        answer_ids=torch.randint(v, (2, 3), generator=gen).masked_fill(answer_index < 0, -100),
        answer_mask=answer_index >= 0,
        answer_index=answer_index,
    )


@pytest.fixture
def student():
    result = features(D_S, V_S, length=9, visual=5, seed=0)
    for leaf in (result.hidden, result.visual, result.answer_logits):
        leaf.requires_grad_()
    return result


@pytest.fixture
def teacher():
    return features(D_T, V_T, length=14, visual=7, seed=1)


def make(**options):
    torch.manual_seed(0)
    return EVLECGLoss(D_S, D_T, **{"mhca_num_heads": 2, **options})


def test_terms_are_those_of_the_equation(student, teacher):
    loss = make(alpha=0.3, lambda_mhca=2.0, lambda_ot=3.0, lambda_relation=5.0, lambda_uld=7.0)
    ce = torch.tensor(1.7)
    terms = loss(student, teacher, ce)
    aligned = loss.aligner(student.hidden, teacher.hidden, teacher.mask)
    transport = ot_matching_loss(
        teacher.visual, loss.projector(student.visual), teacher.visual_mask, student.visual_mask
    )
    logits = (teacher.answer_logits, student.answer_logits, teacher.answer_mask, student.answer_mask)
    expected = {
        "ce": 0.7 * ce,
        "mhca": 0.6 * alignment_loss(student.hidden, aligned, student.mask),
        "ot": 0.9 * transport,
        "relation": 1.5 * sum(relation_loss(aligned, student.hidden, student.mask)) / 2,
        "uld": 2.1 * uld_loss(*logits),
    }
    assert list(terms) == ["ce", "mhca", "relation", "ot", "uld"]
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_options_reach_their_functions(student, teacher):
    ce = torch.tensor(1.0)
    plain = make(lambda_uld=1.0)(student, teacher, ce)
    for option, term in {
        "mhca_num_heads": ("mhca", 4),
        "mhca_channel_mean": ("mhca", False),
        "ot_epsilon": ("ot", 0.5),
        "ot_max_iter": ("ot", 1),
        "ot_tol": ("ot", 0.5),
        "ot_position_weight": ("ot", 0.7),
        "relation_subset": ("relation", 3),
        "uld_merge": ("uld", "mean"),
        "uld_temperature": ("uld", 2.0),
        "uld_top_k": ("uld", 2),
    }.items():
        name, value = term
        extra = {"relation_max_tokens": 4} if option == "relation_subset" else {}
        groups = AnswerGroups(torch.tensor([[0, 0, 1]] * 2), torch.tensor([[0, 0, 1]] * 2)) if name == "uld" else None
        base = make(lambda_uld=1.0)(student, teacher, ce, answer_groups=groups)[name] if groups else plain[name]
        changed = make(lambda_uld=1.0, **{option: value}, **extra)(student, teacher, ce, answer_groups=groups)[name]
        assert not torch.allclose(changed, base, rtol=1e-4), option
    pot = make(ot_backend="pot")(student, teacher, ce)["ot"]
    torch.testing.assert_close(pot, plain["ot"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAMBDAS)
def test_each_term_alone_needs_and_owns_only_its_own(name, student, teacher):
    loss = make(**{**dict.fromkeys(LAMBDAS, 0.0), name: 1.0})
    term = name.removeprefix("lambda_")
    assert loss.needs_teacher
    assert loss.needs_hidden == (term in ("mhca", "relation"))
    assert loss.needs_visual == (term == "ot")
    assert loss.needs_logits == (term == "uld")
    assert not loss.needs_lm_head
    bare = {
        "hidden": loss.needs_hidden,
        "visual": loss.needs_visual,
        "answer_logits": loss.needs_logits,
    }
    stripped = []
    for side in (student, teacher):
        values = {field: getattr(side, field) for field in side.__dataclass_fields__}
        for field, needed in bare.items():
            if not needed and field != "hidden":
                values[field] = None
        stripped.append(TokenFeatures(**values))
    terms = loss(*stripped, torch.tensor(1.0))
    assert set(terms) == {"ce", term}
    terms[term].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())
    assert (sum(1 for _ in loss.parameters()) == 0) == (term == "uld")


@pytest.mark.parametrize("options", [{"alpha": 0.0}, dict.fromkeys(LAMBDAS, 0.0)])
def test_without_distillation_no_teacher_and_no_parameters(options, student):
    loss = make(**options)
    assert not loss.needs_teacher
    assert not list(loss.parameters())
    terms = loss(student, None, torch.tensor(2.0))
    assert {name: term.item() for name, term in terms.items()} == {"ce": 2.0 * (1 - options.get("alpha", 0.5))}


def test_alpha_one_leaves_cross_entropy_out(student, teacher):
    assert "ce" not in make(alpha=1.0)(student, teacher, torch.tensor(float("nan")))


def test_paper_mode_trains_student_and_aligner_but_never_the_teacher(student, teacher):
    loss = make()
    teacher.hidden.requires_grad_()
    teacher.visual.requires_grad_()
    sum(loss(student, teacher, torch.tensor(1.0)).values()).backward()
    assert teacher.hidden.grad is None
    assert teacher.visual.grad is None
    assert student.hidden.grad.abs().sum() > 0
    assert student.visual.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_anchored_mode_separates_the_gradients(student, teacher):
    """The anchor trains the aligner alone; alignment and relation train the student alone; the head nothing."""
    loss = make(mhca_mode="anchored", lambda_ot=0.0, lambda_anchor=3.0)
    head = nn.Linear(D_S, V_S, bias=False)
    assert loss.needs_lm_head
    terms = loss(student, teacher, torch.tensor(1.0), lm_head=head)
    assert set(terms) == {"ce", "mhca", "anchor_ce", "relation"}
    aligned = loss.aligner(student.hidden.detach(), teacher.hidden, teacher.mask)
    expected = 1.5 * anchor_loss(aligned, student.answer_index, student.answer_ids, head)
    torch.testing.assert_close(terms["anchor_ce"], expected)
    terms["anchor_ce"].backward(retain_graph=True)
    assert student.hidden.grad is None
    assert head.weight.grad is None
    assert all(p.grad.abs().sum() > 0 for p in loss.aligner.parameters())
    loss.zero_grad()
    (terms["mhca"] + terms["relation"]).backward()
    assert all(p.grad is None for p in loss.aligner.parameters())
    assert student.hidden.grad[student.mask].abs().sum() > 0


def test_relation_alone_in_paper_mode_trains_the_aligner(student, teacher):
    loss = make(lambda_mhca=0.0, lambda_ot=0.0)
    loss(student, teacher, torch.tensor(1.0))["relation"].backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.aligner.parameters())
    both = make(lambda_ot=0.0)
    both(student, teacher, torch.tensor(1.0))["relation"].backward()
    assert all(p.grad is None for p in both.aligner.parameters())


def pad(side, extra):
    """The same features with more padding, filled with NaN."""
    nan = float("nan")

    def widen(x, mask, value=nan):
        x = x.detach().masked_fill(~mask[:, :, None], nan)
        return F.pad(x, (0, 0, 0, extra), value=value)

    return TokenFeatures(
        hidden=widen(side.hidden, side.mask).requires_grad_(),
        mask=F.pad(side.mask, (0, extra)),
        visual=widen(side.visual, side.visual_mask).requires_grad_(),
        visual_mask=F.pad(side.visual_mask, (0, extra)),
        visual_positions=F.pad(side.visual_positions, (0, 0, 0, extra)),
        answer_logits=widen(side.answer_logits, side.answer_mask).requires_grad_(),
        answer_ids=F.pad(side.answer_ids, (0, extra), value=-100),
        answer_mask=F.pad(side.answer_mask, (0, extra)),
        answer_index=F.pad(side.answer_index, (0, extra), value=-1),
    )


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_padding_changes_no_term_and_gets_exactly_zero_gradient(mode, student, teacher):
    loss = make(mhca_mode=mode, lambda_uld=1.0, ot_position_weight=0.3)
    head = nn.Linear(D_S, V_S)
    ce = torch.tensor(1.0)
    expected = loss(student, teacher, ce, lm_head=head)
    wide = pad(student, 3)
    terms = loss(wide, pad(teacher, 4), ce, lm_head=head)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)
    sum(terms.values()).backward()
    for tensor, mask in (
        (wide.hidden, wide.mask), (wide.visual, wide.visual_mask), (wide.answer_logits, wide.answer_mask)
    ):  # fmt: skip
        assert tensor.grad[~mask].eq(0).all()
        assert (tensor.grad[mask].abs().sum(1) > 0).all()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


def test_mean_over_samples_so_a_batch_is_the_mean_of_its_samples(student, teacher):
    loss = make(lambda_uld=1.0)
    both = loss(student, teacher, torch.tensor(1.0))
    cut = [
        [TokenFeatures(**{k: v[i : i + 1] for k, v in vars(s).items() if v is not None}) for s in (student, teacher)]
        for i in range(2)
    ]
    each = [loss(*pair, torch.tensor(1.0)) for pair in cut]
    for name, value in both.items():
        torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2, msg=name)


def test_low_precision_features_give_float32_terms(teacher):
    student = features(D_S, V_S, length=9, visual=5, seed=0, dtype=torch.bfloat16)
    loss = make(lambda_uld=1.0, mhca_mode="anchored")
    head = nn.Linear(D_S, V_S, bias=False, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(student, teacher, torch.tensor(1.0, dtype=torch.bfloat16), lm_head=head)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert all(term.isfinite() for term in terms.values())


def test_variances_are_monitors_and_no_terms(student, teacher):
    loss = make()
    assert loss.monitors == {}
    terms = loss(student, teacher, torch.tensor(1.0))
    assert not {"variance_ratio", "student_variance"} & set(terms)
    aligned = loss.aligner(student.hidden, teacher.hidden, teacher.mask)
    variances = [
        torch.stack([x[i][student.mask[i]].var(0, correction=0).mean() for i in range(2)]).mean()
        for x in (aligned, student.hidden)
    ]
    assert loss.monitors["variance_ratio"].item() == pytest.approx((variances[0] / variances[1]).item(), rel=1e-5)
    assert loss.monitors["student_variance"].item() == pytest.approx(variances[1].item(), rel=1e-5)
    assert not any(value.requires_grad for value in loss.monitors.values())
    assert not any("monitor" in name for name in loss.state_dict())


def test_paper_mode_copies_the_student_where_anchored_keeps_the_teacher(teacher):
    """The known difference of the modes, on a toy: fixed student, trained aligner."""
    student = features(D_S, V_S, length=9, visual=5, seed=0)
    head = nn.Linear(D_S, V_S)
    distance = {}
    for mode in ("paper", "anchored"):
        loss = make(mhca_mode=mode, lambda_ot=0.0, lambda_relation=0.0)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
        for _ in range(150):
            terms = loss(student, teacher, torch.tensor(1.0), lm_head=head)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        distance[mode] = terms["mhca"].item()
    assert distance["paper"] < 0.5 * distance["anchored"]


def test_batch_without_images_keeps_every_parameter_in_the_graph(student, teacher):
    """A text-only batch gives a zero term that still has a gradient path, as synchronised training needs."""
    student.visual_mask[:] = False
    teacher.visual_mask[:] = False
    loss = make()
    terms = loss(student, teacher, torch.tensor(1.0))
    assert terms["ot"].item() == 0
    sum(terms.values()).backward()
    assert loss.projector.weight.grad.eq(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"lambda_ot": -1.0}, "lambda_ot=-1.0"),
        ({"lambda_uld": float("nan")}, "lambda_uld=nan"),
        ({"mhca_mode": "frozen"}, "mhca_mode='frozen': allowed are 'paper', 'anchored'"),
        ({"mhca_mode": "anchored", "lambda_anchor": 0.0}, "untrained aligner"),
        ({"mhca_num_heads": 3}, "num_heads=3: must divide student_dim=8"),
    ],
)
def test_bad_weights_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ot_epsilon": 0.0}, "epsilon=0.0"),
        ({"ot_max_iter": 0}, "max_iter=0"),
        ({"ot_tol": -1.0}, "tol=-1.0"),
        ({"ot_position_weight": 2.0}, "position_weight=2.0"),
        ({"ot_backend": "scipy"}, "backend='scipy'"),
        ({"relation_subset": 2000}, "subset=2000"),
        ({"uld_merge": "sum"}, "merge='sum'"),
        ({"uld_top_k": 0}, "top_k=0"),
        ({"uld_temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_options_are_refused_by_the_term_that_reads_them(options, message, student, teacher):
    with pytest.raises(ValueError, match=message):
        make(lambda_uld=1.0, **options)(student, teacher, torch.tensor(1.0))


def test_missing_inputs_are_named(student, teacher):
    ce = torch.tensor(1.0)
    bare = TokenFeatures(teacher.hidden, teacher.mask, None, None)
    with pytest.raises(ValueError, match="teacher is None"):
        make()(student, None, ce)
    with pytest.raises(ValueError, match="lambda_ot above 0 needs visual and visual_mask of the teacher"):
        make()(student, bare, ce)
    with pytest.raises(ValueError, match="lambda_uld above 0 needs answer_logits and answer_mask of the teacher"):
        make(lambda_ot=0.0, lambda_uld=1.0)(student, bare, ce)
    with pytest.raises(ValueError, match="needs lm_head"):
        make(mhca_mode="anchored")(student, teacher, ce)
