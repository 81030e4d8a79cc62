"""Checkpoints whose index or files are damaged."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_evl_ecg.models.weights import checkpoint_shards, iterate_tensors


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": {"w": 3}}',
        '{"weight_map": []}',
        '{"weight": {}}',
        "[]",
        "{",
        "[" * 3000,
        '{"weight_map": {"w": "../model-1.safetensors"}}',
        '{"weight_map": {"w": "a\\u0000"}}',
        '{"weight_map": {"w": "' + "x" * 5000 + '"}}',
    ],
)
def test_a_damaged_index_is_one_error_with_its_name(tmp_path, index):
    save_file({"w": torch.ones(2)}, tmp_path / "model-1.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    assert [name for name, _ in iterate_tensors(tmp_path)] == ["w"]
    path.write_text(index)
    with pytest.raises(ValueError, match=rf"^{path}") as caught:
        checkpoint_shards(tmp_path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_say_what_to_do(tmp_path, name):
    save_file({"w": torch.ones(2)}, tmp_path / name) if name.endswith("tensors") else torch.save(
        {"w": torch.ones(2)}, tmp_path / name
    )
    assert [name for name, _ in iterate_tensors(tmp_path)] == ["w"]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"^{tmp_path / name}: cannot be read .*download the checkpoint again$"):
        list(iterate_tensors(tmp_path))
