"""Vectors that are copies, share an offset, hang on one coordinate, or are very short or long: mended where it can be, else named."""

import warnings

import numpy as np
import pytest
import torch

from hf_mic import Compressor
from hf_mic.frozen import AdaptConfig, PrefixMap, fit_map
from hf_mic.frozen.vectors import checked_vectors, describe_direction, unit_rows
from hf_mic.inspection import InspectionError, InspectionSettings, inspect_vectors, verdict

WIDTH = 32
FAST = AdaptConfig(dims=[4, 8], batch_size=64, pool_size=256, steps=5)


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    return (random.normal(size=(1500, 8)) @ random.normal(size=(8, WIDTH)) + 0.1 * random.normal(size=(1500, WIDTH))).astype(np.float32)  # fmt: skip


def fitted(vectors):
    return fit_map(vectors, FAST, progress=False)


def compressed(vectors):
    return Compressor.fit(vectors, 4, config=AdaptConfig(steps=2))


def inspected(vectors):
    return inspect_vectors(vectors, settings=InspectionSettings(k=5, max_texts=400))


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100, 2.0**-1000, 2.0**1000])
def test_a_scale_changes_no_direction(vectors, scale):
    """Powers of two, so that the scaled numbers are the same but for their exponent."""
    kind = np.float32 if 1e-38 < scale < 1e38 else np.float64
    scaled = vectors.astype(kind) * kind(scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(unit_rows(scaled).numpy(), unit_rows(vectors).numpy(), atol=1e-7)
        # Columns behind the longest prefix are any complement, and rounding turns them.
        np.testing.assert_allclose(fitted(scaled).weight[:, :8], fitted(vectors).weight[:, :8], atol=2e-4)
        code = compressed(vectors)
        assert (code.transform(scaled) == code.transform(vectors)).mean() > 0.999
        assert np.array_equal(code.search(scaled[:5], code.transform(vectors), 3)[1], code.search(vectors[:5], code.transform(vectors), 3)[1])  # fmt: skip
        found, before = inspected(scaled), inspected(vectors)
    assert [row["first"] for row in found.neighbours] == pytest.approx([row["first"] for row in before.neighbours], abs=0.01)  # fmt: skip
    assert found.model["norm"]["mean"] == pytest.approx(scale * before.model["norm"]["mean"])


def test_rows_of_very_different_lengths_keep_their_directions():
    rows = np.array([[3.0, 4.0], [3e-30, 4e-30], [3e30, 4e30], [3e-300, 4e-300], [3e300, -4e300]])
    np.testing.assert_allclose(unit_rows(rows).numpy(), [[0.6, 0.8]] * 4 + [[0.6, -0.8]], atol=1e-7)
    for value, message in ((np.nan, "row 12 holds NaN or infinity"), (np.inf, "row 12 holds"), (0.0, "row 12 is zero")):
        rows[2] = value
        with pytest.raises(ValueError, match=rf"{message}.* \(1 such rows among 5\)"):
            unit_rows(rows, first=10)


@pytest.mark.parametrize("taker", [fitted, compressed])
def test_copies_are_left_out_and_named(vectors, taker):
    once = taker(vectors)
    assert np.array_equal(checked_vectors(vectors, [4], 64)[1], np.arange(len(vectors)))
    with pytest.warns(UserWarning, match=r"1,500 of 3,000 vectors are exact copies of others and were left out"):
        twice = taker(np.repeat(vectors, 2, axis=0))
    if isinstance(once, PrefixMap):
        assert twice.held_out == once.held_out
        assert torch.equal(twice.weight, once.weight)
    else:
        assert twice.fingerprint() == once.fingerprint()


def test_too_few_vectors_that_differ_are_refused(vectors):
    few = np.repeat(vectors[:20], 50, axis=0)
    with pytest.raises(ValueError, match=r"Only 20 of 1,000 vectors differ, and a batch of 64 needs at least as many"):
        fitted(few)
    with pytest.raises(ValueError, match="20 distinct vectors are too few"), pytest.warns(UserWarning, match="copies"):
        compressed(few)


def test_rows_that_differ_in_two_signs_are_no_copies():
    signs = np.array([[1, 1, 1, 1], [-1, -1, 1, 1], [1, -1, -1, 1], [1, 1, -1, -1], [-1, 1, 1, -1]], dtype=np.float32)
    rows = np.tile(signs, (1, 8)) + np.float32(0.25) * np.tile(signs, (1, 8))[:, ::-1]
    assert np.array_equal(checked_vectors(rows, [4], 5)[1], np.arange(5))


CAUSES = {
    "offset": (lambda x: x + np.float32(1e5), "One offset is in all of them .*: subtract their mean"),
    "constant coordinate": (lambda x: np.c_[np.full(len(x), 1e6), x[:, 1:]], "Coordinate 0 is far larger than all others: leave it out"),
    "coordinate": (lambda x: np.c_[x[:, :5], x[:, 5] * 1e6 + np.sign(x[:, 5]) * 1e6, x[:, 6:]], "Coordinate 5 is far larger"),
    "line": (lambda x: np.outer(x[:, 0], x[0]), "They lie on one line"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "sentence"), CAUSES.values(), ids=CAUSES)
def test_what_differs_by_rounding_is_refused_with_its_cause(vectors, spoil, sentence):
    spoiled = spoil(vectors).astype(np.float32)
    for taker in (fitted, compressed):
        with pytest.raises(ValueError, match=rf"lie along one direction but for rounding \(.*\)\. {sentence}"):
            taker(spoiled)
    said = " ".join(verdict(inspected(spoiled)))
    assert "hardly point different ways" in said
    assert sentence.split(":")[0].split(" .*")[0] in said


def test_a_smaller_offset_warns_and_the_remedy_works(vectors):
    shifted = vectors + 1000
    for taker in (fitted, compressed):
        with pytest.warns(UserWarning, match="hardly point different ways .* One offset is in all of them") as caught:
            taker(shifted)
        assert sum("hardly point" in str(warning.message) for warning in caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            taker(shifted - shifted.mean(axis=0))


def test_directions_by_hand():
    along = np.array([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])  # 0.36 of two of three lies outside of the first axis
    assert describe_direction(along)[0] == pytest.approx(0.24)
    assert describe_direction(np.eye(4))[0] == pytest.approx(0.75)


def test_inspection_names_zero_rows_by_their_own_number(vectors):
    spoiled = vectors.copy()
    spoiled[1200] = 0
    with pytest.raises(InspectionError, match="Row 1200 is zero or not finite"):
        inspect_vectors(spoiled, settings=InspectionSettings(k=5, max_texts=1500))
