"""The equations of MIC against slow references, hand-made values, invariances, finite differences and edge cases."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hf_mic.functional
import hf_mic.layers
from hf_mic.functional import (
    TokenStatistics,
    masked_mean,
    similarity_distillation_loss,
    soft_collapse_from_statistics,
    soft_collapse_loss,
    spectral_isotropy_loss,
    token_statistics,
)
from hf_mic.statistics import feature_gram, similarity_divergence

WIDTH = 10
DIMS = [7, 1, 4, 9, 4]  # neither sorted nor unique


def random_tokens(batch=5, length=8, width=WIDTH, seed=0, dtype=torch.float64, scale=0.6):
    """States with correlated features, and masks of any pattern, one sequence of a single token among them."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    states = scale * (states + 0.5 * states @ mixing) + 2.0
    mask = (torch.rand(batch, length, generator=generator) < 0.7).long()
    mask[:, 0] = 1
    mask[0] = 1
    mask[1, 1:] = 0
    return states.to(dtype), mask


def random_embeddings(batch=6, width=WIDTH, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(2.0, 0.3, width, dtype=torch.float64)
    return (torch.randn(batch, width, generator=generator, dtype=torch.float64) * scales + 0.2).to(dtype)


# ---- slow references ------------------------------------------------------------------------------------------------


def slow_scr(states, mask, d, tau, var_weight, eps=1e-5):
    """One prefix length, one sequence, one pair of features at a time."""
    width = states.size(-1)
    correlations, stds, tokens = [], [], 0
    for sequence, valid in zip(states, mask, strict=True):
        x = sequence[valid.bool()]
        if len(x) < 2:
            continue
        tokens += len(x)
        std = [math.sqrt(sum((v - x[:, j].mean()) ** 2 for v in x[:, j]) / len(x) + eps) for j in range(width)]
        z = [[(v - x[:, j].mean()) / std[j] for v in x[:, j]] for j in range(width)]
        correlations.append(
            [[sum(a * b for a, b in zip(z[u], z[v], strict=True)) / len(x) for v in range(d, width)] for u in range(d)]
        )
        stds.append(std)
    tau = 2 / math.sqrt(tokens) if tau == "auto" else tau
    mean = np.mean(np.array(correlations, dtype=float), axis=0)
    corr = np.mean(np.maximum(0, np.abs(mean) - tau) ** 2)
    std = np.mean(stds, axis=0)
    var = max(0, 1 - std[:d].mean()) + 0.5 * max(0, 1 - std[d:].mean())
    return corr + var_weight * var


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def slow_sir(z, d, t, cv_mode):
    prefix = z[:, :d].numpy()
    centred = prefix - prefix.mean(axis=0)
    covariance = centred.T @ centred / len(prefix)
    spectrum = np.diag(covariance) if cv_mode == "diagonal" else np.linalg.eigvalsh(covariance)
    cv = np.sqrt(np.mean((spectrum - spectrum.mean()) ** 2)) / spectrum.mean()
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
    uniformity = np.log(sum(np.exp(-2 * t * (1 - cosine(prefix[i], prefix[j]))) for i, j in pairs) / len(pairs))
    return 0.5 * (cv + uniformity)


def slow_distillation(z, teacher, d, t_student, t_teacher):
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        target = torch.tensor([cosine(teacher[i].numpy(), teacher[j].numpy()) / t_teacher for j in others])
        student = torch.tensor([cosine(z[i, :d].numpy(), z[j, :d].numpy()) / t_student for j in others])
        kl = F.kl_div(student.log_softmax(0), target.log_softmax(0), log_target=True, reduction="sum")
        total += kl.item()
    return total / len(z)


@pytest.mark.parametrize("tau", [0.0, 0.15, "auto"])
@pytest.mark.parametrize(("seed", "var_weight", "scale"), [(0, 1.0, 0.6), (1, 0.3, 0.1), (2, 0.0, 3.0)])
def test_soft_collapse_equals_the_loop(tau, seed, var_weight, scale):
    states, mask = random_tokens(seed=seed, scale=scale)
    values = soft_collapse_loss(states, mask, DIMS, tau=tau, var_weight=var_weight)
    expected = [slow_scr(states, mask, d, tau, var_weight) for d in DIMS]
    assert values.shape == (len(DIMS),)
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert values[1] != values[2]
    assert values[2] == values[4]


@pytest.mark.parametrize("cv_mode", ["diagonal", "eigen"])
@pytest.mark.parametrize(("batch", "t"), [(6, 2.0), (24, 0.5), (2, 2.0)])  # fewer and more rows than coordinates
def test_isotropy_equals_the_formula(cv_mode, batch, t):
    z = random_embeddings(batch)
    dims = [*DIMS, WIDTH]
    values = spectral_isotropy_loss(z, dims, t=t, eps=1e-14, cv_mode=cv_mode)
    expected = torch.tensor([slow_sir(z, d, t, cv_mode) for d in dims], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-7)


def test_the_two_coefficients_of_variation_differ_on_correlated_coordinates():
    z = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(50, 4).contiguous()
    diagonal, eigen = (spectral_isotropy_loss(z, [4], cv_mode=mode) for mode in ("diagonal", "eigen"))
    # rank one with equal variances: CV 0 on the diagonal, sqrt(d - 1) for the eigenvalues (1, 0, 0, 0)
    torch.testing.assert_close(2 * (eigen - diagonal), torch.tensor([math.sqrt(3)], dtype=torch.float64))


@pytest.mark.parametrize("temperatures", [(0.05, 0.05), (0.1, 0.02)])
def test_distillation_equals_the_loop(temperatures):
    z = random_embeddings(7)
    teacher = random_embeddings(7, width=15, seed=3)
    t_student, t_teacher = temperatures
    options = {"student_temperature": t_student, "teacher_temperature": t_teacher, "eps": 0.0}
    for given, reference in ((None, z), (teacher, teacher)):
        values = similarity_distillation_loss(z, DIMS, teacher=given, **options)
        expected = [slow_distillation(z, reference, d, t_student, t_teacher) for d in DIMS]
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-7)
        assert (values > 0).all()


def test_the_teacher_is_detached():
    z = random_embeddings().requires_grad_()
    teacher = random_embeddings(seed=4).requires_grad_()
    similarity_distillation_loss(z, [3], teacher=teacher).sum().backward()
    assert teacher.grad is None
    assert z.grad[:, :3].abs().min() > 0
    assert (z.grad[:, 3:] == 0).all()  # the own full width is no teacher here, and no gradient path either
    z.grad = None
    similarity_distillation_loss(z, [3]).sum().backward()
    assert (z.grad[:, 3:] == 0).all()


# ---- hand-made values -----------------------------------------------------------------------------------------------


def test_hand_made_soft_collapse():
    x = torch.tensor([1.0, 1.0, -1.0, -1.0])
    y = torch.tensor([1.0, -1.0, 1.0, -1.0])
    h = torch.stack([x, x, y], dim=1).unsqueeze(0)  # C over d=1: (1, 0); over d=2: (0, 0)
    mask = torch.ones(1, 4)
    options = {"var_weight": 0.0, "eps": 0.0}
    torch.testing.assert_close(soft_collapse_loss(h, mask, [1, 2], tau=0.0, **options), torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(soft_collapse_loss(h, mask, [1], tau=0.4, **options), torch.tensor([0.18]))
    torch.testing.assert_close(soft_collapse_loss(-h, mask, [1], tau=0.0, **options), torch.tensor([0.5]))
    torch.testing.assert_close(
        soft_collapse_loss(h, mask, [1], tau="auto", **options), torch.tensor([0.0])
    )  # 2/sqrt(4)
    # a sequence in which the two features oppose each other cancels the one in which they agree
    opposed = torch.cat([h, torch.stack([x, -x, y], dim=1).unsqueeze(0)])
    torch.testing.assert_close(soft_collapse_loss(opposed, torch.ones(2, 4), [1], tau=0.0, **options), torch.zeros(1))


def test_hand_made_variance_floor():
    x = torch.tensor([1.0, -1.0]).view(1, 2, 1)
    h = torch.cat([0.2 * x, 0.6 * x, 0.5 * x, 3.0 * x], dim=2)  # std 0.2, 0.6, 0.5, 3
    values = soft_collapse_loss(h, torch.ones(1, 2), [1, 2, 3], tau=1.0, eps=0.0)
    # prefix means 0.2, 0.4, 1.3/3; residual means 4.1/3, 1.75, 3: above the floor, not rewarded
    torch.testing.assert_close(values, torch.tensor([0.8, 0.6, 1 - 1.3 / 3]))
    small = soft_collapse_loss(0.1 * h, torch.ones(1, 2), [2], tau=1.0, eps=0.0, var_weight=2.0)
    torch.testing.assert_close(small, torch.tensor([2.0 * (0.96 + 0.5 * (1 - 0.175))]))


def test_hand_made_isotropy():
    z = torch.tensor([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    # variances 4 and 1: mean 2.5, standard deviation 1.5; cosines 0.6, -0.6, -1 between the corners
    uniformity = math.log((math.exp(-4 * 0.4) + math.exp(-4 * 1.6) + math.exp(-8)) / 3)
    expected = torch.tensor([0.5 * (0.6 + uniformity)])
    for mode in ("diagonal", "eigen"):  # the covariance is diagonal
        torch.testing.assert_close(spectral_isotropy_loss(z, [2], cv_mode=mode), expected)


def test_hand_made_distillation():
    z = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    t = 0.5
    full = torch.tensor([[0.5**0.5, 0.0], [0.5**0.5, 0.0], [0.0, 0.0]], dtype=torch.float64) / t
    short = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64) / t
    expected = F.kl_div(short.log_softmax(1), full.log_softmax(1), log_target=True, reduction="batchmean")
    values = similarity_distillation_loss(z, [2, 3], student_temperature=t, teacher_temperature=t)
    torch.testing.assert_close(values, torch.stack([expected, torch.zeros_like(expected)]))


# ---- invariances ----------------------------------------------------------------------------------------------------


def terms_of_tokens(states, mask):
    scr = soft_collapse_loss(states, mask, DIMS, tau=0.05)
    return torch.cat([scr, spectral_isotropy_loss(masked_mean(states, mask), DIMS)])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("filler", [0.0, 1e30, float("inf"), float("nan")])
def test_padding_changes_nothing_and_gets_no_gradient(side, filler):
    generator = torch.Generator().manual_seed(1)
    lengths = [6, 1, 3, 4]
    rows = [torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in lengths]

    def padded(total, value):
        states = torch.full((len(rows), total, WIDTH), value, dtype=torch.float64)
        mask = torch.zeros(len(rows), total, dtype=torch.long)
        for i, row in enumerate(rows):
            where = slice(0, len(row)) if side == "right" else slice(total - len(row), total)
            states[i, where], mask[i, where] = row, 1
        return states.requires_grad_(), mask

    plain, plain_mask = padded(6, 0.0)
    filled, filled_mask = padded(9, filler)
    expected, values = terms_of_tokens(plain, plain_mask), terms_of_tokens(filled, filled_mask)
    torch.testing.assert_close(values, expected, rtol=1e-13, atol=1e-13)
    expected.sum().backward()
    values.sum().backward()
    torch.testing.assert_close(filled.grad[filled_mask.bool()], plain.grad[plain_mask.bool()], rtol=1e-12, atol=1e-13)
    assert (filled.grad[~filled_mask.bool()] == 0).all()
    assert filled.grad[filled_mask.bool()].abs().sum() > 0


def test_batch_and_token_order_change_nothing():
    states, mask = random_tokens()
    rows = torch.tensor([3, 0, 4, 1, 2])
    columns = torch.tensor([5, 2, 0, 7, 1, 6, 3, 4])
    expected = terms_of_tokens(states, mask)
    torch.testing.assert_close(terms_of_tokens(states[rows], mask[rows]), expected, rtol=1e-12, atol=1e-12)
    moved = terms_of_tokens(states[:, columns], mask[:, columns])
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-12)
    z = masked_mean(states, mask)
    for loss in (similarity_distillation_loss, spectral_isotropy_loss):
        torch.testing.assert_close(loss(z[rows], DIMS), loss(z, DIMS), rtol=1e-10, atol=1e-12)


def test_one_call_for_all_dims_equals_a_call_for_each():
    states, mask = random_tokens(dtype=torch.float32)
    z = masked_mean(states, mask)
    for together, alone in (
        (soft_collapse_loss(states, mask, DIMS), [soft_collapse_loss(states, mask, [d]) for d in DIMS]),
        (spectral_isotropy_loss(z, DIMS), [spectral_isotropy_loss(z, [d]) for d in DIMS]),
        (
            spectral_isotropy_loss(z, DIMS, cv_mode="eigen"),
            [spectral_isotropy_loss(z, [d], cv_mode="eigen") for d in DIMS],
        ),
        (similarity_distillation_loss(z, DIMS), [similarity_distillation_loss(z, [d]) for d in DIMS]),
    ):
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_scale_and_shift():
    """Correlations, CV and uniformity do not see the scale; SCR does not see the mean of a sequence."""
    states, mask = random_tokens()
    options = {"tau": 0.05, "var_weight": 0.0, "eps": 1e-14}
    expected = soft_collapse_loss(states, mask, DIMS, **options)
    shifted = 5.0 * states + torch.randn(5, 1, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(soft_collapse_loss(shifted, mask, DIMS, **options), expected)
    z = masked_mean(states, mask)
    for mode in ("diagonal", "eigen"):
        values = [spectral_isotropy_loss(s * z, DIMS, eps=1e-14, cv_mode=mode) for s in (1.0, 7.0)]
        torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=1e-7)
    turned = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
    z = z[:, :4]
    eigen = [spectral_isotropy_loss(x, [4], cv_mode="eigen") for x in (z, z @ turned)]
    torch.testing.assert_close(eigen[1], eigen[0])  # eigenvalues survive a rotation,
    diagonal = [spectral_isotropy_loss(x, [4]) for x in (z, z @ turned)]
    assert (diagonal[1] - diagonal[0]).abs() > 1e-2  # the diagonal does not


def test_statistics_of_two_halves_add_up():
    states, mask = random_tokens(batch=8)
    whole, first, second = (token_statistics(states[s], mask[s]) for s in (slice(None), slice(3), slice(3, None)))
    names = ("correlation_sum", "std_sum", "num_sequences", "num_tokens")
    total = TokenStatistics(*(getattr(first, name) + getattr(second, name) for name in names))
    assert whole.num_sequences == sum(mask.sum(1) > 1)
    assert whole.num_tokens == mask.sum() - (mask.sum(1) == 1).sum()
    for tau in (0.1, "auto"):
        expected = soft_collapse_loss(states, mask, DIMS, tau=tau)
        torch.testing.assert_close(soft_collapse_from_statistics(total, DIMS, tau=tau), expected)
        halves = [soft_collapse_from_statistics(part, DIMS, tau=tau) for part in (first, second)]
        assert not torch.allclose((3 * halves[0] + 5 * halves[1]) / 8, expected, rtol=1e-2)


def test_correlations_that_no_prefix_needs_are_left_out():
    states, mask = random_tokens()
    states.requires_grad_()
    whole, part = token_statistics(states, mask), token_statistics(states, mask, dims=DIMS)
    needed = torch.zeros(WIDTH, WIDTH, dtype=torch.bool)
    for d in DIMS:
        needed[:d, d:] = True
    assert 0 < needed.sum() < WIDTH**2 / 2
    torch.testing.assert_close(part.correlation_sum, whole.correlation_sum * needed)
    assert torch.equal(part.std_sum, whole.std_sum)
    gradients = []
    for statistics in (whole, part):
        loss = soft_collapse_from_statistics(statistics, DIMS, tau=0.01).sum()
        gradients.append(torch.autograd.grad(loss, states)[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    with pytest.raises(ValueError, match="leaves no residual"):
        token_statistics(states, mask, dims=[WIDTH])


@pytest.mark.parametrize("dims", [None, [3, 1, 3]])
def test_gradcheck_gram(dims):
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: feature_gram(a, dims), x)
    assert torch.autograd.gradgradcheck(lambda a: feature_gram(a, dims), x)
    torch.testing.assert_close(feature_gram(x), x.T @ x)


def test_masks_of_any_number_type_are_the_same():
    states, mask = random_tokens()
    for kind in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(soft_collapse_loss(states, mask.to(kind), DIMS), soft_collapse_loss(states, mask, DIMS))
        assert torch.equal(masked_mean(states, mask.to(kind)), masked_mean(states, mask))


# ---- gradients, precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.1, "auto"])
def test_gradcheck_soft_collapse(tau):
    states, mask = random_tokens(batch=3, length=4, width=5, seed=5)
    loss = lambda h: soft_collapse_loss(h, mask, [2, 1, 4], tau=tau)  # noqa: E731
    assert torch.autograd.gradcheck(loss, states.requires_grad_())


@pytest.mark.parametrize("cv_mode", ["diagonal", "eigen"])
def test_gradcheck_isotropy(cv_mode):
    z = random_embeddings(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spectral_isotropy_loss(x, [3, 6, 2], cv_mode=cv_mode), z)


def test_gradcheck_distillation():
    z, teacher = random_embeddings(5, 6).requires_grad_(), random_embeddings(5, 8, seed=1)
    options = {"teacher": teacher, "student_temperature": 0.5, "teacher_temperature": 0.3}
    assert torch.autograd.gradcheck(lambda x: similarity_distillation_loss(x, [3, 6, 2], **options), z)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_inputs_are_computed_in_float32(dtype, bound):
    states, mask = random_tokens(batch=16, length=20, width=32, dtype=torch.float32)
    z = random_embeddings(32, 32, dtype=torch.float32)
    dims = [4, 8, 16]
    losses = {
        "scr": (lambda x: soft_collapse_loss(x, mask, dims, tau=0.02), states),
        "sir": (lambda x: spectral_isotropy_loss(x, dims), z),
        "eigen": (lambda x: spectral_isotropy_loss(x, dims, cv_mode="eigen"), z),
        "distill": (lambda x: similarity_distillation_loss(x, dims), z),
    }
    for name, (loss, exact) in losses.items():
        rounded = exact.to(dtype).requires_grad_()
        value = loss(rounded)
        assert value.dtype == torch.float32, name
        assert torch.equal(value, loss(rounded.float())), name  # nothing but the input is rounded
        torch.testing.assert_close(value, loss(exact), rtol=bound, atol=bound * 0.1)
        value.sum().backward()
        reference = exact.clone().requires_grad_()
        loss(reference).sum().backward()
        error = (rounded.grad.float() - reference.grad).norm() / reference.grad.norm()
        assert rounded.grad.dtype == dtype
        assert error < 5 * bound, (name, error)


def test_autocast_changes_nothing():
    states, mask = random_tokens(dtype=torch.float32)
    z = masked_mean(states, mask)
    calls = [
        lambda: soft_collapse_loss(states, mask, DIMS),
        lambda: spectral_isotropy_loss(z, DIMS),
        lambda: spectral_isotropy_loss(z, DIMS, cv_mode="eigen"),
        lambda: similarity_distillation_loss(z, DIMS),
        lambda: masked_mean(states, mask),
    ]
    for call in calls:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = call()
        assert inside.dtype == torch.float32
        assert torch.equal(inside, call())


def test_float64_stays_float64():
    states, mask = random_tokens()
    z = masked_mean(states, mask)
    for value in (terms_of_tokens(states, mask), similarity_distillation_loss(z, DIMS), z):
        assert value.dtype == torch.float64


def test_large_values_keep_their_precision():
    states, mask = random_tokens(scale=1.0)
    exact = soft_collapse_loss(states + 1e3, mask, DIMS)
    rounded = soft_collapse_loss((states + 1e3).float(), mask, DIMS)  # a massive activation shifts a feature
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=1e-4)


# ---- edge cases -----------------------------------------------------------------------------------------------------


def finite_with_gradient(loss, x):
    x = x.clone().requires_grad_()
    value = loss(x)
    assert torch.isfinite(value).all()
    value.sum().backward()
    assert torch.isfinite(x.grad).all()
    return value.detach(), x.grad


EMBEDDING_LOSSES = {
    "diagonal": lambda z: spectral_isotropy_loss(z, [2, 4]),
    "eigen": lambda z: spectral_isotropy_loss(z, [2, 4], cv_mode="eigen"),
    "distill": lambda z: similarity_distillation_loss(z, [2, 4]),
}


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
@pytest.mark.parametrize(
    "z",
    [
        torch.zeros(4, 6),
        torch.ones(4, 6),
        torch.tensor([[0.3, -2.0, 0.0, 1.0, 0.0, 5.0]]).expand(5, 6),
        torch.cat([torch.zeros(2, 6), torch.randn(3, 6, generator=torch.Generator().manual_seed(0))]),
        torch.cat([torch.zeros(5, 4), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))], dim=1),
        torch.randn(2, 6, generator=torch.Generator().manual_seed(0)),
        1e-6 * torch.randn(5, 6, generator=torch.Generator().manual_seed(0)),
        1e6 * torch.randn(5, 6, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["zeros", "ones", "equal", "some zero", "zero prefix", "two", "tiny", "huge"],
)
def test_degenerate_embeddings_stay_finite(name, z):
    finite_with_gradient(EMBEDDING_LOSSES[name], z)


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
def test_too_small_a_batch_is_a_zero_in_the_graph(name):
    for batch in (1, 2) if name == "distill" else (1,):
        value, gradient = finite_with_gradient(EMBEDDING_LOSSES[name], random_embeddings(batch, 6))
        assert (value == 0).all()
        assert (gradient == 0).all()


def test_all_equal_sentences_are_the_worst_case_of_uniformity():
    same = torch.tensor([[1.0, 2.0, 3.0]]).expand(6, 3)
    torch.testing.assert_close(spectral_isotropy_loss(same, [3]), torch.zeros(1), atol=1e-6, rtol=0)  # log 1
    assert (spectral_isotropy_loss(random_embeddings(6, 3), [3]) < 0).all()


def test_degenerate_tokens_stay_finite():
    states, mask = random_tokens(dtype=torch.float32)
    loss = lambda m: lambda h: soft_collapse_loss(h, m, DIMS)  # noqa: E731
    ones = torch.ones_like(mask)
    constant = states.clone()
    constant[..., 3] = 7.0
    value, _ = finite_with_gradient(loss(mask), constant)
    assert (value > 0).all()
    value, _ = finite_with_gradient(loss(ones), torch.zeros_like(states))
    torch.testing.assert_close(value, torch.full((len(DIMS),), 1.5), atol=1e-2, rtol=0)  # (1 + 1/2) minus sqrt(eps)
    finite_with_gradient(loss(ones), states[:, :1].expand_as(states))
    finite_with_gradient(loss(ones[:1]), states[:1])
    # sequences without correlation are left out: none, one or all tokens masked
    only = torch.zeros_like(mask)
    only[:, 2] = 1
    only[3] = 0
    value, gradient = finite_with_gradient(loss(only), states)
    assert (value == 0).all()
    assert (gradient == 0).all()
    value, gradient = finite_with_gradient(loss(ones[:, :1]), states[:, :1])
    assert (value == 0).all()
    some = mask.clone()
    some[1:3] = only[1:3]
    kept = [0, 3, 4]
    torch.testing.assert_close(
        soft_collapse_loss(states, some, DIMS), soft_collapse_loss(states[kept], mask[kept], DIMS)
    )
    assert (masked_mean(states, only)[3] == 0).all()


def test_soft_threshold_leaves_small_correlations_alone():
    states, mask = random_tokens()
    loss = lambda h: soft_collapse_loss(h, mask, [4], tau=1.0, var_weight=0.0)  # noqa: E731
    value, gradient = finite_with_gradient(loss, states)
    assert value == 0
    assert (gradient == 0).all()


# ---- noise floors and directions ------------------------------------------------------------------------------------


def test_noise_floors():
    generator = torch.Generator().manual_seed(0)
    batch, length, width = 40, 25, 64
    statistics = token_statistics(torch.randn(batch, length, width, generator=generator), torch.ones(batch, length))
    noise = (statistics.correlation_sum / batch)[:32, 32:].std()
    assert noise.item() == pytest.approx(1 / math.sqrt(batch * length), rel=0.05)
    # twice the noise lets 4.6 % of the entries through, and little of each
    hard, soft = (
        soft_collapse_from_statistics(statistics, [32], tau=tau, var_weight=0.0).item() for tau in (0.0, "auto")
    )
    assert hard == pytest.approx(1 / (batch * length), rel=0.1)
    assert soft < 0.02 * hard

    z = torch.randn(512, 64, generator=generator)
    uniformity = -4 + 8 / 64
    diagonal, eigen = (2 * spectral_isotropy_loss(z, [64], cv_mode=mode).item() for mode in ("diagonal", "eigen"))
    assert diagonal - uniformity == pytest.approx(math.sqrt(2 / 512), abs=0.03)
    assert eigen - uniformity == pytest.approx(math.sqrt(64 / 512), abs=0.03)


def test_descent_does_what_the_terms_promise():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(6) + 0.5 * torch.randn(6, 6, generator=generator)
    states = 0.2 * torch.randn(24, 12, 6, generator=generator) @ mixing
    mask = torch.ones(24, 12)

    def descend(loss):
        matrix = torch.eye(6).requires_grad_()
        optimizer = torch.optim.Adam([matrix], lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss(states @ matrix).backward()
            optimizer.step()
        return states @ matrix.detach()

    def correlation(h):
        return (token_statistics(h, mask).correlation_sum[:3, 3:] / 24).square().mean().item()

    def spread(h):
        spectrum = torch.linalg.eigvalsh(h.mean(dim=1)[:, :3].T.cov())
        return (spectrum.std() / spectrum.mean()).item()

    apart = descend(lambda h: soft_collapse_loss(h, mask, [3], tau=0.02).sum())
    assert correlation(apart) < 0.05 * correlation(states)
    assert states.std(dim=1).mean() < 0.5 < 0.9 < apart.std(dim=1).mean()
    even = descend(lambda h: spectral_isotropy_loss(h.mean(dim=1), [3], cv_mode="eigen").sum())
    assert spread(even) < 0.1 * spread(states)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, m, z: soft_collapse_loss(h, m, [WIDTH]), "leaves no residual"),
        (lambda h, m, z: soft_collapse_loss(h, m, [4, 0]), r"dims \[0\] are out of range: the width is 10"),
        (lambda h, m, z: soft_collapse_loss(h, m, []), "dims is empty"),
        (lambda h, m, z: soft_collapse_loss(h, m, [4], tau=-0.1), "tau=.*: must be >= 0"),
        (lambda h, m, z: soft_collapse_loss(h, m, [4], tau=math.nan), "tau=.*: must be >= 0"),
        (lambda h, m, z: soft_collapse_loss(h, m, [4], tau="automatic"), "tau=.*: must be >= 0"),
        (lambda h, m, z: soft_collapse_loss(h[0], m, [4]), r"\(B, L, D\)"),
        (lambda h, m, z: soft_collapse_loss(h, m[:, 1:], [4]), r"\(5, 7\)"),
        (lambda h, m, z: spectral_isotropy_loss(z, [WIDTH + 1]), "allowed are 1 to 10"),
        (lambda h, m, z: spectral_isotropy_loss(h, [4]), r"\(B, D\)"),
        (lambda h, m, z: spectral_isotropy_loss(z, [4], t=0.0), "t=0.0: must be > 0"),
        (lambda h, m, z: spectral_isotropy_loss(z, [4], cv_mode="full"), "cv_mode='full': must be one of"),
        (lambda h, m, z: similarity_distillation_loss(z, []), "dims is empty"),
        (lambda h, m, z: similarity_distillation_loss(z, [4], teacher=z[1:]), "they must match"),
        (lambda h, m, z: similarity_distillation_loss(z, [4], teacher=h), r"\(B, D\)"),
        (lambda h, m, z: similarity_distillation_loss(z, [4], student_temperature=0.0), "student_temperature=0.0"),
        (lambda h, m, z: similarity_distillation_loss(z, [4], teacher_temperature=-1), "teacher_temperature=-1"),
    ],
)
def test_bad_arguments(call, message):
    states, mask = random_tokens()
    with pytest.raises(ValueError, match=message):
        call(states, mask, random_embeddings())


def test_all_names_are_public():
    """The names of ``hf_mic.functional`` are a contract, also those that are defined elsewhere."""
    assert set(hf_mic.functional.__all__) == {
        "TokenStatistics",
        "masked_mean",
        "similarity_distillation_loss",
        "soft_collapse_from_statistics",
        "soft_collapse_loss",
        "spectral_isotropy_loss",
        "token_statistics",
    }
    assert set(hf_mic.functional.__all__) <= set(dir(hf_mic.functional))


def test_similarity_divergence_is_the_slow_sum_over_the_others():
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((5, 5), (2, 5, 5)))
    for number, value in enumerate(similarity_divergence(teacher, student, 0.3, 0.2)):
        total = 0.0
        for i in range(5):
            others = [j for j in range(5) if j != i]
            p, q = (
                torch.tensor([row[j].item() / t for j in others]).exp()
                for row, t in ((teacher[i], 0.3), (student[number, i], 0.2))
            )
            p, q = p / p.sum(), q / q.sum()
            total += (p * (p / q).log()).sum().item() / 5
        assert value.item() == pytest.approx(total, rel=1e-5)


def test_isotropy_of_an_even_cloud_is_as_negative_as_the_docs_say():
    values = spectral_isotropy_loss(torch.randn(2000, 384, generator=torch.Generator().manual_seed(0)), [64, 384])
    torch.testing.assert_close(values, torch.tensor([-2 + 4 / 64, -2 + 4 / 384]), atol=0.03, rtol=0)
