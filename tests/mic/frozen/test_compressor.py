"""Vectors in a given number of bytes: the choice, what it is compared with, saving, files written by runs that are killed."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk

from hf_mic import Compressor
from hf_mic.codes import ScalarQuantizer, open_codes
from hf_mic.frozen import AdaptConfig, PrefixMap, choosing, compressor
from hf_mic.frozen.candidates import sizes
from hf_mic.frozen.choosing import split_rows

WIDTH = 48
FAST = AdaptConfig(steps=10, batch_size=64, pool_size=256)


@pytest.fixture(scope="module")
def vectors():
    """Points around 60 centres that lie in 8 dimensions, hidden by a rotation, with noise in all dimensions; any scale."""
    rng = np.random.default_rng(0)
    centres = np.zeros((60, WIDTH))
    centres[:, -8:] = rng.normal(size=(60, 8))
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    points = (np.repeat(centres, 20, axis=0) + 0.15 * rng.normal(size=(1200, WIDTH))) @ basis
    return (points * rng.uniform(0.5, 2, (1200, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(vectors):
    return Compressor.fit(vectors, bytes_per_vector=4, config=FAST)


def test_sizes_fill_the_bytes():
    assert sizes(48, 4) == [(32, 1), (16, 2), (8, 4), (4, 8), (2, 16), (1, 32)]
    assert sizes(48, 7) == [(28, 2), (14, 4), (7, 8)]
    assert sizes(48, 192) == [(48, 32)]
    for bytes_per_vector in (0, 191, 193):
        with pytest.raises(ValueError, match="bytes_per_vector"):
            Compressor.fit(np.ones((9, 48)), bytes_per_vector)


def test_neighbourhoods_are_held_out_whole(vectors):
    """The nearest rows of those that are judged with were not learned from, or copies of what was learned decide."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    learn, judge, beside = split_rows(unit, 1)
    assert sorted([*learn, *judge, *beside]) == list(range(len(unit)))
    assert 120 <= len(judge) + len(beside) <= 240
    assert abs(len(judge) - len(beside)) <= 1
    similarity = unit[judge] @ unit.T
    similarity[np.arange(len(judge)), judge] = -1
    nearest = np.argsort(-similarity, axis=1)[:, :5]
    assert np.isin(nearest, learn).mean() < 0.2  # 0.8 of rows held out one by one
    assert not np.array_equal(judge, split_rows(unit, 2)[1])
    many = np.random.default_rng(0).normal(size=(20_000, 4))
    learn, judge, beside = split_rows(many / np.linalg.norm(many, axis=1, keepdims=True), 1)
    assert 900 < len(judge) <= 1000
    assert len(learn) + len(judge) + len(beside) == 20_000


def test_rows_in_one_place_are_held_out_one_by_one():
    unit = np.repeat([[1.0, 0.0]], 200, axis=0)
    learn, judge, beside = split_rows(unit, 0)
    assert (len(learn), len(judge), len(beside)) == (160, 20, 20)


def test_the_best_of_all_candidates_is_taken(fitted):
    kept = [row.neighbours_kept for row in fitted.report]
    assert kept == sorted(kept, reverse=True)
    best, maps = fitted.report[0], {row.map for row in fitted.report}
    assert (best.dims, best.bits, best.bytes) == (fitted.dims, fitted.quantizer.bits, fitted.bytes_per_vector)
    assert maps == {"truncation", "pca", "random", "fitted"}
    assert len(fitted.report) == len({(r.map, r.rotation, r.dims, r.bits) for r in fitted.report}) == 6 * 4 + 2 * 4
    assert all(row.dims * row.bits == 32 and row.bytes == 4 for row in fitted.report)
    truncation = max(row.neighbours_kept for row in fitted.report if row.map == "truncation")
    assert best.map in ("pca", "fitted")  # the axes are hidden by a rotation
    assert best.neighbours_kept > truncation + 0.05


def test_the_report_says_what_is_kept(fitted, vectors):
    """Its numbers by the definition, from the compressor that was returned."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    learn, judge, beside = split_rows(unit, 0)
    searched = np.concatenate([beside, learn])
    codes = fitted.transform(vectors[searched])
    full, by_code = unit[judge] @ unit[searched].T, fitted.scores(vectors[judge], codes)
    first, second = (np.argsort(-scores, axis=1, kind="stable")[:, :10] for scores in (full, by_code))
    kept = np.mean([len({*a} & {*b}) / 10 for a, b in zip(first, second, strict=True)])
    assert fitted.report[0].neighbours_kept == pytest.approx(kept, abs=2e-3)
    assert 0.3 < fitted.report[0].spearman < 1


def test_scores_are_cosines_of_what_is_reconstructed(fitted, vectors):
    codes = fitted.transform(vectors)
    assert (codes.shape, codes.dtype) == ((1200, 4), np.uint8)
    rows = fitted.reconstruct(codes)
    assert rows.shape == (1200, fitted.dims)
    queries = fitted.prefix_map.apply(vectors[:20], dim=fitted.dims)
    expected = queries @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    np.testing.assert_allclose(fitted.scores(vectors[:20], codes), expected, atol=2e-6)
    scores, found = fitted.search(vectors[:20], codes, 5)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :5], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, found, 1), scores, atol=2e-6)
    assert np.array_equal(fitted.search(torch.from_numpy(vectors[:20]), torch.from_numpy(codes), 5)[1], found)


def test_deterministic_in_the_seed_whatever_the_source(fitted, vectors, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    for same in (np.load(tmp_path / "vectors.npy", mmap_mode="r"), torch.from_numpy(vectors), vectors.astype(float)):
        again = Compressor.fit(same, 4, config=FAST)
        assert again.fingerprint() == fitted.fingerprint()
        assert again.report == fitted.report
        assert np.array_equal(again.transform(same), fitted.transform(vectors))
    assert Compressor.fit(vectors, 4, seed=1, config=FAST).fingerprint() != fitted.fingerprint()
    assert Compressor.fit(vectors.astype(np.float16), 4, config=FAST).bytes_per_vector == 4


def test_nothing_is_chosen_over_truncation_that_does_not_gain():
    """All 8 coordinates as float32 are kept exactly by every map: the simplest is taken."""
    vectors = np.random.default_rng(0).normal(size=(300, 8))
    chosen = Compressor.fit(vectors, 32, config=FAST)
    assert (chosen.report[0].map, chosen.report[0].neighbours_kept) == ("truncation", 1.0)
    assert {row.map for row in chosen.report} == {"truncation", "pca", "random"}  # no prefix is left to fit


@pytest.mark.parametrize(("asked", "fitted_for"), [(None, {1, 2, None}), (1, {1})])
def test_each_code_of_few_bits_has_a_map_of_its_own(vectors, monkeypatch, asked, fitted_for):
    """One bit, two bits, and the rest: what is judged at a code is the map that was fitted for it, or the one asked for."""
    maps, real = {}, choosing.fit_map

    def fit(rows, config, **options):
        maps[config.bits] = real(rows, config, **options)
        assert config.dims == [4, 8, 16, 32]
        return maps[config.bits]

    monkeypatch.setattr(choosing, "fit_map", fit)
    made = Compressor.fit(vectors, 4, config=dataclasses.replace(FAST, bits=asked))
    assert set(maps) == fitted_for
    best = next(row for row in made.report if row.map == "fitted")
    # Remove all others, so that the best fitted map is taken.
    monkeypatch.setattr(choosing._Examiner, "examine", lambda *_: (0.0, 0.0))
    monkeypatch.setattr(
        choosing, "_turns", lambda name, bits: () if (name, bits) != ("fitted", best.bits) else (False,)
    )
    only = Compressor.fit(vectors, 4, config=dataclasses.replace(FAST, bits=asked))
    source = maps[asked if asked else best.bits if best.bits <= 2 else None]
    assert torch.equal(only.prefix_map.weight, source.weight[:, : only.dims])
    assert only.prefix_map.config["dims"] == [d for d in (4, 8, 16, 32) if d <= only.dims]


def test_the_map_of_a_compressor_is_a_map(fitted, vectors):
    """Alone it maps to the coordinates that are kept."""
    mapped = fitted.prefix_map.apply(vectors[:5])
    assert mapped.shape == (5, fitted.dims)
    with pytest.raises(ValueError, match=rf"dim={fitted.dims + 1}: must lie in \[1, {fitted.dims}\]"):
        fitted.prefix_map.apply(vectors[:5], dim=fitted.dims + 1)


def test_an_mlp_can_be_the_fitted_map(vectors, tmp_path):
    config = AdaptConfig(kind="mlp", hidden_dim=8, steps=10, batch_size=64, pool_size=256)
    chosen = Compressor.fit(vectors, 4, config=config)
    short = compressor.PrefixMap("mlp", torch.eye(4)[:, :2], torch.zeros(4, 3), torch.zeros(3), torch.zeros(3, 2))
    rows = np.random.default_rng(0).normal(size=(40, 4))
    made = Compressor(short, ScalarQuantizer(2, 16), chosen.report)
    made.save(tmp_path)
    assert np.array_equal(Compressor.load(tmp_path).transform(rows), made.transform(rows))


def test_a_code_does_not_depend_on_what_else_is_in_the_batch(fitted, vectors):
    """float16 coordinates would show a sum in another order in their last bit."""
    exact = Compressor(fitted.prefix_map, ScalarQuantizer(fitted.dims, 16))
    for coder in (fitted, exact):
        codes = coder.transform(vectors)
        for rows in (1, 2, 3, 17, 100):
            parts = [coder.transform(vectors[start : start + rows]) for start in range(0, len(vectors), rows)]
            assert np.array_equal(np.concatenate(parts), codes), rows


def test_the_last_row_of_a_chunk_of_one(fitted, vectors, monkeypatch):
    exact = Compressor(fitted.prefix_map, ScalarQuantizer(fitted.dims, 16))
    whole = exact.transform(vectors)
    monkeypatch.setattr(compressor, "ROWS", 1)
    assert np.array_equal(exact.transform(vectors), whole)
    with pytest.raises(ValueError, match=r"row 0 is zero \(1 such rows among 1\)"):
        exact.transform(np.zeros((1, WIDTH)))


def test_the_fingerprint_covers_signs_of_a_rotation(fitted):
    short = PrefixMap("orthogonal", torch.eye(WIDTH)[:, :16])
    rows = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    code = ScalarQuantizer.fit(rows, 1, rotation="hadamard")
    turned = Compressor(short, code)
    assert turned.fingerprint() != Compressor(short, replace(code, signs=-code.signs)).fingerprint()


def test_a_spawned_process_codes_the_same(fitted, vectors):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(fitted.transform, [vectors[:700], vectors[700:]]))
    assert np.array_equal(np.concatenate(parts), fitted.transform(vectors))
    again = pickle.loads(pickle.dumps(fitted))
    assert again.fingerprint() == fitted.fingerprint()
    assert again.report == fitted.report


@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_a_table_is_coded_as_a_matrix(fitted, vectors, tmp_path, kind):
    Dataset.from_dict({"id": range(len(vectors)), "embedding": list(vectors)}).save_to_disk(tmp_path)
    table = load_from_disk(tmp_path).with_format(kind)

    def codes(coder, **options):
        return table.map(coder.transform_batch, batched=True, remove_columns="embedding", **options)

    fitted.save(tmp_path / "c")
    coded = codes(Compressor.load(tmp_path / "c"), batch_size=109)  # 1200 = 11 x 109 + 1
    assert coded.column_names == ["id", "codes"]
    assert coded.features["codes"].feature.dtype == "uint8"
    assert coded.with_format("numpy")["id"][:].tolist() == list(range(len(vectors)))
    assert np.array_equal(coded.with_format("numpy")["codes"][:], fitted.transform(vectors))
    # What was written is found again by the compressor's numbers: those of another are not taken for it.
    assert codes(Compressor.load(tmp_path / "c"), batch_size=109).cache_files == coded.cache_files
    other = Compressor(fitted.prefix_map, ScalarQuantizer(fitted.dims, 16))  # another code of the same map
    assert np.array_equal(codes(other, batch_size=109).with_format("numpy")["codes"][:], other.transform(vectors))


def test_batches_of_other_columns_and_what_is_refused(fitted, vectors):
    rows = np.empty(3, dtype=object)
    rows[:] = list(vectors[:3])
    names = ["a", "b", "c"]
    coded = fitted.transform_batch({"name": names, "v": rows}, column="v", codes="c")
    assert coded.keys() == {"name", "c"}
    assert coded["name"] is names
    assert np.array_equal(coded["c"], fitted.transform(vectors[:3]))
    with pytest.raises(ValueError, match="column='embedding': must be one of name, v"):
        fitted.transform_batch({"name": names, "v": rows})
    for wrong in ([[1.0, 2.0], [1.0]], [None, [1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"must have shape \(N, D\), rows of one length"):
            fitted.transform_batch({"embedding": wrong})


def test_few_rows_and_copies(vectors):
    assert Compressor.fit(vectors[:100], 4, config=FAST).width == WIDTH
    for few in (vectors[:99], np.tile(vectors[:50], (4, 1))):
        with pytest.raises(ValueError, match="distinct vectors are too few to choose a code: give at least 100"):
            Compressor.fit(few, 4, config=FAST)


def test_what_is_refused(fitted, vectors):
    spoiled = vectors.copy()
    spoiled[1100] = np.nan
    for call, message in (
        (lambda: Compressor.fit(spoiled, 4), "row 1100 holds NaN"),
        (lambda: fitted.transform(spoiled), "row 1100 holds NaN"),
        (lambda: fitted.transform(np.zeros((2, WIDTH))), "row 0 is zero"),
        (lambda: fitted.transform(vectors[:, :4]), r"must have shape \(N, 48\)"),
        (lambda: fitted.transform(vectors.astype(int)), "got int64"),
        (lambda: fitted.scores(vectors[:1], vectors), "must be uint8 of shape"),
        (lambda: fitted.transform_to("codes.npy", vectors[:0]), "number of vectors=0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_saved_and_loaded(fitted, vectors, tmp_path):
    fitted.save(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "compressor.json",
        "map.safetensors",
        "quantizer.safetensors",
    ]
    loaded = Compressor.load(tmp_path / "c")
    codes = fitted.transform(vectors)
    assert np.array_equal(loaded.transform(vectors), codes)
    assert np.array_equal(loaded.scores(vectors[:3], codes), fitted.scores(vectors[:3], codes))
    assert loaded.report == fitted.report
    code = "import sys; from hf_mic import Compressor; Compressor.load(sys.argv[1]); print('hf_mic.frozen.fit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("rotation", [None, "orthogonal"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_reader_of_the_page_needs_neither_this_package_nor_torch(bits, rotation, vectors, tmp_path, repo_root):
    """13 coordinates do not fill the last byte."""
    axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))[0][
        :, :13
    ].contiguous()
    mapped = PrefixMap("orthogonal", axes).apply(vectors, dim=13)
    made = Compressor(PrefixMap("orthogonal", axes), ScalarQuantizer.fit(mapped, bits, rotation=rotation))
    made.save(tmp_path / "outputs" / "compressor")
    np.savez(tmp_path / "given.npz", queries=vectors[:5], codes=made.transform(vectors))
    page = (repo_root / "docs" / "codes.md").read_text(encoding="utf-8")
    (reader,) = (block.split("```")[0] for block in page.split("```python\n") if "def read(codes)" in block)
    code, _, check = reader.partition("\nassert ")
    assert "compressor" in check  # the only line that needs what the page made before
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    alone = "import sys; sys.modules.update(hf_mic=None, torch=None)\n" + code
    alone += "\ngiven = np.load('given.npz'); np.save('scores.npy', score(given['queries'], given['codes']))"
    subprocess.run([sys.executable, "-c", alone], cwd=tmp_path, check=True)
    expected = made.scores(vectors[:5], made.transform(vectors))
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-5)


def test_folders_that_are_refused(fitted, vectors, tmp_path):
    fitted.save(tmp_path)
    settings = json.loads((tmp_path / "compressor.json").read_text())
    Compressor(PrefixMap("orthogonal", torch.eye(WIDTH)[:, : fitted.dims]), fitted.quantizer).prefix_map.save(
        tmp_path / "map.safetensors"
    )
    with pytest.raises(ValueError, match="files of different compressors"):
        Compressor.load(tmp_path)
    (tmp_path / "compressor.json").write_text(json.dumps(settings | {"format_version": 2}))
    with pytest.raises(ValueError, match="format version 2, this release reads 1"):
        Compressor.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        Compressor.load(tmp_path / "absent")


def test_codes_of_a_file_are_written_whole(fitted, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(compressor, "ROWS", 100)
    target = fitted.transform_to(tmp_path / "new" / "codes.npy", vectors, progress=False)
    assert os.listdir(tmp_path / "new") == ["codes.npy"]
    assert np.array_equal(open_codes(target), fitted.transform(vectors))


RUN = """
import sys, time
import numpy as np
from hf_mic.frozen import compressor
compressor.ROWS = 100
fitted, coded = compressor.Compressor.load(sys.argv[1]), compressor.Compressor._coded
def slowly(self, rows, start):
    time.sleep(0.2)
    return coded(self, rows, start)
compressor.Compressor._coded = slowly
fitted.transform_to(sys.argv[3], np.load(sys.argv[2], mmap_mode="r"), progress=False)
"""


def test_a_killed_run_goes_on(fitted, vectors, tmp_path, monkeypatch):
    fitted.save(tmp_path / "c")
    np.save(tmp_path / "vectors.npy", vectors)
    target, journal = tmp_path / "codes.npy", tmp_path / ".codes.npy.journal.json"
    words = [sys.executable, "-c", RUN, tmp_path / "c", tmp_path / "vectors.npy", target]
    with subprocess.Popen(words) as process:
        until = time.monotonic() + 60
        while not journal.exists() or json.loads(journal.read_text())["rows"] < 200:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    done = json.loads(journal.read_text())["rows"]
    assert 200 <= done < 1200
    assert not target.exists()
    started = []
    coded = Compressor._coded

    def counted(self, rows, start):
        started.append(start)
        return coded(self, rows, start)

    monkeypatch.setattr(compressor, "ROWS", 100)
    monkeypatch.setattr(Compressor, "_coded", counted)
    others = tmp_path / "others.npy"
    for kind in (".partial", ".journal.json"):  # what is left of other vectors is not used
        (tmp_path / f".others.npy{kind}").write_bytes((tmp_path / f".codes.npy{kind}").read_bytes())
    fitted.transform_to(others, vectors[::-1], progress=False)
    assert started == list(range(0, 1200, 100))
    assert np.array_equal(open_codes(others), fitted.transform(vectors[::-1]))
    started.clear()
    fitted.transform_to(target, np.load(tmp_path / "vectors.npy", mmap_mode="r"), progress=False)
    assert started == list(range(done, 1200, 100))
    assert np.array_equal(open_codes(target), fitted.transform(vectors))
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]


def test_refused_rows_leave_no_file(fitted, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(compressor, "ROWS", 100)
    spoiled = vectors.copy()
    spoiled[250] = np.nan
    with pytest.raises(ValueError, match="row 250"):
        fitted.transform_to(tmp_path / "codes.npy", spoiled, progress=False)
    assert not (tmp_path / "codes.npy").exists()
