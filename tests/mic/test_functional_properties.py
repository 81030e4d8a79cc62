"""What the formulas of SCR, SIR and self-distillation say of every batch: invariances, bounds, gradients; by hypothesis."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_mic.functional import similarity_distillation_loss, soft_collapse_loss, spectral_isotropy_loss

MODES = st.sampled_from(["diagonal", "eigen"])


@st.composite
def clouds(draw, least=2):
    """Embeddings in float64 and prefix lengths. Shape: (B, D)."""
    batch, width = draw(st.integers(least, 8)), draw(st.integers(2, 10))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    spread = torch.rand(width, generator=random, dtype=torch.float64) + 0.1
    return torch.randn(batch, width, generator=random, dtype=torch.float64) * spread, sorted(
        draw(st.lists(st.integers(1, width), min_size=1, max_size=3, unique=True))
    )


@st.composite
def states(draw):
    """Hidden states in float64, their mask, prefix lengths below the width. Shapes: (B, L, D), (B, L)."""
    batch, length, width = draw(st.integers(1, 4)), draw(st.integers(2, 7)), draw(st.integers(2, 8))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    hidden = torch.randn(batch, length, width, generator=random, dtype=torch.float64)
    mask = torch.arange(length) < torch.randint(2, length + 1, (batch, 1), generator=random)
    return hidden, mask, sorted(draw(st.lists(st.integers(1, width - 1), min_size=1, max_size=3, unique=True)))


def close(found, expected, tolerance=1e-7):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def shuffled(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def rotation(width, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=random, dtype=torch.float64))[0]


@given(states(), st.integers(0, 99))
def test_scr_does_not_depend_on_the_order_of_sequences_tokens_or_features(given_states, seed):
    hidden, mask, dims = given_states
    loss = soft_collapse_loss(hidden, mask, dims)
    rows, tokens = shuffled(len(hidden), seed), shuffled(hidden.size(1), seed)
    close(soft_collapse_loss(hidden[rows], mask[rows], dims), loss)
    close(soft_collapse_loss(hidden[:, tokens], mask[:, tokens], dims), loss)
    for place, dim in enumerate(dims):  # within the prefix, and within the rest
        width = hidden.size(2)
        order = torch.cat([shuffled(dim, seed), dim + shuffled(width - dim, seed)])
        close(soft_collapse_loss(hidden[:, :, order], mask, [dim])[0], loss[place])


@given(states(), st.floats(-5, 5), st.floats(-9, 9), st.integers(1, 3))
def test_scr_sees_neither_offsets_nor_padding(given_states, offset, filler, more):
    hidden, mask, dims = given_states
    loss = soft_collapse_loss(hidden, mask, dims)
    close(soft_collapse_loss(hidden + offset, mask, dims), loss)
    padded = torch.nn.functional.pad(hidden.masked_fill(~mask[:, :, None], filler), (0, 0, 0, more), value=filler)
    close(soft_collapse_loss(padded, torch.nn.functional.pad(mask, (0, more)), dims), loss)


@given(states(), st.floats(1, 50))
def test_the_correlation_term_sees_no_scale_and_no_sign_of_a_feature(given_states, scale):
    """The variance floor does, which is its purpose: it falls as spreads grow, and is gone where all are above one."""
    hidden, mask, dims = given_states
    terms = {"var_weight": 0.0, "eps": 1e-12}
    loss = soft_collapse_loss(hidden, mask, dims, **terms)
    factors = torch.linspace(1, scale, hidden.size(2), dtype=torch.float64)
    factors[::2] *= -1
    close(soft_collapse_loss(hidden * factors, mask, dims, **terms), loss, 1e-5)
    assert (soft_collapse_loss(hidden * scale, mask, dims) <= soft_collapse_loss(hidden, mask, dims) + 1e-4).all()


@given(states(), st.floats(0, 1), st.floats(0, 2))
def test_scr_lies_between_its_bounds(given_states, tau, var_weight):
    hidden, mask, dims = given_states
    loss = soft_collapse_loss(hidden, mask, dims, tau=tau, var_weight=var_weight)
    assert (loss >= 0).all()
    assert (loss <= (1 - tau) ** 2 + 1.5 * var_weight + 1e-9).all()
    more = soft_collapse_loss(hidden, mask, dims, tau=min(1.0, tau + 0.1), var_weight=var_weight)
    assert (more <= loss + 1e-12).all(), "what is tolerated costs nothing"


@given(clouds(), MODES, st.integers(0, 99))
def test_sir_does_not_depend_on_the_order_of_embeddings_or_coordinates(cloud, mode, seed):
    z, dims = cloud
    loss = spectral_isotropy_loss(z, dims, cv_mode=mode)
    close(spectral_isotropy_loss(z[shuffled(len(z), seed)], dims, cv_mode=mode), loss)
    order = torch.cat([shuffled(dims[0], seed), torch.arange(dims[0], z.size(1))])
    close(spectral_isotropy_loss(z[:, order], dims, cv_mode=mode), loss)


@given(clouds(), MODES, st.floats(0.5, 50))
def test_sir_sees_no_common_scale_nor_what_lies_behind_the_prefix(cloud, mode, scale):
    z, dims = cloud
    loss = spectral_isotropy_loss(z, dims, cv_mode=mode, eps=1e-12)
    close(spectral_isotropy_loss(z * scale, dims, cv_mode=mode, eps=1e-12), loss, 1e-5)
    changed = z.clone()
    changed[:, dims[0] :] += 3.0
    close(spectral_isotropy_loss(changed, dims[:1], cv_mode=mode, eps=1e-12), loss[:1], 1e-5)


@given(clouds(), st.integers(0, 99))
def test_eigenvalues_see_no_rotation_of_the_prefix(cloud, seed):
    """The diagonal of the covariance matrix does: that is why there is another mode."""
    z, dims = cloud
    turned = z.clone()
    turned[:, : dims[0]] = z[:, : dims[0]] @ rotation(dims[0], seed)
    before, after = (spectral_isotropy_loss(x, dims[:1], cv_mode="eigen") for x in (z, turned))
    close(after, before, 1e-5)


@given(clouds(), MODES, st.floats(0.5, 4))
def test_sir_lies_above_what_opposite_points_give(cloud, mode, t):
    """Cosines are at least -1, and a coefficient of variation of d numbers that are not negative is at most sqrt(d - 1)."""
    z, dims = cloud
    loss = spectral_isotropy_loss(z, dims, t=t, cv_mode=mode)
    bound = torch.tensor(dims, dtype=torch.float64).sub(1).sqrt()
    assert (loss >= -2 * t - 1e-9).all()
    assert (loss <= bound / 2 + 1e-6).all()


@given(clouds(least=3), st.integers(0, 99), st.floats(0.5, 50))
def test_distillation_compares_directions_within_the_batch(cloud, seed, scale):
    z, dims = cloud
    loss = similarity_distillation_loss(z, dims)
    assert (loss >= -1e-9).all()
    rows = shuffled(len(z), seed)
    close(similarity_distillation_loss(z[rows], dims), loss)
    close(similarity_distillation_loss(z * scale, dims), loss, 1e-4)
    teacher = z @ rotation(z.size(1), seed)
    close(similarity_distillation_loss(z, dims, teacher=teacher), loss, 1e-4)
    close(similarity_distillation_loss(z, [z.size(1)]), torch.zeros(1, dtype=torch.float64), 1e-6)


@given(clouds(least=3), states(), MODES)
def test_gradients_are_finite_also_where_points_are_the_same(cloud, given_states, mode):
    z, dims = cloud
    hidden, mask, below = given_states
    for points in (z, z[:1].expand(len(z), -1), torch.zeros_like(z), z.to(torch.float32) * 1e15):
        points = points.clone().requires_grad_()
        loss = (
            spectral_isotropy_loss(points, dims, cv_mode=mode).sum() + similarity_distillation_loss(points, dims).sum()
        )
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(points.grad).all()
    for rows in (hidden, torch.ones_like(hidden), torch.zeros_like(hidden)):
        rows = rows.clone().requires_grad_()
        loss = soft_collapse_loss(rows, mask, below).sum()
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(rows.grad).all()
