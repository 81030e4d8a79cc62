"""Files of quantisers and codes that are damaged, cut short or of something else."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_mic.codes import ScalarQuantizer
from hf_mic.codes.storage import load_quantizer, open_codes, save_quantizer


@pytest.fixture
def saved(tmp_path):
    """A quantiser's file, and a function that changes what its header says."""
    path = tmp_path / "quantizer.safetensors"
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    save_quantizer(ScalarQuantizer.fit(vectors, 2, rotation="orthogonal"), path)

    def change(text):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        said = json.loads(header["__metadata__"]["scalar_quantizer"])
        changed = text(said)
        header["__metadata__"]["scalar_quantizer"] = changed if isinstance(changed, str) else json.dumps(changed)
        made = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + size :])

    return path, change


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda said: "", "'scalar_quantizer' in its header, cannot be read as json"),
        (lambda said: '{"a":' * 3000, "cannot be read as json: maximum recursion depth"),
        (lambda said: "[1]", "is no json object"),
        (lambda said: {}, "has format version None, this release reads 1"),
        (lambda said: {**said, "format_version": [1]}, r"has format version \[1\]"),
        (lambda said: {**said, "format_version": "x" * 5000}, "has format version 'x{39},"),
        (lambda said: {**said, "bits": {}}, "its header says bits={}"),
        (lambda said: {**said, "bits": 3}, "its header says bits=3"),
        (lambda said: {**said, "dims": True}, "its header says dims=True"),
        (lambda said: {**said, "rotation": ["hadamard"]}, r"its header says rotation=\['hadamard'\]"),
        (lambda said: {name: said[name] for name in said if name != "dims"}, "its header says dims=None"),
        (lambda said: {**said, "dims": 4}, "must hold the tensors"),
    ],
)
def test_headers_are_checked(saved, text, message):
    path, change = saved
    assert load_quantizer(path).dims == 8
    change(text)
    with pytest.raises(ValueError, match=rf"^{path}.*{message}") as caught:
        load_quantizer(path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000


def test_numbers_are_finite_and_float32(tmp_path):
    path = tmp_path / "q.safetensors"
    head = {"format_version": 1, "dims": 2, "bits": 1, "rotation": None, "source": ""}
    for means in (
        torch.tensor([1.0, torch.nan]),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.int64),
    ):
        tensors = {"means": means, "spreads": torch.ones(2), "levels": torch.ones(2)}
        save_file(tensors, path, metadata={"scalar_quantizer": json.dumps(head)})
        with pytest.raises(ValueError, match=rf"^{path}: 'means' must be finite numbers of float32"):
            load_quantizer(path)


def test_a_header_of_any_length_is_not_quoted_whole(tmp_path):
    path = tmp_path / "q.safetensors"
    text = json.dumps("x" * 5000).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as a safetensors file: .*…$") as caught:
        load_quantizer(path)
    assert len(str(caught.value)) < 500


def test_a_header_of_npy_that_is_no_python_is_one_error(tmp_path):
    """numpy parses it as Python, and lets tokenize.TokenError through, which is no ValueError."""
    path = tmp_path / "codes.npy"
    np.save(path, np.zeros((4, 2), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"'shape': (4, 2)", b"'shape': (4, 2(", 1))
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as a \.npy file"):
        open_codes(path)
    with pytest.raises(FileNotFoundError):
        open_codes(tmp_path / "absent.npy")
