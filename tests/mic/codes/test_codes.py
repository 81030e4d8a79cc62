"""Vectors in few bits: hand-made codes, the slow definitions, what is refused, files."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from hf_mic.codes import (
    ScalarQuantizer,
    code_bytes,
    hadamard_turn,
    hadamard_turn_back,
    lloyd_max,
    load_quantizer,
    open_codes,
    pack,
    random_orthogonal,
    random_signs,
    save_quantizer,
    unpack,
)
from hf_mic.codes.inputs import as_matrix
from hf_mic.codes.scoring import CHUNK, Scorer
from hf_mic.codes.searching import best_rows

BITS = (1, 2, 4, 8, 16, 32)


def vectors_of(count=600, dims=19, seed=0):
    """Coordinates of unequal spread and mean."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, dims)) * random.uniform(0.1, 2, dims) + random.normal(size=dims)).astype(
        np.float32
    )


def slow_cosine(queries, rows):
    """One pair at a time, in float64."""
    out = np.empty((len(queries), len(rows)))
    for i, query in enumerate(queries.astype(np.float64)):
        for j, row in enumerate(rows.astype(np.float64)):
            out[i, j] = query @ row / np.sqrt((query @ query) * (row @ row))
    return out


def slow_decode(quantizer, code):
    """Bit by bit from the definition: little-endian within the byte, coordinates in order."""
    stream = [(int(byte) >> place) & 1 for byte in code for place in range(8)]
    symbols = [
        sum(bit << i for i, bit in enumerate(stream[j * quantizer.bits : (j + 1) * quantizer.bits]))
        for j in range(quantizer.dims)
    ]
    values = [m + s * quantizer.levels[c] for m, s, c in zip(quantizer.means, quantizer.spreads, symbols, strict=True)]
    return np.array(values) if quantizer.rotation is None else quantizer.rotation @ np.array(values)


@pytest.mark.parametrize(("bits", "dims"), [*product((1, 2, 4, 8), (1, 3, 8, 9, 16, 21))])
def test_packing_and_back(bits, dims):
    symbols = np.random.default_rng(dims).integers(0, 2**bits, (40, dims), dtype=np.uint8)
    codes = pack(symbols, bits)
    assert codes.shape == (40, code_bytes(dims, bits))
    assert codes.dtype == np.uint8
    assert np.array_equal(unpack(codes, bits, dims), symbols)
    as_number = [int.from_bytes(code.tobytes(), "little") for code in codes]
    expected = [sum(int(symbol) << (bits * place) for place, symbol in enumerate(row)) for row in symbols]
    assert as_number == expected  # so bits that no coordinate needs are 0


def test_levels_are_those_of_a_gaussian():
    """Max 1960, table I: the best levels for unit variance."""
    values = np.random.default_rng(0).normal(size=1_000_000)
    np.testing.assert_allclose(lloyd_max(values, 2), [-0.7979, 0.7979], atol=0.003)
    np.testing.assert_allclose(lloyd_max(values, 4), [-1.510, -0.4528, 0.4528, 1.510], atol=0.006)
    for count, error in ((2, 0.3634), (4, 0.1175), (16, 0.009497), (256, 4.2e-5)):
        levels = lloyd_max(values, count)
        nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
        assert np.mean((values - nearest) ** 2) == pytest.approx(error, rel=0.03)


def test_levels_are_a_fixed_point_of_few_values():
    values = np.array([0.0, 0.1, 5.0, 5.1, 9.0])
    np.testing.assert_allclose(lloyd_max(values, 3), [0.05, 5.05, 9.0], atol=1e-6)
    assert np.array_equal(lloyd_max(np.full(5, 2.0), 2), [2, 2])
    assert (np.diff(lloyd_max(values, 16)) >= 0).all()  # more levels than values
    with pytest.raises(ValueError, match="count=1: must be at least 2"):
        lloyd_max(values, 1)


def test_a_code_by_hand():
    quantizer = ScalarQuantizer(3, 2, np.float32([0, 10, -1]), np.float32([1, 2, 0]), np.float32([-2, -0.5, 0.5, 2]))
    codes = quantizer.encode(np.array([[0.4, 6.5, -1.0], [-9.0, 99.0, 3.0]]))
    assert codes.tolist() == [[2 + 4 * 0 + 16 * 1], [0 + 4 * 3 + 16 * 1]]
    assert quantizer.decode(codes).tolist() == [[0.5, 6, -1], [-2, 14, -1]]
    dot = quantizer.scores(np.array([[1.0, 1.0, 1.0]]), codes, "dot")
    assert dot.tolist() == [[5.5, 11]]


@pytest.mark.parametrize("rotation", [None, "orthogonal"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_codes_are_the_definition(bits, rotation):
    vectors = vectors_of()
    quantizer = ScalarQuantizer.fit(vectors, bits, rotation=rotation, seed=3)
    codes = quantizer.encode(vectors)
    assert codes.shape == (600, quantizer.bytes_per_vector)
    slow = np.stack([slow_decode(quantizer, code) for code in codes[:50]])
    np.testing.assert_allclose(quantizer.decode(codes)[:50], slow, atol=2e-6)
    turned = vectors if rotation is None else vectors @ quantizer.rotation
    standard = (turned - turned.mean(axis=0)) / turned.std(axis=0)
    nearest = np.abs(standard[..., None] - quantizer.levels).argmin(axis=-1)
    assert (nearest == unpack(codes, bits, 19)).mean() > 0.999  # the rest lies within rounding of a cut
    if bits == 1:
        assert ((standard > 0) == unpack(codes, 1, 19)).mean() > 0.97


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [1, 7, 9, 70, 130])
def test_scores_are_those_of_decoded_rows(bits, count):
    """Numbers of queries on both sides of the one where tables give way to decoding."""
    vectors, queries = vectors_of(300), vectors_of(count, seed=1)
    quantizer = ScalarQuantizer.fit(vectors, bits, rotation="orthogonal" if bits < 16 else None)
    codes = quantizer.encode(vectors)
    decoded = quantizer.decode(codes)
    scores = quantizer.scores(queries, codes)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, slow_cosine(queries, decoded), atol=3e-6)
    np.testing.assert_allclose(quantizer.scores(queries, codes, "dot"), queries @ decoded.T, atol=1e-4)
    both = quantizer.scores(codes[:count], codes)  # symmetric
    np.testing.assert_allclose(both, slow_cosine(decoded[:count], decoded), atol=3e-6)
    of_tensor = quantizer.scores(torch.from_numpy(queries).double(), torch.from_numpy(codes))
    assert isinstance(of_tensor, torch.Tensor)
    assert np.array_equal(of_tensor.numpy(), scores)


def test_both_ways_of_scoring_were_tested():
    values = torch.zeros(256 * 2, 4)
    assert len(Scorer(torch.zeros(32, 8), 2, values, cosine=True).tables) == 1
    assert Scorer(torch.zeros(33, 8), 2, values, cosine=True).tables == []
    assert len(Scorer(torch.zeros(130, 16), 1, torch.zeros(512, 8), cosine=True).tables) == 3


@pytest.mark.parametrize("bits", BITS)
def test_more_bits_are_closer(bits):
    vectors = vectors_of(4000)
    quantizer = ScalarQuantizer.fit(vectors, bits)
    error = ((quantizer.decode(quantizer.encode(vectors)) - vectors) / vectors.std(axis=0)).std()
    bound = {1: 0.62, 2: 0.36, 4: 0.105, 8: 0.008, 16: 5e-3, 32: 0}[bits]
    assert 0.7 * bound <= error <= bound or bits >= 16
    assert error <= bound


def test_kept_neighbours_of_a_hidden_rotation():
    """Few principal axes: a rotation within the code keeps more than one bit of each axis."""
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(2000, 64)) * np.geomspace(1, 0.02, 64)).astype(np.float32)
    truth = ScalarQuantizer.fit(vectors, 32)
    _, full = truth.search(vectors[:100], truth.encode(vectors), 11)
    kept = {}
    for rotation in (None, "orthogonal", "hadamard"):
        quantizer = ScalarQuantizer.fit(vectors, 1, rotation=rotation)
        _, rows = quantizer.search(vectors[:100], quantizer.encode(vectors), 11)
        kept[rotation] = np.mean([len({*a} & {*b}) for a, b in zip(full, rows, strict=True)]) / 11
    assert kept["orthogonal"] > kept[None] + 0.05
    assert kept["hadamard"] == pytest.approx(kept["orthogonal"], abs=0.03)


@pytest.mark.parametrize("dims", [1, 2, 8, 12, 24, 64, 384])
def test_a_hadamard_rotation_is_signs_and_matrices_of_one_size(dims):
    signs = random_signs(dims, seed=1)
    assert signs.shape == (2, dims)
    assert set(np.abs(signs).ravel()) == {1}
    eye = np.eye(dims, dtype=np.float32)
    once = hadamard_turn(eye, np.ones((1, dims), dtype=np.float32))
    np.testing.assert_allclose(np.abs(once), dims**-0.5, rtol=1e-5)
    np.testing.assert_allclose(once @ once.T, eye, atol=1e-5)
    if dims & (dims - 1) == 0:  # Sylvester's, by the parity of common bits
        slow = [[(-1) ** (i & j).bit_count() * dims**-0.5 for j in range(dims)] for i in range(dims)]
        np.testing.assert_allclose(once, slow, atol=1e-6)
    by_hand = np.diag(signs[0]) @ once @ np.diag(signs[1]) @ once
    rows = vectors_of(300, dims)
    np.testing.assert_allclose(hadamard_turn(rows, signs), rows @ by_hand, atol=2e-5)
    np.testing.assert_allclose(hadamard_turn_back(rows, signs), rows @ by_hand.T, atol=2e-5)
    assert np.array_equal(signs, random_signs(dims, seed=1))
    assert dims < 8 or not np.array_equal(signs, random_signs(dims, seed=2))


@pytest.mark.parametrize("bits", [1, 4])
def test_a_hadamard_rotation_codes_as_its_matrix_does(bits, tmp_path):
    vectors = vectors_of(600, 48)
    fast = ScalarQuantizer.fit(vectors, bits, rotation="hadamard", seed=3)
    matrix = hadamard_turn(np.eye(48, dtype=np.float32), fast.signs)
    dense = ScalarQuantizer(48, bits, fast.means, fast.spreads, fast.levels, matrix)
    codes, queries = fast.encode(vectors), vectors_of(9, 48, seed=1)
    assert (codes == dense.encode(vectors)).mean() > 0.999  # the rest lies within rounding of a cut
    np.testing.assert_allclose(fast.decode(codes), dense.decode(codes), atol=1e-5)
    np.testing.assert_allclose(fast.scores(queries, codes), dense.scores(queries, codes), atol=1e-5)
    save_quantizer(fast, tmp_path / "code.safetensors")
    loaded = load_quantizer(tmp_path / "code.safetensors")
    assert (tmp_path / "code.safetensors").stat().st_size < 48 * 48 * 4
    assert loaded.rotation is None
    assert np.array_equal(loaded.signs, fast.signs)
    assert np.array_equal(loaded.encode(vectors), codes)
    for width in (19, 6, 320):
        with pytest.raises(
            ValueError, match=rf"dims={width}: a Hadamard rotation needs a power of two or twelve times"
        ):
            ScalarQuantizer.fit(vectors_of(100, width), 1, rotation="hadamard")


def test_a_random_orthogonal_matrix():
    turn = random_orthogonal(40, seed=1)
    np.testing.assert_allclose(turn @ turn.T, np.eye(40), atol=1e-5)
    assert np.array_equal(turn, random_orthogonal(40, seed=1))
    assert not np.array_equal(turn, random_orthogonal(40, seed=2))
    corners = np.stack([random_orthogonal(5, seed)[0, 0] for seed in range(400)])
    assert abs(corners.mean()) < 0.08  # without the signs of R the corner is negative


@pytest.mark.parametrize("k", [1, 5, 50])
def test_search_is_a_stable_sort_of_the_scores(k):
    vectors = vectors_of(CHUNK + 900, dims=8)  # 256 codes at most: most scores occur many times
    quantizer = ScalarQuantizer.fit(vectors, 1)
    codes, queries = quantizer.encode(vectors), vectors_of(300, dims=8, seed=2)
    scores, rows = quantizer.search(queries, codes, k)
    slow = quantizer.scores(queries, codes)
    order = np.argsort(-slow[:40], axis=1, kind="stable")[:, :k]
    assert np.array_equal(scores[:40], np.take_along_axis(slow[:40], order, 1))
    assert np.array_equal(rows[:40], order)
    assert rows.shape == (300, k)


def test_the_best_rows_come_last():
    """Scores that only rise: every row is better than all before it."""
    rising = torch.arange(4000.0).repeat(2, 1).T
    scores, rows = best_rows(((start, rising[start : start + 700]) for start in range(0, 4000, 700)), 2, 3)
    assert rows.tolist() == [[3999, 3998, 3997]] * 2
    assert scores[0].tolist() == [3999, 3998, 3997]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_tensors_and_files_give_the_same(dtype, tmp_path):
    vectors = vectors_of().astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    on_disk = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    quantizer = ScalarQuantizer.fit(vectors, 2)
    codes = quantizer.encode(vectors)
    for same in (on_disk, torch.from_numpy(vectors)):
        other = ScalarQuantizer.fit(same, 2)
        assert (other.source, len(other.source)) == (quantizer.source, 64)
        assert np.array_equal(other.encode(same), codes)
    np.save(tmp_path / "codes.npy", codes)
    found = quantizer.search(on_disk[:4], open_codes(tmp_path / "codes.npy"), 3)
    assert np.array_equal(found[1], quantizer.search(vectors[:4], codes, 3)[1])
    assert quantizer.source != ScalarQuantizer.fit(vectors[::-1], 2).source


def test_constant_coordinates_are_exact():
    vectors = vectors_of(dims=5)
    vectors[:, 1], vectors[:, 3] = 7.25, 0
    for bits in BITS:
        quantizer = ScalarQuantizer.fit(vectors, bits)
        decoded = quantizer.decode(quantizer.encode(vectors))
        assert (decoded[:, 1] == 7.25).all()
        assert (decoded[:, 3] == 0).all()
    same = np.ones((20, 3), np.float32)
    with pytest.warns(UserWarning, match="20 calibration rows are the same but for rounding"):
        quantizer, zeros = ScalarQuantizer.fit(same, 4), ScalarQuantizer.fit(np.zeros((20, 3)), 4)
    assert (quantizer.decode(quantizer.encode(same)) == 1).all()
    assert (zeros.scores(same[:2], zeros.encode(np.zeros((4, 3)))) == 0).all()


def test_what_is_refused():
    vectors = vectors_of()
    quantizer = ScalarQuantizer.fit(vectors, 2)
    codes = quantizer.encode(vectors)
    spoiled = vectors.copy()
    spoiled[70, 3] = np.inf
    for call, message in (
        (lambda: ScalarQuantizer.fit(vectors[:15], 2), "15 calibration rows are too few: give at least 16"),
        (lambda: ScalarQuantizer.fit(vectors, 3), "bits=3: must be one of 1, 2, 4, 8, 16, 32"),
        (lambda: ScalarQuantizer.fit(vectors, 1, rotation="random"), "rotation='random'"),
        (lambda: ScalarQuantizer.fit(vectors, 16, rotation="orthogonal"), "gains nothing with bits=16"),
        (
            lambda: ScalarQuantizer.fit(vectors * np.float32(1e-20), 2),
            r"largest number in the vectors is \d\.\d+e-20, .*: divide",
        ),
        (lambda: ScalarQuantizer.fit(vectors * np.float32(1e20), 32), r"largest number in the vectors is \d\.\d+e\+20"),
        (lambda: ScalarQuantizer.fit(spoiled, 2), "row 70 holds NaN or infinity"),
        (lambda: quantizer.encode(spoiled), "row 70 holds NaN or infinity"),
        (lambda: quantizer.scores(spoiled[70:], codes), "row 0 holds NaN"),
        (lambda: quantizer.encode(vectors.astype(int)), "got int64"),
        (lambda: quantizer.encode([[1.0, 2.0], [3.0]]), "rows of one length"),
        (lambda: quantizer.encode(vectors[:, :5]), r"must have shape \(N, 19\), got \(600, 5\)"),
        (lambda: quantizer.decode(codes[:, :2]), r"Codes of 19 x 2 bits must be uint8 of shape \(N, 5\)"),
        (lambda: quantizer.scores(vectors[:1], vectors), "must be uint8"),
        (lambda: quantizer.scores(vectors[:1], codes, "euclidean"), "similarity='euclidean'"),
        (lambda: quantizer.search(vectors[:1], codes, 601), r"k=601: must lie in \[1, 600\]"),
        (lambda: ScalarQuantizer(1, 16).encode(np.array([[1.0], [70000.0]])), "row 1 holds a number beyond 65504"),
        (lambda: ScalarQuantizer(1, 32).encode(np.array([[1e39]])), "row 0 holds .* beyond float32"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert as_matrix(torch.ones(2, 2, dtype=torch.bfloat16)).dtype == np.float32
    assert quantizer.search(vectors[:0], codes, 3)[1].shape == (0, 3)


@pytest.mark.parametrize(("bits", "rotation"), [(1, "orthogonal"), (4, None), (16, None)])
def test_a_quantizer_is_saved_whole(bits, rotation, tmp_path):
    vectors = vectors_of()
    quantizer = ScalarQuantizer.fit(vectors, bits, rotation=rotation)
    save_quantizer(quantizer, tmp_path / "new" / "code.safetensors")
    loaded = load_quantizer(tmp_path / "new" / "code.safetensors")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["code.safetensors"]
    assert np.array_equal(loaded.encode(vectors), quantizer.encode(vectors))
    assert loaded.source == quantizer.source
    codes = quantizer.encode(vectors)
    assert np.array_equal(loaded.scores(vectors[:5], codes), quantizer.scores(vectors[:5], codes))


def test_files_that_are_refused(tmp_path):
    path = tmp_path / "code.safetensors"
    save_quantizer(ScalarQuantizer.fit(vectors_of(), 2), path)
    tensors = load_file(path)

    def rewrite(tensors, **changes):
        header = {"format_version": 1, "dims": 19, "bits": 2, "rotation": None, "source": ""} | changes
        save_file(tensors, path, metadata={"scalar_quantizer": json.dumps(header)})

    rewrite(tensors)
    assert load_quantizer(path).bits == 2
    for change, message in (
        (lambda: rewrite(tensors, format_version=2), "format version 2, this release reads 1"),
        (lambda: rewrite(tensors, bits=4), "must hold the tensors"),
        (lambda: save_file(tensors, path), "no saved quantiser"),
        (lambda: path.write_bytes(b"nothing"), "cannot be read as a safetensors file"),
    ):
        change()
        with pytest.raises(ValueError, match=message):
            load_quantizer(path)
    np.save(tmp_path / "codes.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"must hold uint8 of shape \(N, bytes\)"):
        open_codes(tmp_path / "codes.npy")
    (tmp_path / "codes.npy").write_text("nothing")
    with pytest.raises(ValueError, match=r"cannot be read as a \.npy file"):
        open_codes(tmp_path / "codes.npy")
    with pytest.raises(FileNotFoundError):
        open_codes(tmp_path / "absent.npy")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32])
def test_no_rows_are_no_codes_and_back(bits):
    quantizer = ScalarQuantizer.fit(np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32), bits)
    codes = quantizer.encode(np.empty((0, 5), np.float32))
    assert codes.shape == (0, quantizer.bytes_per_vector)
    assert quantizer.decode(codes).shape == (0, 5)
