"""Soft codes: a staircase with the right limits and a gradient, and a map that is fitted through it codes better."""

import math

import numpy as np
import pytest
import torch

from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.soft_codes import LEVELS, coded_similarity, soft_codes, soft_quantize
from hf_mic.statistics import similarity_divergence


@pytest.mark.parametrize("bits", [1, 2])
def test_levels_are_those_of_least_error_for_a_normal_coordinate(bits):
    """Each level is the mean of what is nearest to it (Lloyd's condition), by numerical integration."""
    x = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2)
    levels = torch.tensor(LEVELS[bits], dtype=torch.float64)
    nearest = (x[:, None] - levels).abs().argmin(dim=1)
    means = torch.stack([(x * density)[nearest == i].sum() / density[nearest == i].sum() for i in range(len(levels))])
    torch.testing.assert_close(means, levels, atol=2e-4, rtol=0)


@pytest.mark.parametrize("bits", [1, 2])
def test_staircase(bits):
    x = torch.linspace(-4, 4, 97, dtype=torch.float64)
    levels = torch.tensor(LEVELS[bits], dtype=torch.float64)
    exact = levels[(x[:, None] - levels).abs().argmin(dim=1)]
    away = (x[:, None] - (levels[1:] + levels[:-1]) / 2).abs().min(dim=1).values > 0.05
    torch.testing.assert_close(soft_quantize(x, bits, 1000.0)[away], exact[away], atol=1e-6, rtol=0)
    torch.testing.assert_close(soft_quantize(x, bits, math.inf)[away], exact[away], atol=1e-6, rtol=0)
    soft = soft_quantize(x, bits, 3.0)
    assert (soft.diff() > 0).all()
    torch.testing.assert_close(soft, -soft.flip(0))  # the levels are symmetric
    assert torch.autograd.gradcheck(lambda v: soft_quantize(v, bits, 3.0), x[::8].clone().requires_grad_())
    if bits == 1:
        torch.testing.assert_close(soft, levels[1] * torch.tanh(1.5 * x))


def test_similarity_is_that_of_floats_with_codes():
    z = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = coded_similarity(z, [2, 5], bits=2, sharpness=7.0)
    for d, similarity in zip([2, 5], result, strict=True):
        unit = (z[:, :d] / z[:, :d].norm(dim=1, keepdim=True)).numpy()
        standard = (unit - unit.mean(0)) / (unit.std(0) + 1e-6)
        codes = soft_quantize(torch.from_numpy(standard), 2, 7.0).numpy() * (unit.std(0) + 1e-6) + unit.mean(0)
        for i in (0, 7):
            for j in (3, 19):
                assert similarity[i, j] == pytest.approx(unit[i] @ codes[j] / np.linalg.norm(codes[j]))
    assert not torch.allclose(result[0], result[0].T)
    scaled = z * torch.rand(20, 1, dtype=torch.float64).add(0.5)
    torch.testing.assert_close(coded_similarity(scaled, [2, 5], bits=2, sharpness=7.0), result)


@pytest.mark.parametrize(("bits", "rate"), [(1, None), (2, 0.02)])
def test_a_map_fitted_through_the_code_is_better_as_a_code(bits, rate):
    """Vectors whose principal axes are of very unequal spread, which a code of few bits wastes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16)) * 0.8 ** np.arange(16)
    vectors = (np.repeat(centres, 20, axis=0) + 0.1 * rng.normal(size=(1200, 16))).astype(np.float32)
    settings = {"dims": [4, 8], "batch_size": 128, "pool_size": 1200, "steps": 150, "learning_rate": rate}
    through = fit_map(vectors, AdaptConfig(**settings, bits=bits, sir_weight=0), progress=False)
    plain = fit_map(vectors, AdaptConfig(**settings), progress=False)
    unit = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[::3]

    def divergence(fitted):
        mapped = fitted.forward(unit)
        return similarity_divergence(unit @ unit.T, coded_similarity(mapped, [4, 8], bits, math.inf))

    assert (divergence(through) < 0.95 * divergence(plain)).all()
    as_code = soft_codes(torch.from_numpy(through.apply(vectors, dim=8)), bits, math.inf)
    assert len(as_code[:, 0].unique()) == 2**bits
