"""One graph from token ids to the final embedding: parity, free shapes, int8, and a client without torch."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from hf_mic.__main__ import main
from hf_mic.frozen import PrefixMap, append_to_model
from hf_mic.hub import onnx_export
from hf_mic.hub.onnx_export import OnnxExportError, export_onnx, run_onnx

MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino (the extra openvino)")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (the extra onnx)")


@pytest.fixture(scope="module")
def mapped(tiny_bert_path):
    """A small encoder with a residual network on top, the map with most parts."""
    from tiny_encoders import build_encoder

    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 32), (32, 16), (16,), (16, 32)]
    weights = [torch.randn(*shape, generator=generator) / 6 for shape in shapes]
    return append_to_model(build_encoder(tiny_bert_path), PrefixMap("mlp", *weights, config={"dims": [8]}))


@pytest.fixture(scope="module")
def exported(mapped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    mapped.save_pretrained(str(folder / "encoder"), create_model_card=False)
    return folder, export_onnx(mapped, folder / "mic8.onnx", dim=8)


def test_the_graph_computes_mapped_truncated_unit_vectors_for_any_shape(mapped, exported, make_sentences):
    _, report = exported
    assert (report.dim, report.computes_in, report.least_cosine) == (8, "float32", None)
    assert report.difference <= 1e-4
    for texts in (make_sentences(1, 0, longest=2), make_sentences(7, 1), make_sentences(3, 2, longest=60)):
        found = run_onnx(report.path, mapped.preprocess(texts))
        expected = mapped.encode(texts, truncate_dim=8, normalize_embeddings=True)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_padding_does_not_count(mapped, exported, make_sentences):
    _, report = exported
    features = mapped.preprocess(make_sentences(2, 3))
    wide = {name: np.pad(np.asarray(features[name]), ((0, 0), (0, 9))) for name in onnx_export.INPUTS}
    np.testing.assert_allclose(run_onnx(report.path, wide), run_onnx(report.path, features), atol=1e-5)


def test_other_pooling_and_the_model_is_left_alone(make_model, tmp_path):
    model = make_model()
    model = SentenceTransformer(modules=[model[0], Pooling(32, pooling_mode="cls"), Normalize()], device="cpu")
    model.half().train()
    assert export_onnx(model, tmp_path / "a.onnx").difference <= 1e-4
    assert model.training
    assert model.dtype == torch.float16


def test_a_client_needs_no_torch(mapped, exported, make_sentences, repo_root):
    folder, report = exported
    texts = make_sentences(3, 5)
    block = "import sys; sys.modules.update(torch=None, transformers=None, sentence_transformers=None)\n"
    code = block + f"import runpy; sys.argv[1:] = {[str(report.path), str(folder / 'encoder' / 'tokenizer.json')]!r}\n"
    code += f"runpy.run_path({str(repo_root / 'examples' / 'serving' / 'embed_onnx.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], input="\n".join(texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.array([line.split() for line in done.stdout.splitlines()], dtype=np.float32)
    expected = mapped.encode(texts, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@needs_openvino
def test_openvino_computes_the_same(mapped, exported, make_sentences, tmp_path, capsys):
    from hf_mic.hub.openvino_export import openvino_runner

    folder, plain = exported
    path = tmp_path / "graph" / "a.xml"
    assert main(["export", str(folder / "encoder"), "--dim", "8", "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.bin", "a.xml"]
    run, computes_in = openvino_runner(path, "f32")
    assert computes_in == "float32"
    for texts in (make_sentences(1, 0, longest=2), make_sentences(7, 1), make_sentences(3, 2, longest=60)):
        features = mapped.preprocess(texts)
        expected = mapped.encode(texts, truncate_dim=8, normalize_embeddings=True)
        np.testing.assert_allclose(run(features), expected, atol=1e-4)
        np.testing.assert_allclose(run(features), run_onnx(plain.path, features), atol=1e-4)
    # What this processor does by itself is said, and is what the printed cosine was measured with.
    run, computes_in = openvino_runner(path)
    texts = list(onnx_export.CHECK_TEXTS)
    expected = mapped.encode(texts, truncate_dim=8, normalize_embeddings=True)
    least = (run(mapped.preprocess(texts)) * expected).sum(axis=1).min()
    if computes_in == "float32":
        assert "cosine" not in printed
    else:
        noted = float(re.search(rf"computed in {computes_in}, the least cosine to them is (\S+)\.", printed)[1])
        assert 0.99 < noted <= least + 1e-4


@needs_openvino
def test_an_openvino_graph_that_differs_is_not_written(mapped, tmp_path, monkeypatch):
    from hf_mic.hub import openvino_export

    with pytest.raises(ValueError, match=r"OpenVINO reads a graph from \*\.xml"):
        openvino_export.export_openvino(mapped, tmp_path / "a.onnx")
    monkeypatch.setattr(openvino_export, "compare", lambda *given: (float("nan"), 1.0))
    with pytest.raises(OnnxExportError, match="OpenVINO's graph differs from the encoder by nan"):
        openvino_export.export_openvino(mapped, tmp_path / "a.xml", dim=8)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_not_written(mapped, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_export", lambda graph, features, path: shutil.copyfile(exported[1].path, path))
    assert export_onnx(mapped, tmp_path / "same.onnx", dim=8).difference <= 1e-4
    monkeypatch.setattr(
        onnx_export, "_expected", lambda model, texts, dim: np.ones((len(texts), dim), dtype=np.float32)
    )
    with pytest.raises(OnnxExportError, match="differs from the encoder"):
        export_onnx(mapped, tmp_path / "other.onnx", dim=8)
    assert [path.name for path in tmp_path.iterdir()] == ["same.onnx"]


def test_the_verb_and_what_int8_loses(mapped, exported, make_sentences, tmp_path, capsys):
    folder, plain = exported
    path = tmp_path / "a.onnx"
    assert main(["export", str(folder / "encoder"), "--dim", "8", "--int8", "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "8 dimensions" in printed
    assert "computed in int8" in printed
    least = float(re.search(r"the least cosine to them is (\S+)\.", printed)[1])
    features = mapped.preprocess(list(onnx_export.CHECK_TEXTS))
    cosines = (run_onnx(path, features) * run_onnx(plain.path, features)).sum(axis=1)
    assert 0.9 < least <= cosines.min() + 1e-4
    assert 0 < 1 - cosines.min() < 0.1
    assert path.stat().st_size < plain.path.stat().st_size
    assert main(["export", str(folder / "encoder"), "--dim", "64", "--output", str(tmp_path / "b.onnx")]) == 2
    assert "dim=64: must lie in [1, 32]" in capsys.readouterr().err
    assert not (tmp_path / "b.onnx").exists()
    for words, message in (
        (["b.bin"], "must end in .onnx, or in .xml for OpenVINO"),
        (["b.xml", "--int8"], "int8=True: only ONNX graphs"),
    ):
        assert main(["export", str(folder / "encoder"), "--output", *words]) == 2
        assert message in capsys.readouterr().err


def test_what_has_no_transformer_is_refused(static_model, tmp_path):
    with pytest.raises(
        ValueError, match="begins with a StaticEmbedding, a graph of token ids needs a Transformer first"
    ):
        export_onnx(static_model, tmp_path / "a.onnx")
