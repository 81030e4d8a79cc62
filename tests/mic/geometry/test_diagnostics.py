"""Geometry measures against hand-made values, independent references and invariances; the report and its files."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

from hf_mic import geometry
from hf_mic.geometry import linalg
from hf_mic.geometry.diagnostics import geometry_report
from hf_mic.geometry.directions import alignment, mean_cosine, uniformity
from hf_mic.geometry.pictures import plot_spectra
from hf_mic.geometry.redundancy import cross_correlation_energy, knn_overlap, residual_r2
from hf_mic.geometry.report import geometry_table, write_geometry_report
from hf_mic.geometry.spectra import (
    diagonal_cv,
    effective_rank,
    eigenvalue_cv,
    isoscore,
    participation_ratio,
    spectrum,
)

ONE_MATRIX = [effective_rank, participation_ratio, eigenvalue_cv, diagonal_cv, isoscore, uniformity, mean_cosine]
WITH_DIM = [cross_correlation_energy, residual_r2, knn_overlap]


@pytest.fixture(scope="module")
def x():
    """200 correlated, shifted vectors of width 12 with unequal variances."""
    rng = np.random.default_rng(7)
    return rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12)


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


@pytest.mark.parametrize("module", [geometry, linalg])
def test_public_names_exist_and_are_documented(module):
    names = [name for name in module.__all__ if name != "Matrix"]
    assert len(set(names)) == len(names)
    assert all(getattr(module, name).__doc__ for name in names)


def test_spectrum_equals_sklearn_pca(x):
    np.testing.assert_allclose(spectrum(x), PCA().fit(x).explained_variance_, rtol=1e-10)


def test_spectrum_of_fewer_rows_than_columns_ends_in_zeros(x):
    values = spectrum(x[:5])
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.cov(x[:5].T))[::-1], atol=1e-12)
    assert values.shape == (12,)
    assert (values[5:] == 0).all()


def test_effective_rank_equals_scipy_entropy(x):
    assert effective_rank(x) == pytest.approx(math.exp(entropy(np.linalg.svd(x)[1])))
    centred = x - x.mean(axis=0)
    assert effective_rank(x, center=True) == pytest.approx(math.exp(entropy(np.linalg.svd(centred)[1])))
    assert effective_rank(np.eye(6)) == pytest.approx(6)
    assert effective_rank(np.outer(np.arange(1, 9), [1, 2, 3])) == pytest.approx(1)


def test_participation_ratio_and_cv_equal_their_formulas(x):
    covariance = np.cov(x.T)
    eigenvalues = np.linalg.eigvalsh(covariance)
    assert participation_ratio(x) == pytest.approx(np.trace(covariance) ** 2 / (covariance**2).sum())
    assert eigenvalue_cv(x) == pytest.approx(math.sqrt(12 * (covariance**2).sum() / np.trace(covariance) ** 2 - 1))
    assert eigenvalue_cv(x) == pytest.approx(eigenvalues.std() / eigenvalues.mean())
    assert diagonal_cv(x) == pytest.approx(x.var(axis=0).std() / x.var(axis=0).mean())


def test_one_direction_with_equal_variances_fools_the_diagonal_only():
    line = np.outer(np.random.default_rng(0).normal(size=50), np.ones(9))
    assert diagonal_cv(line) == pytest.approx(0, abs=1e-12)
    assert eigenvalue_cv(line) == pytest.approx(math.sqrt(8))
    assert participation_ratio(line) == pytest.approx(1)
    assert isoscore(line) == pytest.approx(0, abs=1e-12)


def slow_isoscore(points):
    """Rudman et al. 2022, Algorithm 1, step by step."""
    n = points.shape[1]
    diagonal = np.diag(np.cov(PCA().fit_transform(points).T))
    normalised = math.sqrt(n) * diagonal / np.linalg.norm(diagonal)
    defect = np.linalg.norm(normalised - 1) / math.sqrt(2 * (n - math.sqrt(n)))
    used = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return (n * used - 1) / (n - 1)


@pytest.mark.parametrize("width", [2, 5, 12])
def test_isoscore_equals_its_algorithm(x, width):
    assert isoscore(x[:, :width]) == pytest.approx(slow_isoscore(x[:, :width]))


def test_isoscore_of_the_orthogonal_cross_is_one():
    assert isoscore(np.concatenate([np.eye(4), -np.eye(4)])) == pytest.approx(1)


@pytest.mark.parametrize("t", [0.5, 2.0, 500.0])
def test_uniformity_equals_wang_isola(x, t):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    exponents = -t * pdist(unit) ** 2
    top = exponents.max()
    assert uniformity(x, t=t) == pytest.approx(top + np.log(np.exp(exponents - top).mean()))


def test_uniformity_equals_a_loop_over_ordered_pairs():
    points = np.random.default_rng(0).normal(size=(7, 3))
    cosine = [
        [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for j, b in enumerate(points) if i != j]
        for i, a in enumerate(points)
    ]
    assert uniformity(points) == pytest.approx(math.log(np.mean(np.exp(-4 * (1 - np.array(cosine))))))


def test_alignment_by_hand_and_against_cosines(x):
    assert alignment([[1, 0], [0, 3]], [[2, 0], [0, -1]]) == pytest.approx((0 + 4) / 2)
    assert alignment([[1, 0], [0, 3]], [[2, 0], [0, -1]], alpha=1) == pytest.approx((0 + 2) / 2)
    cosine = torch.nn.functional.cosine_similarity(torch.tensor(x[:100]), torch.tensor(x[100:]))
    assert alignment(x[:100], x[100:]) == pytest.approx(2 * (1 - cosine.mean().item()))


def test_mean_cosine_equals_scipy(x):
    assert mean_cosine(x) == pytest.approx(1 - pdist(x, "cosine").mean())


@pytest.mark.parametrize("dim", [1, 5, 11])
def test_cross_correlation_equals_corrcoef(x, dim):
    assert cross_correlation_energy(x, dim) == pytest.approx((np.corrcoef(x.T)[:dim, dim:] ** 2).mean())


@pytest.mark.parametrize("dim", [1, 5, 11])
def test_r2_equals_sklearn(x, dim):
    model = LinearRegression().fit(x[:, :dim], x[:, dim:])
    y, fit = x[:, dim:], model.predict(x[:, :dim])
    r2 = 1 - ((y - fit) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    assert residual_r2(x, dim) == pytest.approx(r2)
    assert residual_r2(x, dim, adjusted=True) == pytest.approx(1 - (1 - r2) * 199 / (199 - dim))


def test_r2_of_a_linear_residual_is_one_and_rank_not_width_counts():
    rng = np.random.default_rng(1)
    prefix = rng.normal(size=(40, 2))
    twice = np.concatenate([prefix, prefix @ rng.normal(size=(2, 3)), rng.normal(size=(40, 4))], axis=1)
    assert residual_r2(twice[:, :5], 2) == pytest.approx(1)
    r2 = residual_r2(twice, 5)
    assert r2 == pytest.approx(residual_r2(twice[:, [0, 1, 5, 6, 7, 8]], 2))
    assert residual_r2(twice, 5, adjusted=True) == pytest.approx(1 - (1 - r2) * 39 / 37)


def test_r2_without_degrees_of_freedom():
    points = np.random.default_rng(2).normal(size=(4, 8))
    assert residual_r2(points, 3) == pytest.approx(1)
    assert math.isnan(residual_r2(points, 3, adjusted=True))


def slow_overlap(points, dim, k, measure):
    sets = []
    for part in (points, points[:, :dim]):
        found = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(part).kneighbors(part, return_distance=False)
        sets.append([set(row) - {i} for i, row in enumerate(found)])
    size = {"recall": lambda a, b: k, "jaccard": lambda a, b: len(a | b)}[measure]
    return np.mean([len(a & b) / size(a, b) for a, b in zip(*sets, strict=True)])


@pytest.mark.parametrize("measure", ["recall", "jaccard"])
@pytest.mark.parametrize(("dim", "k"), [(2, 1), (4, 5), (12, 10)])
def test_knn_overlap_equals_sklearn(x, dim, k, measure):
    assert knn_overlap(x, dim, k=k, measure=measure) == pytest.approx(slow_overlap(x, dim, k, measure))


def test_knn_of_all_rows_is_total(x):
    assert knn_overlap(x[:5], 1, k=4) == 1.0


def test_chunks_change_nothing(x, monkeypatch):
    whole = uniformity(x), knn_overlap(x, 4), knn_overlap(x, 4, max_queries=50)
    monkeypatch.setattr(linalg, "CHUNK", 7)
    assert (uniformity(x), knn_overlap(x, 4), knn_overlap(x, 4, max_queries=50)) == pytest.approx(whole)


def test_samples_are_seeded_and_close(x):
    assert knn_overlap(x, 4, max_queries=60, seed=1) == knn_overlap(x, 4, max_queries=60, seed=1)
    assert knn_overlap(x, 4, max_queries=60, seed=1) != knn_overlap(x, 4, max_queries=60, seed=2)
    assert knn_overlap(x, 4, max_queries=150) == pytest.approx(knn_overlap(x, 4), abs=0.05)
    assert uniformity(x, max_rows=150) == pytest.approx(uniformity(x), abs=0.15)
    assert uniformity(x, max_rows=10_000) == uniformity(x)


@pytest.mark.parametrize("measure", ONE_MATRIX)
def test_scale_and_row_order_change_nothing(x, measure):
    assert measure(1e-3 * x[::-1]) == pytest.approx(measure(x))


@pytest.mark.parametrize("measure", [f for f in ONE_MATRIX if f is not diagonal_cv])
def test_rotation_changes_nothing(x, measure):
    assert measure(x @ rotation(12)) == pytest.approx(measure(x))


@pytest.mark.parametrize("measure", WITH_DIM)
def test_residual_order_and_prefix_rotation(x, measure):
    permuted = x[:, [2, 0, 1, 3, *range(11, 3, -1)]]
    assert measure(permuted, 4) == pytest.approx(measure(x, 4))
    if measure is not cross_correlation_energy:  # correlation is tied to coordinates
        turned = np.concatenate([x[:, :4] @ rotation(4), x[:, 4:] @ rotation(8)], axis=1)
        assert measure(turned, 4) == pytest.approx(measure(x, 4))


def test_standardising_leaves_cross_correlation(x):
    assert cross_correlation_energy(x * np.arange(1, 13) - 5, 4) == pytest.approx(cross_correlation_energy(x, 4))


def test_torch_of_any_dtype_and_with_gradient(x):
    reference = geometry_report(x, [4, 12])
    assert geometry_report(torch.tensor(x, requires_grad=True), [4, 12]) == reference
    half = torch.tensor(x, dtype=torch.bfloat16)
    assert geometry_report(half, [4, 12]) == geometry_report(half.float().numpy(), [4, 12])
    assert geometry_report(half, [4])[0]["eigen_cv"] == pytest.approx(reference[0]["eigen_cv"], rel=0.02)


def test_values_of_independent_data_as_documented():
    n, d = 4000, 40
    noise = np.random.default_rng(3).normal(size=(n, 2 * d))
    assert eigenvalue_cv(noise[:, :d]) == pytest.approx(math.sqrt(d / n), rel=0.1)
    assert diagonal_cv(noise) == pytest.approx(math.sqrt(2 / n), rel=0.25)
    assert cross_correlation_energy(noise, d) == pytest.approx(1 / (n - 1), rel=0.1)
    assert residual_r2(noise, d) == pytest.approx(d / (n - 1), rel=0.1)
    assert residual_r2(noise, d, adjusted=True) == pytest.approx(0, abs=1e-3)
    assert uniformity(noise, max_rows=1000) == pytest.approx(-4 + 8 / (2 * d), abs=0.02)


def test_constant_columns_are_ignored_exactly(x):
    wide = np.insert(x, [0, 6], [0.1, -1e3], axis=1)  # columns 0 and 7
    assert participation_ratio(wide) == pytest.approx(participation_ratio(x))
    assert residual_r2(wide, 5) == pytest.approx(residual_r2(x, 4))
    assert residual_r2(wide, 5, adjusted=True) == pytest.approx(residual_r2(x, 4, adjusted=True))
    block = np.corrcoef(x.T)[:4, 4:] ** 2
    assert cross_correlation_energy(wide, 5) == pytest.approx(block.sum() / (5 * 9))


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
def test_constant_matrix_has_no_geometry(value):
    constant = np.full((6, 5), value)
    for measure in (participation_ratio, eigenvalue_cv, diagonal_cv, isoscore):
        assert math.isnan(measure(constant))
    assert math.isnan(residual_r2(constant, 2))
    assert cross_correlation_energy(constant, 2) == 0
    assert mean_cosine(constant) == pytest.approx(float(value != 0))
    row = geometry_report(constant, [2])[0]
    assert row["eigen_cv"] is None
    assert row["residual_r2"] is None


def test_offset_does_not_drown_small_variances():
    noise = np.random.default_rng(5).normal(size=(300, 6))
    assert eigenvalue_cv(1e6 + noise) == pytest.approx(eigenvalue_cv(noise), rel=1e-6)


def test_report_equals_the_functions(x):
    pairs = [(0, 1), (5, 9), (3, 3)]
    rows = geometry_report(x, [12, 1, 4], pairs, k=3)
    assert [row["dim"] for row in rows] == [1, 4, 12]
    first, second = np.array(pairs).T
    for row in rows:
        d = row["dim"]
        prefix = x[:, :d]
        expected = {
            "dim": d,
            "n": 200,
            "knn_k": 3,
            "effective_rank": effective_rank(prefix),
            "participation_ratio": participation_ratio(prefix),
            "eigen_cv": eigenvalue_cv(prefix),
            "diagonal_cv": diagonal_cv(prefix),
            "isoscore": isoscore(prefix) if d > 1 else None,
            "uniformity": uniformity(prefix),
            "alignment": alignment(prefix[first], prefix[second]),
            "mean_cosine": mean_cosine(prefix),
            "cross_correlation": cross_correlation_energy(x, d) if d < 12 else None,
            "residual_r2": residual_r2(x, d) if d < 12 else None,
            "residual_r2_adjusted": residual_r2(x, d, adjusted=True) if d < 12 else None,
            "knn_overlap": knn_overlap(x, d, k=3),
        }
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert row[name] == (value if value is None else pytest.approx(value, abs=1e-10)), name
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_report_of_two_rows():
    rows = geometry_report([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]], [1, 3])
    assert rows[0]["knn_k"] == 1
    assert rows[0]["residual_r2"] == pytest.approx(1)
    assert rows[0]["residual_r2_adjusted"] is None
    assert rows[1]["knn_overlap"] == 1.0


def test_report_samples_large_matrices(x, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.tile(x, (5, 1)).astype(np.float32))
    mapped = np.load(path, mmap_mode="r")
    rows = geometry_report(mapped, [4], [(999, 0)], max_rows=100, seed=3)
    assert rows[0]["n"] == 100
    assert rows == geometry_report(mapped, [4], [(999, 0)], max_rows=100, seed=3)
    assert rows != geometry_report(mapped, [4], [(999, 0)], max_rows=100, seed=4)
    assert rows[0]["alignment"] == pytest.approx(alignment(x[[199], :4], x[[0], :4]), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: spectrum(x[0]), "shape"),
        (lambda x: spectrum(x[:1]), "N >= 2"),
        (lambda x: spectrum(x.astype(complex)), "real numbers"),
        (lambda x: spectrum(np.where(x == x[3, 3], np.nan, x)), "the first is row 3"),
        (lambda x: uniformity(x, t=0), "t=.*: must be > 0"),
        (lambda x: uniformity(x, max_rows=0), "size=0: must be at least 1"),
        (lambda x: alignment(x, x[:5]), "one shape"),
        (lambda x: alignment(x, x, alpha=-1), "alpha"),
        (lambda x: cross_correlation_energy(x, 12), "between 1 and 11"),
        (lambda x: residual_r2(x, 0), "between 1 and 11"),
        (lambda x: residual_r2(x, 2.0), "integer"),
        (lambda x: knn_overlap(x, 13), "between 1 and 12"),
        (lambda x: knn_overlap(x, 4, k=200), r"k=200: must lie in \[1, 199\]"),
        (lambda x: knn_overlap(x, 4, measure="dice"), "measure='dice': must be one of 'recall', 'jaccard'"),
        (lambda x: geometry_report(x, []), "must be distinct"),
        (lambda x: geometry_report(x, [4, 4]), "must be distinct"),
        (lambda x: geometry_report(x, [4, 13]), "between 1 and 12"),
        (lambda x: geometry_report(x, [4], k=0), "k=0: must be at least 1"),
        (lambda x: geometry_report(x, [4], [(0, 200)]), r"rows 0\.\.199"),
        (lambda x: geometry_report(x, [4], [0, 1]), r"shape \(M >= 1, 2\)"),
        (lambda x: geometry_report(x, [4], [(0.0, 1.0)]), "integer row indices"),
        (lambda x: plot_spectra({2: np.zeros(2)}, "unused.png"), "constant"),
    ],
)
def test_bad_input_is_named(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)


def test_table_leaves_out_what_has_no_value(x):
    lines = geometry_table(geometry_report(x, [4, 12])).splitlines()
    assert len(lines) == 4
    assert "alignment" not in lines[0]
    assert "knn_k" not in lines[0]
    assert len({line.count("|") for line in lines}) == 1
    assert "–" in lines[3]
    assert "–" not in lines[2]


def test_written_report_holds_rows_spectra_and_picture(x, tmp_path):
    folder = tmp_path / "new" / "report"
    rows = write_geometry_report(x, [4, 12], folder, name="tiny", seed=1)
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.json", "tiny.md", "tiny.png"]
    stored = json.loads((folder / "tiny.json").read_text())
    assert stored["rows"] == rows == geometry_report(x, [4, 12], seed=1)
    assert (stored["total_rows"], stored["width"]) == (200, 12)
    np.testing.assert_allclose(stored["spectra"]["4"], spectrum(x[:, :4]))
    assert (folder / "tiny.md").read_text() == geometry_table(rows) + "\n"
    assert (folder / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_constant_matrix_is_reported_without_picture(tmp_path):
    write_geometry_report(np.ones((5, 3)), [2], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["geometry.json", "geometry.md"]


def test_interrupted_write_keeps_the_old_file(x, tmp_path, monkeypatch):
    write_geometry_report(x, [4], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(source, target):
        raise OSError("disk gone")

    monkeypatch.setattr("hf_mic.files.os.replace", fail)
    with pytest.raises(OSError, match="disk gone"):
        write_geometry_report(2 + x**3, [4, 12], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_collapse_is_visible(x):
    """A prefix that repeats itself in the residual and squeezes into one direction reads worse in every measure."""
    rng = np.random.default_rng(9)
    good = rng.normal(size=(500, 8))
    bad = np.concatenate([good[:, :1] + 0.1 * good[:, :4], good[:, :4]], axis=1)
    healthy, collapsed = geometry_report(good, [4])[0], geometry_report(bad, [4])[0]
    for name in ("effective_rank", "participation_ratio", "isoscore"):
        assert collapsed[name] < 0.7 * healthy[name]
    for name in ("eigen_cv", "cross_correlation", "residual_r2_adjusted"):
        assert collapsed[name] > 5 * abs(healthy[name])
    assert collapsed["uniformity"] > healthy["uniformity"] + 0.5


def test_knn_by_hand():
    """Angles 0°, 10°, 25°, 80°, and a third coordinate that draws rows 0 and 3 together."""
    angles = np.radians([0.0, 10.0, 25.0, 80.0])
    points = np.stack([np.cos(angles), np.sin(angles), [50, 0, 0, 50]], axis=1)
    # nearest in the plane: 1, 0, 1, 2; in space: 3, 2, 1, 0
    assert knn_overlap(points, 2, k=1) == slow_overlap(points, 2, 1, "recall") == 0.25
