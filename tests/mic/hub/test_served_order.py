"""What servers read of an encoder: promised prefixes, and modules in an order that they keep."""

import json
from itertools import product

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import nn

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.frozen import PrefixMap, append_to_model
from hf_mic.hub.served_order import without_idle_normalize
from hf_mic.layers import mark_matryoshka, marked_dims

WIDTH = 6


def dense(kind: str, seed: int = 0) -> Dense:
    """A map of one kind; all but ``narrow`` are square."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, WIDTH, generator=generator)
    activation: nn.Module = {"relu": nn.ReLU(), "tanh": nn.Tanh()}.get(kind, nn.Identity())
    if kind == "orthogonal":
        weight = torch.linalg.qr(weight).Q
    if kind == "narrow":
        weight = torch.linalg.qr(weight).Q[:3]
    bias = torch.randn(WIDTH, generator=generator) if kind == "bias" else None
    module = Dense(WIDTH, len(weight), bias=bias is not None, activation_function=activation, init_weight=weight,
                   init_bias=bias, use_residual=kind == "residual")  # fmt: skip
    return module.requires_grad_(False)


def run(modules, rows):
    features = {"sentence_embedding": rows}
    for module in modules:
        features = module(features)
    return features["sentence_embedding"]


ROWS = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(9)) * torch.logspace(-3, 3, 7)[:, None]
KINDS = ("orthogonal", "free", "relu", "residual", "bias", "tanh")


@pytest.mark.parametrize(
    "maps", [[kind] for kind in (*KINDS, "narrow")] + [list(pair) for pair in product(KINDS, KINDS)]
)
@pytest.mark.parametrize("ends", [True, False])
def test_normalize_is_dropped_exactly_where_nothing_changes(maps, ends):
    """Whatever is left computes the same; what was dropped could be, and what was kept could not."""
    modules = [Normalize(), *(dense(kind, seed) for seed, kind in enumerate(maps)), *([Normalize()] if ends else [])]
    kept = without_idle_normalize(modules)
    torch.testing.assert_close(run(kept, ROWS), run(modules, ROWS), atol=1e-5, rtol=1e-4)
    inner = isinstance(kept[0], Normalize)
    last = [module for module in modules if isinstance(module, Dense)] + [Normalize()]
    same = torch.allclose(run(last, ROWS), run(modules, ROWS), atol=1e-5)
    assert inner != same
    assert inner == (bool({"bias", "tanh"} & set(maps)) or (not ends and set(maps) != {"orthogonal"})), (
        "homogeneous maps need no unit vectors before a Normalize; alone only those that keep lengths"
    )


def test_only_the_sentence_embedding_is_looked_at():
    other = Normalize(module_input_name="token_embeddings")
    modules = [other, dense("free"), Normalize()]
    assert without_idle_normalize(modules) == modules
    twice = [Normalize(), Normalize()]
    assert without_idle_normalize(twice) == twice[1:]


def test_marks_are_saved_and_loaded_and_leave_the_embeddings_alone(make_model, make_sentences, tmp_path):
    model, texts = make_model(), make_sentences(4, 0)
    before = model.encode(texts)
    assert marked_dims(model) == []
    mark_matryoshka(model, [16, 8, 8])
    model.save_pretrained(str(tmp_path), create_model_card=False)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["is_matryoshka"], config["matryoshka_dimensions"]) == (True, [8, 16, 32])
    loaded = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=8)
    assert marked_dims(loaded) == [8, 16, 32]
    mark_matryoshka(loaded, [4])
    assert marked_dims(loaded) == [4, 32], "the width, not that of truncation"
    assert (model.encode(texts) == before).all()
    for wrong in ([64], [0]):
        with pytest.raises(ValueError, match=r"dims=\d+: must lie in"):
            mark_matryoshka(model, wrong)


def test_a_model_without_a_config_stays_as_it_is(static_model):
    mark_matryoshka(static_model, [8])
    assert marked_dims(static_model) == []


def test_a_map_marks_its_own_model_only(make_model, make_sentences):
    model = make_model()
    mapped = append_to_model(model, PrefixMap("orthogonal", torch.eye(32), config={"dims": [4, 8]}))
    assert marked_dims(mapped) == [4, 8, 32]
    assert marked_dims(model) == []
    weight = next(model[0].model.parameters())
    assert next(mapped[0].model.parameters()) is weight, "weights are shared"
    assert marked_dims(append_to_model(model, PrefixMap("orthogonal", torch.eye(32)))) == []


@pytest.mark.parametrize(("method", "marked"), [("mic", [8, 32]), ("ese", [8, 32]), ("simcse", [])])
def test_trained_prefixes_are_marked(make_model, make_sentences, tmp_path, method, marked):
    args = MICTrainingArguments(str(tmp_path), max_steps=1, per_device_train_batch_size=4, matryoshka_dims=[32, 8],
                                report_to="none", use_cpu=True, save_strategy="no")  # fmt: skip
    data = Dataset.from_dict({"anchor": make_sentences(4, 1), "positive": make_sentences(4, 2)})
    trainer = MICTrainer(model=make_model(), args=args, train_dataset=data, method=method)
    trainer.save_model()
    assert json.loads((tmp_path / "config.json").read_text()).get("matryoshka_dimensions", []) == marked
    assert marked_dims(SentenceTransformer(str(tmp_path), device="cpu")) == marked


def test_a_loss_that_trains_no_prefixes_promises_none(make_model, make_sentences, tmp_path):
    model = make_model()
    args = MICTrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    data = Dataset.from_dict({"anchor": ["a"], "positive": ["b"]})
    MICTrainer(model=model, args=args, train_dataset=data, loss=MultipleNegativesRankingLoss(model)).save_model()
    assert "is_matryoshka" not in json.loads((tmp_path / "config.json").read_text())
