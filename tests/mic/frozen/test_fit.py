"""Maps of frozen embeddings: rotations stay rotations, every setting has an effect, exports are what was fitted."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW, Normalize
from torch import nn

from hf_mic.frozen.appended import append_to_model
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.frozen.rotations import CayleyAdam, cayley_step, nearest_orthogonal
from hf_mic.frozen.vectors import principal_axes, unit_rows
from hf_mic.functional import similarity_distillation_loss

WIDTH = 24
QUICK = AdaptConfig(dims=[2, 4, 8], batch_size=64, pool_size=256, steps=15)


@pytest.fixture(scope="module")
def vectors():
    """Points around 40 centres that lie in 6 dimensions, hidden by a rotation, with noise in all dimensions."""
    rng = np.random.default_rng(0)
    centres = np.zeros((40, WIDTH))
    centres[:, -6:] = rng.normal(size=(40, 6))
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    points = np.repeat(centres, 25, axis=0) + 0.15 * rng.normal(size=(1000, WIDTH))
    return (points @ basis).astype(np.float32)


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def divergence(rows, original, dims=(2, 4, 8)):
    """Mean distillation loss of the prefixes over the first 300 rows: how far they are from the full width."""
    rows, original = torch.from_numpy(rows[:300]), torch.from_numpy(original[:300])
    options = {"student_temperature": 0.07, "teacher_temperature": 0.07}
    return similarity_distillation_loss(rows, dims, teacher=original, **options).mean().item()


# Rotations


@pytest.mark.parametrize("k", [1, 3, 7])
def test_cayley_step_equals_the_dense_transform(k):
    generator = torch.Generator().manual_seed(k)
    weight = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64)).Q
    update = torch.randn(7, k, generator=generator, dtype=torch.float64)
    update[:k] -= update[:k].T.clone()
    skew = torch.zeros(7, 7, dtype=torch.float64)
    skew[:, :k], skew[:k, k:] = update, -update[k:].T
    eye = torch.eye(7, dtype=torch.float64)
    expected = weight @ torch.linalg.inv(eye + 0.15 * skew) @ (eye - 0.15 * skew)
    result = cayley_step(weight, update, 0.3)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(result.T @ result, eye)


def test_nearest_orthogonal_is_the_polar_factor():
    generator = torch.Generator().manual_seed(0)
    drifted = torch.eye(6, dtype=torch.float64) + 0.02 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(drifted)
    torch.testing.assert_close(nearest_orthogonal(drifted), u @ vh)


def test_cayley_adam_finds_the_top_eigenspace():
    """Maximal variance of the first 3 of 10 rotated coordinates is the sum of the 3 largest eigenvalues."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(10, 10, generator=generator)
    covariance = root @ root.T
    weight = torch.eye(10, requires_grad=True)
    optimizer = CayleyAdam([weight], 0.1, columns=3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (-torch.trace(weight[:, :3].T @ covariance @ weight[:, :3])).backward()
        optimizer.step()
    captured = torch.trace(weight[:, :3].T @ covariance @ weight[:, :3])
    best = torch.linalg.eigvalsh(covariance)[-3:].sum()
    assert captured.item() == pytest.approx(best.item(), rel=1e-3)
    torch.testing.assert_close(weight.T @ weight, torch.eye(10), atol=1e-5, rtol=0)


def test_cayley_adam_step_size_and_refusals():
    weight = torch.eye(4, requires_grad=True)
    optimizer = CayleyAdam([weight], 1e-3)
    loss = optimizer.step(lambda: (weight[0, 1] * 3).backward())
    assert loss is None
    angles = torch.tensor([weight[0, 1].item(), weight[1, 0].item()])
    torch.testing.assert_close(angles.abs(), torch.full((2,), 1e-3 * (16 / 2) ** 0.5), rtol=1e-3, atol=0)
    assert weight[0, 1] < 0  # downhill
    with pytest.raises(ValueError, match="square"):
        CayleyAdam([torch.zeros(2, 3)], 0.1)
    with pytest.raises(ValueError, match=r"columns=4: must lie in \[1, 3\]"):
        CayleyAdam([torch.eye(3)], 0.1, columns=4)


def test_principal_axes_are_those_of_the_svd(vectors):
    unit = unit_rows(vectors).double()
    _, _, vh = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    axes = principal_axes(vectors).double()
    torch.testing.assert_close((axes * vh.T).sum(0).abs()[:6], torch.ones(6, dtype=torch.float64), atol=1e-4, rtol=0)
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()


# Fitting


@pytest.mark.parametrize("kind", ["orthogonal", "linear", "mlp"])
def test_fit_brings_prefixes_near_the_full_width(vectors, kind):
    options = {} if kind == "orthogonal" else {"learning_rate": 5e-3, "hidden_dim": 16}
    settings = {
        "dims": [2, 4, 8],
        "batch_size": 128,
        "pool_size": 512,
        "steps": 120,
        "init": "identity",
        "sir_weight": 0,
        "scr_weight": 0,
    }
    config = AdaptConfig(kind=kind, **settings, **options)
    fitted = fit_map(vectors, config, progress=False)
    mapped = fitted.apply(vectors)
    # from identity, the hidden 6-dimensional structure has to be rotated into the prefixes
    assert divergence(mapped, vectors) < 0.5 * divergence(vectors, vectors)
    assert divergence(mapped, vectors, [WIDTH]) < 0.05
    assert np.linalg.norm(mapped, axis=1) == pytest.approx(1, abs=1e-5)
    assert fitted.losses["distill"] > 0


def test_rotation_keeps_full_width_cosines(vectors):
    fitted = fit_map(vectors, QUICK, progress=False)
    deviation = fitted.weight.double().T @ fitted.weight.double() - torch.eye(WIDTH, dtype=torch.float64)
    assert deviation.abs().max() < 5e-7
    np.testing.assert_allclose(cosines(fitted.apply(vectors[:100])), cosines(vectors[:100]), atol=2e-6)
    assert not np.allclose(
        fitted.apply(vectors[:100], dim=4),
        PrefixMap("orthogonal", principal_axes(vectors)).apply(vectors[:100], dim=4),
        atol=1e-3,
    )


@pytest.mark.parametrize("kind", ["orthogonal", "linear", "mlp"])
def test_same_seed_same_bits(vectors, kind):
    config = dataclasses.replace(QUICK, kind=kind, sir_weight=0.3, scr_weight=0.3)
    first, second = (fit_map(vectors, config, progress=False) for _ in range(2))
    for (name, a), (_, b) in zip(first.tensors(), second.tensors(), strict=True):
        assert torch.equal(a, b), name
    other = fit_map(vectors, dataclasses.replace(config, seed=1), progress=False)
    assert not torch.equal(first.weight, other.weight)


BASE = dataclasses.replace(QUICK, kind="mlp", sir_weight=0.5, scr_weight=0.5, tau=0.02, hidden_dim=8)
CHANGES = {
    "kind": "linear",
    "dims": [2, 4, 9],
    "bits": 1,
    "distill_weight": 0.5,
    "sir_weight": 0.1,
    "scr_weight": 0.1,
    "temperature": 0.2,
    "cv_mode": "diagonal",
    "t": 1.0,
    "tau": 0.1,
    "var_weight": 0.2,
    "init": "identity",
    "hidden_dim": 9,
    "neighbours": 2,
    "pool_size": 128,
    "batch_size": 72,
    "steps": 16,
    "learning_rate": 0.002,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.3,
    "seed": 3,
}


def test_every_setting_has_an_effect(vectors):
    assert set(CHANGES) == {field.name for field in dataclasses.fields(AdaptConfig)}
    reference = fit_map(vectors, BASE, progress=False).apply(vectors)
    for name, value in CHANGES.items():
        assert value != getattr(BASE, name), name
        changed = fit_map(vectors, dataclasses.replace(BASE, **{name: value}), progress=False)
        assert np.abs(changed.apply(vectors) - reference).max() > 1e-6, name


def test_terms_do_what_they_are_for(vectors):
    """SIR alone evens out the spectrum of a prefix; SCR alone decorrelates prefix and residual."""
    settings = {
        "dims": [4],
        "distill_weight": 0,
        "init": "identity",
        "steps": 80,
        "batch_size": 128,
        "neighbours": 0,
        "sir_weight": 0,
        "scr_weight": 0,
    }

    def eigen_cv(rows):
        values = np.linalg.eigvalsh(np.cov(rows[:, :4].T))
        return values.std() / values.mean()

    def excess(rows):
        correlation = np.abs(np.corrcoef(rows.T)[:4, 4:])
        return (np.maximum(0, correlation - 0.1) ** 2).mean()

    unit = unit_rows(vectors).numpy()
    isotropic = fit_map(vectors, AdaptConfig(**{**settings, "sir_weight": 1}), progress=False).apply(vectors)
    assert eigen_cv(isotropic) < 0.5 * eigen_cv(unit)
    decorrelated = fit_map(
        vectors, AdaptConfig(**{**settings, "scr_weight": 1, "var_weight": 0}), progress=False
    ).apply(vectors)
    assert excess(decorrelated) < 0.2 * excess(unit)


def test_isotropy_is_asked_for_where_codes_need_it():
    assert (AdaptConfig().isotropy(), AdaptConfig(bits=1).isotropy(), AdaptConfig(bits=2).isotropy()) == (0, 1, 1)
    assert (AdaptConfig(sir_weight=0.2).isotropy(), AdaptConfig(bits=1, sir_weight=0).isotropy()) == (0.2, 0)
    with pytest.raises(ValueError, match="nothing is optimised"):
        AdaptConfig(distill_weight=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_sources_of_the_same_vectors_give_the_same_map(vectors, dtype, tmp_path):
    vectors = vectors.astype(np.float16)  # values that every dtype holds exactly
    expected = fit_map(vectors.astype(np.float32), QUICK, progress=False).weight
    path = tmp_path / "index.npy"
    np.save(path, vectors.astype(dtype))
    assert torch.equal(fit_map(np.load(path, mmap_mode="r"), QUICK, progress=False).weight, expected)
    assert torch.equal(fit_map(torch.from_numpy(vectors.astype(dtype)), QUICK, progress=False).weight, expected)


def test_bfloat16_tensor_and_scale_are_accepted(vectors):
    rounded = torch.from_numpy(vectors).bfloat16()
    expected = fit_map(rounded.float(), QUICK, progress=False).weight
    assert torch.equal(fit_map(rounded, QUICK, progress=False).weight, expected)
    assert torch.equal(fit_map(rounded.float() * 8, QUICK, progress=False).weight, expected)  # exact in binary


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0], r"shape \(N, D\)"),
        (lambda x: (x * 100).astype(np.int8), "int8: decode"),
        (lambda x: x[:60], "at least as many embeddings, got 60"),
        (lambda x: x[:, :8], "allowed are 1 to 7"),
    ],
)
def test_unusable_embeddings_are_refused(vectors, spoil, message):
    with pytest.raises(ValueError, match=message):
        fit_map(spoil(vectors), QUICK, progress=False)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "row 777 holds NaN"), (np.inf, "row 777 holds"), (0, "row 777 is zero")]
)
def test_bad_rows_are_named(vectors, value, message):
    spoiled = vectors.copy()
    spoiled[777] = value
    with pytest.raises(ValueError, match=message):
        fit_map(spoiled, QUICK, progress=False)
    with pytest.raises(ValueError, match=message):
        PrefixMap("linear", torch.eye(WIDTH)).apply(spoiled, batch_size=100)


def test_divergence_is_reported(vectors):
    config = dataclasses.replace(QUICK, kind="linear", learning_rate=1e30)
    with pytest.raises(ValueError, match=r"diverged at step .*lower learning_rate"):
        fit_map(vectors, config, progress=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kind": "affine"}, "kind=.*: must be one of"),
        ({"bits": 4}, "bits=4: must be one of None, 1, 2"),
        ({"bits": 1, "distill_weight": 0, "sir_weight": 1}, "bits=1: only distillation sees the code"),
        ({"cv_mode": "rank"}, "cv_mode=.*: must be one of"),
        ({"init": "random"}, "init=.*: must be one of"),
        ({"lr_scheduler_type": "step"}, "lr_scheduler_type=.*: must be one of"),
        ({"temperature": 0}, "temperature=.*: must be > 0"),
        ({"t": float("nan")}, "t=.*: must be > 0"),
        ({"learning_rate": -1}, "learning_rate=.*: must be > 0"),
        ({"tau": -0.1}, "tau=-0.1: must be >= 0"),
        ({"sir_weight": -1}, "sir_weight=-1: must be"),
        ({"distill_weight": 0, "sir_weight": 0, "scr_weight": 0}, "nothing is optimised"),
        ({"dims": []}, r"dims=\[\]: must be distinct"),
        ({"dims": [8, 8]}, "must be distinct"),
        ({"batch_size": 2}, "neighbours=7, batch_size=2: must be at least 24"),
        ({"steps": 0}, "steps=.*: must be at least 1"),
        ({"seed": -1}, "seed=.*: must be at least 0"),
        ({"warmup_ratio": 1.0}, "warmup_ratio"),
        ({"neighbours": 256}, "neighbours=256, batch_size=512: must be at least 771"),
        ({"neighbours": 1, "batch_size": 5}, "batch_size=5: must be at least 6"),
        ({"pool_size": 100}, "pool_size=100: must be at least 512"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        AdaptConfig(**setting)


# The map as an object


def test_apply_in_chunks_truncates_and_fills_a_memory_map(vectors, tmp_path):
    fitted = fit_map(vectors, dataclasses.replace(QUICK, kind="mlp", hidden_dim=8), progress=False)
    whole = fitted.apply(vectors)
    target = np.lib.format.open_memmap(tmp_path / "index.npy", mode="w+", dtype=np.float16, shape=(1000, 4))
    assert fitted.apply(vectors, dim=4, out=target, batch_size=77) is target
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "index.npy"), expected, atol=1e-3)
    for bad, message in (
        ({"embeddings": vectors[:, :5]}, r"\(N, 24\)"),
        ({"embeddings": vectors.astype(int)}, "must be float"),
        ({"embeddings": vectors, "dim": 25}, r"\[1, 24\]"),
        ({"embeddings": vectors, "out": np.zeros((3, 3))}, "out must be floating-point of shape"),
        ({"embeddings": vectors, "dim": 4, "out": np.zeros((1000, 4), np.int8)}, "got int8"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.apply(**bad)


@pytest.mark.parametrize("kind", ["orthogonal", "mlp"])
def test_save_and_load(vectors, kind, tmp_path):
    fitted = fit_map(vectors, dataclasses.replace(QUICK, kind=kind), progress=False)
    path = tmp_path / "new" / "map.safetensors"
    fitted.save(path)
    fitted.save(path)  # replaces
    assert [entry.name for entry in path.parent.iterdir()] == ["map.safetensors"]
    loaded = PrefixMap.load(path)
    assert (loaded.kind, loaded.config, loaded.losses) == (fitted.kind, fitted.config, fitted.losses)
    assert list(loaded.held_out) == list(fitted.held_out) != []
    assert AdaptConfig(**loaded.config) == dataclasses.replace(QUICK, kind=kind)
    assert np.array_equal(loaded.apply(vectors), fitted.apply(vectors))
    save_file({"weight": torch.eye(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no saved PrefixMap"):
        PrefixMap.load(tmp_path / "other.safetensors")
    (tmp_path / "half.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"half\.safetensors cannot be read"):
        PrefixMap.load(tmp_path / "half.safetensors")


WORDS = [f"w{i}" for i in range(WIDTH)]


@pytest.fixture(scope="module")
def encoder():
    """A sentence-transformers model without a download: word counts, rotated so that no feature is a word."""
    return SentenceTransformer(
        modules=[BoW(WORDS)], device="cpu", prompts={"query": "w1 "}, similarity_fn_name="cosine"
    )


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(2)
    return [" ".join(rng.choice(WORDS, size=6)) for _ in range(300)]


@pytest.mark.parametrize(("kind", "added"), [("orthogonal", 1), ("linear", 1), ("mlp", 2)])
def test_appended_model_loads_alone_and_embeds_as_the_map(encoder, texts, kind, added, tmp_path):
    embeddings = encoder.encode(texts)
    config = dataclasses.replace(QUICK, kind=kind, hidden_dim=8, steps=40)
    fitted = fit_map(embeddings, config, progress=False)
    before = list(encoder)
    extended = append_to_model(encoder, fitted)
    assert list(encoder) == before
    first = ["Normalize"] if kind == "mlp" else []  # a matrix scales with what it gets
    assert [type(module).__name__ for module in extended] == ["BoW", *first, *["Dense"] * added, "Normalize"]
    extended.save(str(tmp_path))
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert not any("hf_mic" in module["type"] for module in modules)
    assert not list(tmp_path.rglob("*.bin"))
    expected = fitted.apply(embeddings)
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(loaded.encode(texts), expected, atol=2e-6)
    short = SentenceTransformer(str(tmp_path), truncate_dim=4, device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(short, fitted.apply(embeddings, dim=4), atol=2e-6)
    assert (loaded.prompts["query"], loaded.similarity_fn_name) == ("w1 ", "cosine")


def test_appended_model_drops_a_normalize_and_checks_the_width(encoder, texts):
    fitted = fit_map(encoder.encode(texts), QUICK, progress=False)
    normalised = SentenceTransformer(modules=[*encoder, Normalize()], device="cpu")
    extended = append_to_model(normalised, fitted)
    assert [type(module).__name__ for module in extended] == ["BoW", "Dense", "Normalize"]
    np.testing.assert_allclose(extended.encode(texts), fitted.apply(encoder.encode(texts)), atol=2e-6)
    with pytest.raises(ValueError, match="width 24, the map takes 3"):
        append_to_model(encoder, PrefixMap("linear", torch.eye(3)))


def test_a_map_is_not_put_behind_a_model_whose_lengths_count(encoder):
    """Unit vectors have other neighbours by dot product than the vectors that they were."""
    dot = SentenceTransformer(modules=[BoW(WORDS)], device="cpu", similarity_fn_name="dot")
    fitted = PrefixMap("linear", torch.eye(WIDTH))
    with pytest.raises(ValueError, match=r"compares its vectors by 'dot'.*similarity_fn_name = 'cosine'"):
        append_to_model(dot, fitted)
    dot.append(Normalize())
    append_to_model(dot, fitted)
    with pytest.raises(TypeError, match="append_to_model takes a SentenceTransformer"):
        append_to_model(BoW(WORDS), fitted)


def test_mlp_as_dense_equals_the_residual_formula():
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 5), (5, 3), (3,), (3, 5)]
    fitted = PrefixMap("mlp", *(torch.randn(*shape, generator=generator) for shape in shapes))
    unit = nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=1)
    features = {"sentence_embedding": unit}
    with torch.no_grad():
        for module in fitted.as_dense():
            features = module(features)
    expected = (
        unit @ fitted.weight + torch.relu(unit @ fitted.hidden_weight + fitted.hidden_bias) @ fitted.output_weight
    )
    torch.testing.assert_close(features["sentence_embedding"], expected)
