"""Old module names: what servers read, equal embeddings in sentence-transformers of today, refusals before anything is written."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from torch import nn

from hf_mic.frozen import PrefixMap, add_dense_head, append_to_model
from hf_mic.hub.legacy_modules import check_legacy, has_legacy_modules, write_legacy_modules
from hf_mic.hub.publish import reload_embeddings

SHORT = {"Transformer", "Pooling", "Dense", "Normalize"}


def as_server(folder) -> list[str]:
    """Read modules.json as text-embeddings-inference does: any other name makes it leave all maps out."""
    types = [entry["type"] for entry in json.loads((folder / "modules.json").read_text())]
    assert {name.removeprefix("sentence_transformers.models.") for name in types} <= SHORT
    return [name.rpartition(".")[2] for name in types]


def rotation(seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(seed))).Q


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_the_folder_loads_to_equal_embeddings(make_model, make_sentences, tmp_path, mode):
    model, texts = make_model(), make_sentences(6, 0)
    model = SentenceTransformer(modules=[model[0], Pooling(32, pooling_mode=mode), Normalize()], device="cpu")
    model.max_seq_length = 5
    mapped = append_to_model(model, PrefixMap("linear", rotation() * 3 + 0.1, config={"dims": [8]}))
    expected, folder = mapped.encode(texts), tmp_path / "encoder"
    mapped.save_pretrained(str(folder), create_model_card=False)
    assert not has_legacy_modules(folder)
    write_legacy_modules(mapped, folder)
    assert has_legacy_modules(folder)
    assert as_server(folder) == ["Transformer", "Pooling", "Dense", "Normalize"]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    flags = {name for name, value in pooling.items() if value is True}
    assert flags == {
        f"pooling_mode_{mode}" + ("" if mode == "lasttoken" else "_token" + "s" * (mode == "mean")),
        "include_prompt",
    }
    assert json.loads((folder / "sentence_bert_config.json").read_text()) == {
        "max_seq_length": 5,
        "do_lower_case": False,
    }
    loaded = SentenceTransformer(str(folder), device="cpu")
    assert loaded.max_seq_length == 5
    np.testing.assert_array_equal(loaded.encode(texts), expected)
    np.testing.assert_array_equal(
        SentenceTransformer(str(folder), device="cpu", truncate_dim=8).encode(texts), expected[:, :8]
    )
    if mode == "mean":
        np.testing.assert_allclose(reload_embeddings(folder, texts), expected, atol=1e-6)


@pytest.mark.parametrize("ends", [True, False])
def test_an_inner_normalize_is_dropped_or_moved_in_the_folder(make_model, make_sentences, tmp_path, ends):
    """As add_dense_head would leave it on a model that was saved before; the weights of the map stay where they are."""
    model, texts = make_model(normalize=True), make_sentences(6, 0)
    model.append(Dense(32, 32, bias=False, activation_function=None, init_weight=rotation()))
    if ends:
        model.append(Normalize())
    expected = model.encode(texts)
    model.save_pretrained(str(tmp_path), create_model_card=False)
    write_legacy_modules(model, tmp_path)
    assert as_server(tmp_path) == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert (tmp_path / "3_Dense" / "model.safetensors").is_file()
    assert (tmp_path / "2_Normalize").exists() != ends
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(texts), expected, atol=1e-6)


def test_a_head_of_training_is_served(make_model, make_sentences, tmp_path):
    model = make_model()
    add_dense_head(model)
    model.save_pretrained(str(tmp_path), create_model_card=False)
    write_legacy_modules(model, tmp_path)
    assert as_server(tmp_path) == ["Transformer", "Pooling", "Dense"]


def broken(kind: str, make_model) -> SentenceTransformer:
    model = make_model(normalize=True)
    extra = {
        "bias": [Dense(32, 32), Normalize()],
        "relu": [Dense(32, 32, bias=False, activation_function=nn.ReLU()), Normalize()],
        "residual": [Dense(32, 32, bias=False, activation_function=None, use_residual=True), Normalize()],
    }.get(kind, [])
    if kind == "max":
        model[1].pooling_mode = "max"
    if kind == "prompt":
        model[1].include_prompt = False
    if kind == "key":
        model.append(Dense(32, 8, activation_function=None, module_output_name="scores"))
    for module in extra:
        model.append(module)
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bias", r"'Normalize', 'Dense', 'Normalize'\]; servers apply .* .kind orthogonal or linear"),
        ("relu", "a Dense has the activation ReLU"),
        ("residual", "a Dense has use_residual=True"),
        ("max", "the Pooling has pooling_mode='max'"),
        ("prompt", "the Pooling has include_prompt=False"),
        ("key", "servers apply Transformer, Pooling"),
    ],
)
def test_what_servers_would_get_wrong_is_refused_and_nothing_is_written(make_model, tmp_path, kind, message):
    model = broken(kind, make_model)
    model.save_pretrained(str(tmp_path), create_model_card=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        write_legacy_modules(model, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_encoder_without_a_transformer_is_refused(static_model):
    with pytest.raises(ValueError, match=r"the encoder is \['StaticEmbedding'\]"):
        check_legacy(static_model)
