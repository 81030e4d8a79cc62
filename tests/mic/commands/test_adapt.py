"""The verb adapt: an index or a model is adapted, what cannot be is refused before the fit."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from huggingface_hub import ModelCard
from pyarrow import parquet as pq
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from hf_mic import Compressor
from hf_mic.__main__ import main as run_verb
from hf_mic.commands.adapt import describe_fit, main, parse
from hf_mic.frozen.index import open_vectors, write_mapped_index
from hf_mic.frozen.prefix_map import PrefixMap
from hf_mic.hub.legacy_modules import has_legacy_modules

WIDTH = 24
WORDS = [f"w{i}" for i in range(WIDTH)]


@pytest.fixture(scope="module")
def vectors():
    """Points around 40 centres that lie in 6 dimensions, hidden by a rotation, with noise in all dimensions."""
    rng = np.random.default_rng(0)
    centres = np.zeros((40, WIDTH))
    centres[:, -6:] = rng.normal(size=(40, 6))
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    points = np.repeat(centres, 25, axis=0) + 0.15 * rng.normal(size=(1000, WIDTH))
    return (points @ basis).astype(np.float32)


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


FAST = ["--dims", "2", "4", "8", "--batch_size", "64", "--pool_size", "256", "--steps", "10"]


def test_adapts_an_index(vectors, tmp_path):
    np.save(tmp_path / "index.npy", vectors)
    output = tmp_path / "out"
    (tmp_path / "settings.yaml").write_text(
        f"embeddings: {tmp_path / 'index.npy'}\noutput_dim: 4\nseed: 5\ndims: [2, 4]\n"
    )
    arguments = [str(tmp_path / "settings.yaml"), *FAST, "--output_dir", str(output)]
    fitted = main(*parse(arguments))
    assert (fitted.config["seed"], fitted.config["dims"]) == (5, [2, 4, 8])
    assert sorted(entry.name for entry in output.iterdir()) == ["index.npy", "map.safetensors"]
    written = np.load(output / "index.npy")
    assert written.dtype == np.float32
    assert np.array_equal(written, PrefixMap.load(output / "map.safetensors").apply(vectors, dim=4))


def test_says_whether_it_helped_and_what_comes_next(vectors, tmp_path, monkeypatch, capsys):
    """The variance hides behind a rotation, so the map helps; the command that is named runs."""
    monkeypatch.chdir(tmp_path)
    np.save("index.npy", vectors)
    fitted = main(*parse(["index.npy", *FAST, "--output_dir", "out"]))
    said = capsys.readouterr().out
    assert "The map helps at every length." in said
    for row in fitted.held_out:
        assert (
            f"| {row['dim']} | {100 * row['truncation']:.1f} | {100 * row['pca']:.1f} | {100 * row['map']:.1f} |"
            in said
        )
        assert row["map"] > row["truncation"] + 0.05
    words = re.search(r"^Next, .*: hf-mic (.*)$", said, re.MULTILINE)[1].split()
    assert words == ["inspect", "index.npy", "--map", "out", "--html"]
    assert run_verb(words) == 0
    same = replace(fitted, held_out=[row | {"map": row["truncation"]} for row in fitted.held_out])
    assert describe_fit(same, 9).endswith(
        "The map does not help: keep the vectors as they are, or fit on more of them."
    )
    one = replace(fitted, held_out=[fitted.held_out[0], *same.held_out[1:]])
    assert "The map helps at 2 dimensions; at the others" in describe_fit(one, 9)
    assert "was not measured" in describe_fit(replace(fitted, held_out=[]), 9)
    assert "smaller is better also below 0" in said


def test_an_adapted_model_has_a_whole_card(encoder, texts, tmp_path, capsys):
    encoder.model_card_data.license = "mit"
    encoder.save(str(tmp_path / "encoder"))
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    given = [
        "--model",
        str(tmp_path / "encoder"),
        "--texts",
        str(tmp_path / "texts.txt"),
        *FAST,
        "--output_dir",
        str(tmp_path / "out"),
    ]
    main(*parse([*given, "--base_model", "ann/words"]))
    card = ModelCard.load(tmp_path / "out" / "model" / "README.md")
    assert card.data.base_model == "ann/words"
    assert {"matryoshka", "truncatable-embeddings"} <= set(card.data.tags)
    assert "\n# Sentence encoder" in card.text
    assert "truncate_dim=8)" in card.text  # of 2, 4 and 8 the one nearest to 32
    assert "| dimensions | as they are | PCA | map |" in card.text
    assert "sentence_transformers_model_id" not in card.text
    assert str(tmp_path) not in card.text
    assert "Next, on tasks: hf-mic evaluate --models" in capsys.readouterr().out
    main(*parse(given))
    assert "The encoder itself is that of `encoder`." in ModelCard.load(tmp_path / "out" / "model" / "README.md").text


def test_adapts_a_model(encoder, texts, tmp_path):
    encoder.save(str(tmp_path / "encoder"))
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    arguments = ["--model", str(tmp_path / "encoder"), "--texts", str(tmp_path / "texts.txt"), *FAST]
    fitted = main(*parse([*arguments, "--output_dir", str(tmp_path / "out")]))
    adapted = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu").encode(texts)
    np.testing.assert_allclose(adapted, fitted.apply(encoder.encode(texts)), atol=2e-6)


def test_adapts_a_model_for_servers(make_model, make_sentences, tmp_path):
    make_model(normalize=True).save(str(tmp_path / "encoder"))
    (tmp_path / "texts.txt").write_text("\n".join(make_sentences(100, 0)))
    arguments = [
        "--model",
        str(tmp_path / "encoder"),
        "--texts",
        str(tmp_path / "texts.txt"),
        *FAST,
        "--legacy_modules",
    ]
    fitted = main(*parse([*arguments, "--output_dir", str(tmp_path / "out")]))
    folder = tmp_path / "out" / "model"
    config = json.loads((folder / "config.json").read_text())
    assert (config["is_matryoshka"], config["matryoshka_dimensions"]) == (True, [2, 4, 8, 32])
    assert has_legacy_modules(folder)
    adapted = SentenceTransformer(str(folder), device="cpu").encode(make_sentences(5, 1))
    start = make_model().encode(make_sentences(5, 1))
    np.testing.assert_allclose(adapted, fitted.apply(start), atol=2e-6)
    with pytest.raises(ValueError, match="kind orthogonal or linear"):
        main(*parse([*arguments, "--kind", "mlp", "--output_dir", str(tmp_path / "none")]))
    assert not (tmp_path / "none").exists()


def test_compresses_an_index(vectors, tmp_path, capsys):
    np.save(tmp_path / "index.npy", vectors)
    chosen = main(*parse([str(tmp_path / "index.npy"), "--bytes", "2", *FAST, "--output_dir", str(tmp_path / "out")]))
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "codes.npy",
        "compressor.json",
        "map.safetensors",
        "quantizer.safetensors",
    ]
    codes = np.load(tmp_path / "out" / "codes.npy")
    assert np.array_equal(codes, Compressor.load(tmp_path / "out").transform(vectors))
    assert codes.shape == (1000, 2)
    said = capsys.readouterr().out
    best = chosen.report[0]
    assert f"| {best.dims} | {best.bits} | {100 * best.neighbours_kept:.1f} |" in said
    assert said.count("\n| ") == 2 + len(chosen.report)
    assert "2 of 96 bytes per vector" in said
    with pytest.raises(ValueError, match="--bytes makes codes of vectors"):
        parse(["--embeddings", "a.npy", "--bytes", "2", "--output_dim", "3"])


def test_vectors_are_read_from_all_formats(vectors, tmp_path):
    rows = vectors[:20]
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "a.npz", rows)
    save_file({"vectors": rows}, tmp_path / "a.safetensors")
    np.savetxt(tmp_path / "plain.csv", rows, delimiter=",", fmt="%.9g")
    np.savetxt(tmp_path / "named.csv", rows, delimiter=",", fmt="%.9g", header=",".join(map(str, WORDS)), comments="")
    pq.write_table(pa.table({"vector": list(rows)}), tmp_path / "lists.parquet")
    pq.write_table(pa.table({f"x{i}": rows[:, i] for i in range(WIDTH)}), tmp_path / "columns.parquet")
    for path in sorted(tmp_path.iterdir()):
        read = open_vectors(path)
        assert np.array_equal(read, rows), path
        assert read.dtype == np.float32
    assert isinstance(open_vectors(tmp_path / "a.npy"), np.memmap)
    np.savez(tmp_path / "two.npz", a=rows, b=rows)
    (tmp_path / "words.csv").write_text("a,b\n1,x\n")
    for name in ("no.npz", "no.safetensors", "no.csv", "no.parquet"):
        (tmp_path / name).write_text("nothing")
    for name in ("two.npz", "words.csv", "no.npz", "no.safetensors", "no.parquet", "absent.npy", "absent.csv"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a {name[name.index('.') :]} file"):
            open_vectors(tmp_path / name)


def test_refuses_and_leaves_no_half_index(vectors, tmp_path):
    for arguments, message in (
        ([], "either --embeddings"),
        (["--texts", "a.txt"], "needs --model"),
        (["--texts", "a.txt", "--model", "m", "--output_dim", "4"], "--index or --embeddings"),
        (["--texts", "a.txt", "--model", "m", "--max_texts", "0"], "max_texts"),
        (["--embeddings", "a.npy", "--legacy_modules"], "give --model too"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(arguments)
    np.save(tmp_path / "narrow.npy", vectors[:, :5])
    np.save(tmp_path / "whole.npy", vectors)
    for more, message in (
        (["--index", str(tmp_path / "narrow.npy")], "narrow.npy must hold vectors of the width 24"),
        (["--output_dim", "25"], r"output_dim=25: must lie in \[1, 24\]"),
    ):
        given = ["--embeddings", str(tmp_path / "whole.npy"), *FAST, "--output_dir", str(tmp_path / "none"), *more]
        with pytest.raises(ValueError, match=message):
            main(*parse(given))
        assert not (tmp_path / "none").exists()  # refused before the fit
    (tmp_path / "text.npy").write_text("no numbers")
    with pytest.raises(ValueError, match=r"cannot be read as a .npy file"):
        open_vectors(str(tmp_path / "text.npy"))
    spoiled = vectors.copy()
    spoiled[999] = np.nan
    np.save(tmp_path / "spoiled.npy", spoiled)
    target = tmp_path / "out" / "index.npy"
    target.parent.mkdir()
    with pytest.raises(ValueError, match="row 999"):
        write_mapped_index(PrefixMap("linear", torch.eye(WIDTH)), tmp_path / "spoiled.npy", target)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("moved", [None, 0, 1])
def test_map_and_index_are_of_one_fit_or_not_both_there(vectors, tmp_path, monkeypatch, moved):
    """Adapted anew and stopped: while the index is written, or at any of the moves."""
    np.save(tmp_path / "v.npy", vectors)
    output = tmp_path / "out"

    def adapt(seed):
        main(
            *parse(
                [
                    str(tmp_path / "v.npy"),
                    "--output_dir",
                    str(output),
                    "--dims",
                    "4",
                    "--steps",
                    "2",
                    "--seed",
                    str(seed),
                ]
            )
        )

    adapt(0)
    former = np.load(output / "index.npy")
    real = os.replace
    moves = 0

    def stopped(source, target):
        nonlocal moves
        if Path(target).parent == output:
            if moved is None or moves == moved:
                raise KeyboardInterrupt
            moves += 1
        return real(source, target)

    with monkeypatch.context() as patch:
        if moved is None:
            patch.setattr(PrefixMap, "apply", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            patch.setattr(os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            adapt(1)
    if moved is None:
        np.testing.assert_array_equal(np.load(output / "index.npy"), former)
        mapped = PrefixMap.load(output / "map.safetensors").apply(vectors)
        np.testing.assert_allclose(mapped, former, atol=1e-6)
    else:
        assert not (output / "map.safetensors").exists()
    adapt(1)
    mapped = PrefixMap.load(output / "map.safetensors").apply(vectors)
    np.testing.assert_allclose(mapped, np.load(output / "index.npy"), atol=1e-6)
    assert np.abs(mapped - former).max() > 1e-3


def test_codes_of_another_compressor_do_not_stay(vectors, tmp_path, monkeypatch):
    np.save(tmp_path / "v.npy", vectors)
    given = [str(tmp_path / "v.npy"), "--output_dir", str(tmp_path / "out"), "--bytes", "2", "--steps", "2"]
    main(*parse(given))
    assert (tmp_path / "out" / "codes.npy").is_file()
    monkeypatch.setattr(Compressor, "transform_to", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        main(*parse([*given, "--seed", "1"]))
    assert not (tmp_path / "out" / "codes.npy").exists()
