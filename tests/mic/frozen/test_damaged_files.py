"""Maps, compressors and half-written codes that are damaged: one error that names the file, or the work done anew."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_mic.codes import ScalarQuantizer
from hf_mic.frozen import PrefixMap
from hf_mic.frozen.candidates import Candidate
from hf_mic.frozen.compressor import Compressor

VECTORS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
HEAD = {"kind": "orthogonal", "config": {}, "losses": {}, "held_out": []}


@pytest.fixture
def compressor():
    prefix_map = PrefixMap("orthogonal", torch.eye(6)[:, :4].contiguous())
    return Compressor(
        prefix_map, ScalarQuantizer.fit(VECTORS[:, :4], 2), [Candidate("fitted", True, 4, 2, 1, 0.5, 0.9)]
    )


@pytest.mark.parametrize(
    ("head", "tensors", "message"),
    [
        ("", {}, "'prefix_map' in its header, cannot be read as json"),
        ("[]", {}, "is no json object"),
        ({**HEAD, "x": 1}, {}, "its header holds 'x'"),
        ({**HEAD, "config": None}, {}, "its header says config=None"),
        ({**HEAD, "kind": "affine"}, {}, "its header says kind='affine'"),
        (HEAD, {"bias": torch.ones(2)}, "it holds the tensors weight, bias, needed are weight|bias, weight, needed are weight"),
        ({**HEAD, "kind": "mlp"}, {}, "needed are weight, hidden_weight, hidden_bias, output_weight"),
        (HEAD, {"weight": torch.ones(4)}, "the shapes .* do not fit together"),
        (HEAD, {"weight": torch.ones(2, 4)}, "the shapes .* do not fit together"),
        ({**HEAD, "kind": "mlp"}, {"hidden_weight": torch.ones(4, 3), "hidden_bias": torch.ones(2), "output_weight": torch.ones(3, 4)}, "the shapes"),
        (HEAD, {"weight": torch.full((4, 4), torch.inf)}, "'weight' must be finite numbers of float32"),
    ],
)  # fmt: skip
def test_a_map_is_whole_or_refused(tmp_path, head, tensors, message):
    path = tmp_path / "map.safetensors"
    text = head if isinstance(head, str) else json.dumps(head)
    save_file({"weight": torch.eye(4), **tensors}, path, metadata={"prefix_map": text})
    with pytest.raises(ValueError, match=rf"^{path}.*({message})") as caught:
        PrefixMap.load(path)
    assert type(caught.value) is ValueError


def test_a_map_of_before_keeps_what_it_lacks_at_the_defaults(tmp_path):
    save_file({"weight": torch.eye(4)}, tmp_path / "map.safetensors", metadata={"prefix_map": '{"kind": "linear"}'})
    assert PrefixMap.load(tmp_path / "map.safetensors").held_out == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: "{", "compressor.json cannot be read as json"),
        (lambda said: [said], "compressor.json has format version None"),
        (lambda said: {**said, "format_version": "x" * 5000}, "compressor.json has format version 'x{39},"),
        (
            lambda said: {name: said[name] for name in said if name != "report"},
            "compressor.json is damaged, .*'report'",
        ),
        (lambda said: {**said, "report": [3]}, "compressor.json is damaged, .*report is none of candidates"),
        (lambda said: {**said, "report": [{"map": "pca"}]}, "compressor.json is damaged, .*missing"),
        (
            lambda said: {name: said[name] for name in said if name != "fingerprint"},
            "holds files of different compressors",
        ),
    ],
)
def test_settings_of_a_compressor_are_checked(tmp_path, compressor, change, message):
    compressor.save(tmp_path)
    assert Compressor.load(tmp_path).report == compressor.report
    path = tmp_path / "compressor.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ValueError, match=rf"^{tmp_path}.*{message}") as caught:
        Compressor.load(tmp_path)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("journal", "partial"),
    [
        (lambda noted: "0.5", None),
        (lambda noted: json.dumps([noted]), None),
        (lambda noted: json.dumps({**noted, "rows": "16"}), None),
        (lambda noted: json.dumps({**noted, "rows": 16.5}), None),
        (lambda noted: json.dumps({**noted, "rows": -3}), None),
        (lambda noted: json.dumps({**noted, "rows": 99}), None),
        (lambda noted: "[" * 3000, None),
        (None, lambda data: data.replace(b"'shape': (40, 1)", b"'shape': (40, 1(", 1)),
        (None, lambda data: data.replace(b"'|u1'", b"'|i1'", 1)),
        (None, lambda data: data[:100]),
    ],
)
def test_what_a_killed_run_left_is_not_trusted(tmp_path, compressor, monkeypatch, journal, partial):
    """Damaged, it is no reason to fail, nor to write anything else than without it."""
    whole = np.load(compressor.transform_to(tmp_path / "whole" / "codes.npy", VECTORS, progress=False))
    real, calls = Compressor._coded, []

    def killed(self, rows, start):
        if calls:
            raise KeyboardInterrupt
        calls.append(start)
        return real(self, rows, start)

    monkeypatch.setattr("hf_mic.frozen.compressor.ROWS", 16)
    monkeypatch.setattr(Compressor, "_coded", killed)
    with pytest.raises(KeyboardInterrupt):
        compressor.transform_to(tmp_path / "codes.npy", VECTORS, progress=False)
    monkeypatch.setattr(Compressor, "_coded", real)
    noted, left = tmp_path / ".codes.npy.journal.json", tmp_path / ".codes.npy.partial"
    if journal is not None:
        noted.write_text(journal(json.loads(noted.read_text())))
    if partial is not None:
        left.write_bytes(partial(left.read_bytes()))
    found = np.load(compressor.transform_to(tmp_path / "codes.npy", VECTORS, progress=False))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, whole)
    shutil.rmtree(tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]
