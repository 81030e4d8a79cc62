"""What holds of every code: what is packed comes back, levels are in order, scores are those of the decoded rows; by hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_mic.codes import ScalarQuantizer
from hf_mic.codes.levels import lloyd_max, nearest_level
from hf_mic.codes.packing import BITS, code_bytes, pack, unpack
from hf_mic.codes.rotation import hadamard_turn, hadamard_turn_back, random_orthogonal, random_signs
from hf_mic.codes.storage import load_quantizer, save_quantizer

FEW = st.sampled_from(BITS[:4])
NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def vectors(draw, dims=st.integers(1, 20)):
    """Rows of numbers of any scale. Shape: (N, d)."""
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    rows = random.standard_t(3, size=(draw(st.integers(16, 60)), draw(dims)))
    return (rows * draw(st.floats(1e-3, 1e3)) + draw(st.floats(-5, 5))).astype(np.float32)


@given(FEW, st.integers(0, 9), st.integers(1, 40), st.data())
def test_what_is_packed_comes_back(bits, count, dims, data):
    symbols = data.draw(arrays(np.uint8, (count, dims), elements=st.integers(0, 2**bits - 1)))
    codes = pack(symbols, bits)
    assert codes.shape == (count, code_bytes(dims, bits))
    np.testing.assert_array_equal(unpack(codes, bits, dims), symbols)
    filled = 8 * code_bytes(dims, bits) - dims * bits
    assert not filled or not (codes[:, -1] >> (8 - filled)).any(), "bits that no coordinate needs are 0"


@given(FEW, st.integers(1, 40), st.data())
def test_coordinates_stand_in_their_order(bits, dims, data):
    """A prefix of whole bytes of a code is the code of a prefix."""
    symbols = data.draw(arrays(np.uint8, (2, dims), elements=st.integers(0, 2**bits - 1)))
    prefix = data.draw(st.integers(1, dims)) // (8 // bits) * (8 // bits)
    if prefix:
        np.testing.assert_array_equal(pack(symbols, bits)[:, : prefix * bits // 8], pack(symbols[:, :prefix], bits))


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.sampled_from([2, 4, 16, 256]))
def test_levels_are_in_order_within_the_values(values, count):
    levels = lloyd_max(np.array(values), count)
    assert levels.shape == (count,)
    assert (np.diff(levels) >= 0).all()
    span = max(map(abs, values)) * 1e-6 + np.finfo(np.float32).tiny  # levels are float32, which knows nothing smaller
    assert min(values) - span <= levels[0] <= levels[-1] <= max(values) + span


@given(st.lists(NUMBERS, min_size=2, max_size=60), st.sampled_from([2, 4, 16]))
def test_the_nearest_level_is_that_of_a_slow_search_and_monotone(values, count):
    levels = lloyd_max(np.array(values), count).astype(np.float64)
    ordered = np.sort(np.array(values))
    found = nearest_level(ordered, levels)
    assert (np.diff(found.astype(int)) >= 0).all()
    distances = np.abs(ordered[:, None] - levels)
    np.testing.assert_allclose(distances[np.arange(len(ordered)), found], distances.min(axis=1), rtol=1e-9, atol=1e-9)


@given(vectors(), st.sampled_from(BITS), st.sampled_from([None, "orthogonal"]), st.sampled_from(["cosine", "dot"]))
@pytest.mark.filterwarnings("ignore:The .* calibration rows are the same")
def test_scores_of_floats_and_codes_are_those_of_the_decoded_rows(rows, bits, rotation, similarity):
    quantizer = ScalarQuantizer.fit(rows, bits, rotation=rotation if bits < 16 else None)
    queries, codes = rows[:3], quantizer.encode(rows)
    decoded = quantizer.decode(codes).astype(np.float64)
    expected = queries.astype(np.float64) @ decoded.T
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] * np.linalg.norm(decoded, axis=1)
    if similarity == "cosine":
        expected = np.divide(expected, lengths, out=np.zeros_like(expected), where=lengths > 0)
    tolerance = 1e-4 if similarity == "cosine" else 1e-4 * max(lengths.max(), 1e-6)
    np.testing.assert_allclose(quantizer.scores(queries, codes, similarity), expected, atol=tolerance)


@given(vectors(), st.sampled_from(BITS))
@pytest.mark.filterwarnings("ignore:The .* calibration rows are the same")
def test_a_row_has_its_code_whatever_stands_beside_it(rows, bits):
    quantizer = ScalarQuantizer.fit(rows, bits)
    codes = quantizer.encode(rows)
    assert codes.shape == (len(rows), quantizer.bytes_per_vector)
    np.testing.assert_array_equal(quantizer.encode(rows[::-1]), codes[::-1])
    np.testing.assert_array_equal(quantizer.encode(rows[:1]), codes[:1])
    np.testing.assert_array_equal(quantizer.encode(quantizer.decode(codes)), codes)


@given(
    vectors(st.sampled_from([4, 8, 12, 24, 32, 48])),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([None, "orthogonal", "hadamard"]),
)
@settings(max_examples=25)
def test_a_file_gives_the_same_quantizer(tmp_path_factory, rows, bits, rotation):
    quantizer = ScalarQuantizer.fit(rows, bits, rotation=rotation)
    path = tmp_path_factory.mktemp("codes") / "q.safetensors"
    save_quantizer(quantizer, path)
    again = load_quantizer(path)
    np.testing.assert_array_equal(again.encode(rows), quantizer.encode(rows))
    np.testing.assert_array_equal(again.decode(quantizer.encode(rows)), quantizer.decode(quantizer.encode(rows)))
    assert again.source == quantizer.source


@given(vectors(st.sampled_from([2, 4, 12, 16, 24, 48])), st.integers(0, 99))
def test_rotations_keep_lengths_and_turn_back(rows, seed):
    signs = random_signs(rows.shape[1], seed)
    turned = hadamard_turn(rows, signs)
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), lengths, rtol=1e-4)
    np.testing.assert_allclose(hadamard_turn_back(turned, signs), rows, atol=1e-5 * lengths.max())
    matrix = random_orthogonal(rows.shape[1], seed)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)


@given(vectors(), st.sampled_from(BITS[:4]))
@pytest.mark.filterwarnings("ignore:The .* calibration rows are the same")
def test_more_bits_lose_no_more(rows, bits):
    """Of the calibration rows; by mean squared error, up to what a few iterations leave."""
    few, more = (ScalarQuantizer.fit(rows, size) for size in (bits, 32))
    error = np.square(few.decode(few.encode(rows)) - rows).mean()
    assert np.square(more.decode(more.encode(rows)) - rows).mean() <= error
    assert error <= 1.01 * rows.var(axis=0).mean() + 1e-9, "the mean of each coordinate would do as well"
