"""hf_mic inspect VECTORS: what is measured without a model, and what a map or a code makes of the same rows."""

import json

import numpy as np
import pytest
import torch

from hf_mic import Compressor
from hf_mic.__main__ import main
from hf_mic.commands.inspect import VECTOR_FILES
from hf_mic.frozen import AdaptConfig, PrefixMap
from hf_mic.frozen.index import READERS
from hf_mic.inspection import InspectionError, InspectionSettings, inspect_vectors, verdict

QUICK = InspectionSettings(k=5, max_queries=60)
WIDTH = 32


@pytest.fixture(scope="module")
def cloud():
    """Variance in 8 directions that a rotation hides, and the rotation that brings them to the front."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    ordered = random.normal(size=(400, WIDTH)) * np.r_[np.ones(8), np.full(WIDTH - 8, 0.05)]
    vectors = (ordered @ rotation.T * random.uniform(1, 3, (400, 1))).astype(np.float32)
    return vectors, PrefixMap("orthogonal", torch.from_numpy(rotation))


def nearest(scores, query, k):
    order = [row for row in np.argsort(-scores, kind="stable") if row != query]
    return set(order[:k])


def test_a_rotation_shows_in_the_prefixes_and_leaves_the_full_width(cloud):
    vectors, turn = cloud
    found = inspect_vectors(vectors, settings=QUICK, mapped=turn, map_name="turned", file="v.npy")
    before, after = (
        {row["dim"]: row["first"] for row in rows} for rows in (found.neighbours, found.mapped["neighbours"])
    )
    assert after[8] > before[8] + 0.4
    assert after[WIDTH] == before[WIDTH] == 1.0
    np.testing.assert_allclose(
        np.sort(found.mapped["spectra"][WIDTH]), np.sort(np.linalg.eigvalsh(np.cov((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T))), atol=1e-5
    )  # fmt: skip
    assert verdict(found)[0].startswith("After turned, the first 8 coordinates keep ")
    assert not any("hf-mic adapt" in line for line in verdict(found))  # a map is there already
    plain = verdict(inspect_vectors(vectors, settings=QUICK, file="some/v.npy"))
    at = next(i for i, line in enumerate(plain) if line.endswith("so a rotation can make prefixes better."))
    assert plain[at + 1].endswith("1 bytes: hf-mic adapt some/v.npy --bytes 1 --output_dir outputs/v_1")
    assert "5 nearest of 400 vectors" in plain[0]
    assert any("divide them by it" in line for line in plain)


def test_what_a_code_keeps_agrees_with_a_slow_count(cloud):
    vectors, _ = cloud
    compressor = Compressor.fit(vectors, 4, config=AdaptConfig(steps=5, batch_size=64, pool_size=128))
    found = inspect_vectors(vectors, settings=InspectionSettings(k=5), mapped=compressor, map_name="c4")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = compressor.scores(vectors, compressor.transform(vectors))
    kept = [len(nearest(unit @ unit[i], i, 5) & nearest(scores[i], i, 5)) / 5 for i in range(len(unit))]
    code = found.mapped["code"]
    assert code["kept"] == pytest.approx(np.mean(kept), abs=0.01)
    assert (code["dim"], code["bits"], code["bytes_per_vector"]) == (compressor.dims, compressor.quantizer.bits, 4)
    said = next(line for line in verdict(found) if line.startswith("In 4 bytes per vector, the code of c4 keeps"))
    assert "32 dimensions as binary" in said  # 4 bytes as well


def test_copies_are_left_out_and_only_measured_rows_are_read(cloud, tmp_path):
    vectors, _ = cloud
    twice = np.concatenate([vectors, vectors[:50]])
    found = inspect_vectors(twice, settings=QUICK)
    assert found.texts == {"from": "vectors", "given": 450, "measured": 400}
    assert found.neighbours == inspect_vectors(vectors, settings=QUICK).neighbours
    np.save(tmp_path / "v.npy", twice)
    sampled = inspect_vectors(
        np.load(tmp_path / "v.npy", mmap_mode="r"), settings=InspectionSettings(k=5, max_texts=100)
    )
    assert 50 < sampled.texts["measured"] <= 100


def test_what_cannot_be_measured_is_refused(cloud):
    vectors, turn = cloud
    for spoiled, message in (
        (vectors[:10], "10 distinct vectors are too few to compare 5 neighbours: give at least 11"),
        (np.repeat(vectors[:1], 100, axis=0), "1 distinct vectors are too few"),
        (np.where(np.arange(400)[:, None] == 7, np.nan, vectors), r"Row 7 is zero or not finite \(1 such rows"),
        (vectors * (np.arange(400)[:, None] != 3), "Row 3 is zero"),
        (vectors[:, :20], r"m takes vectors of width 32, these have 20"),
    ):
        with pytest.raises(InspectionError, match=message):
            inspect_vectors(spoiled, settings=QUICK, mapped=turn, map_name="m")
    with pytest.raises(ValueError, match="float16, float32 or float64"):
        inspect_vectors(np.ones((50, 4), dtype=np.int8))


def test_command_from_vectors_to_codes_and_back(cloud, tmp_path, monkeypatch, capsys):
    """The verdict's next command runs, and its folder is what --map takes."""
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", cloud[0])
    assert main(["inspect", "mine.npy", "--k", "5"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "hf-mic adapt" in line)
    words = line.partition("hf-mic ")[2].split()
    assert main([*words, "--steps", "5", "--batch_size", "64", "--pool_size", "128"]) == 0
    assert main(["inspect", "mine.npy", "--map", words[-1], "--k", "5", "--html", "--output_dir", "after"]) == 0
    report = json.loads((tmp_path / "after" / "inspection.json").read_text())
    assert report["verdict"][0] in capsys.readouterr().out
    assert report["mapped"]["code"]["bytes_per_vector"] == 1
    assert report["model"]["file"] == "mine.npy"
    text = (tmp_path / "after" / "inspection.md").read_text()
    assert "## After mine_1" in text
    assert "400 distinct ones of 400" in text
    assert (tmp_path / "after" / "inspection.html").read_text().count("data:image/png") == 3


def test_command_refuses_what_does_not_fit(cloud, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", cloud[0])
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([], "either MODEL, a folder or a name on the Hub, or --vectors FILE"),
        (["absent.npy"], "absent.npy cannot be read as a .npy file"),
        (["mine.npy", "--map", "empty"], "empty holds neither compressor.json nor map.safetensors"),
        (["mine.npy", "--map", "mine.npy"], "cannot be read as a safetensors file"),
        (["mine.npy", "--texts", "t.txt"], "leave out --texts"),
        (["mine.npy", "--prompt", "query: "], "leave out --prompt"),
        (["model", "--map", "empty"], "--map is applied to --vectors"),
    ):
        assert main(["inspect", *words]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "outputs").exists()


def test_all_files_of_vectors_are_known_by_their_names():
    assert set(VECTOR_FILES) == set(READERS)
