"""The baselines are what their papers say, compared with slow compositions by hand."""

import math
import random

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch.nn import functional as F

from hf_mic import MICLoss, MICTrainingArguments
from hf_mic.baselines import METHODS, MatryoshkaGORLoss, ese_loss, method_loss

DIMS = [32, 16, 8]


def arguments(**options) -> MICTrainingArguments:
    return MICTrainingArguments("out", report_to="none", use_cpu=True, **options)


def batch(model, make_sentences):
    return [model.preprocess(make_sentences(6, seed)) for seed in (0, 1)]


def info_nce(a, b, scale=20.0):
    scores = scale * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    return F.cross_entropy(scores, torch.arange(len(a)))


def copies(features):
    return [dict(column) for column in features]


def test_each_method_builds_its_loss(make_model):
    kinds = {
        "mic": MICLoss,
        "mrl": MatryoshkaLoss,
        "simcse": MultipleNegativesRankingLoss,
        "ese": AdaptiveLayerLoss,
        "matryoshka2d": Matryoshka2dLoss,
        "gor": MatryoshkaGORLoss,
    }
    assert set(kinds) == set(METHODS)
    for method, kind in kinds.items():
        assert type(method_loss(method, make_model(), arguments(), scored=False)) is kind
    assert type(method_loss("simcse", make_model(), arguments(), scored=True)) is CoSENTLoss
    with pytest.raises(ValueError, match="method='espresso': must be one of"):
        method_loss("espresso", make_model(), arguments(), scored=False)


def test_arguments_reach_the_baselines(make_model):
    args = arguments(matryoshka_dims=[32, 8], matryoshka_weights=[1.0, 0.5], n_dims_per_step=1, scale=5.0)
    for method in ("mrl", "gor", "matryoshka2d"):
        loss = method_loss(method, make_model(), args, scored=False)
        loss = loss if method == "mrl" else loss.loss
        assert (list(loss.matryoshka_dims), list(loss.matryoshka_weights)) == ([32, 8], [1.0, 0.5])
        assert (loss.n_dims_per_step, loss.loss.scale) == (1, 5.0)
    ese = method_loss("ese", make_model(), args, scored=False).loss
    assert (list(ese.matryoshka_dims), ese.n_dims_per_step, ese.loss.scale) == ([32, 8], 1, 5.0)


def test_ese_equals_the_formula(make_model, make_sentences):
    model = make_model()
    features = batch(model, make_sentences)
    layers = 4
    with torch.no_grad():
        states = [model[0].auto_model(**f, output_hidden_states=True).hidden_states for f in copies(features)]
        masks = [f["attention_mask"].unsqueeze(-1).float() for f in features]

        def embedding(column, layer):
            return (states[column][layer] * masks[column]).sum(1) / masks[column].sum(1)

        def all_dims(layer):
            a, b = embedding(0, layer), embedding(1, layer)
            return sum(info_nce(a[:, :d], b[:, :d]) / (1 + math.log(i + 1)) for i, d in enumerate(DIMS))

        loss = ese_loss(model, MultipleNegativesRankingLoss(model), [8, 32, 16])
        seen = set()
        for seed in range(12):
            random.seed(seed)
            drawn = random.sample(range(layers), 1)[0]
            random.seed(seed)
            value = loss(copies(features), None)
            expected = all_dims(layers) + all_dims(drawn) / (1 + math.log(layers - drawn))
            assert value.item() == pytest.approx(expected.item(), rel=1e-5)
            seen.add(drawn)
    assert seen == {0, 1, 2, 3}


def test_gor_equals_the_formula_and_trains(make_model, make_sentences):
    model = make_model()
    features = batch(model, make_sentences)
    terms = MatryoshkaGORLoss(model, MultipleNegativesRankingLoss(model), DIMS, gor_weight=0.5)(copies(features), None)
    columns = [model(f)["sentence_embedding"] for f in copies(features)]
    off = ~torch.eye(6, dtype=torch.bool)
    mean, second = [], []
    for d in DIMS:
        for column in columns:
            z = F.normalize(column[:, :d], dim=1)
            values = (z @ z.T)[off]
            mean.append(values.mean() ** 2)
            second.append(F.relu((values**2).mean() - 1 / d))
    assert terms["gor_mean"].item() == pytest.approx(0.5 * torch.stack(mean).mean().item(), rel=1e-5)
    assert terms["gor_second_moment"].item() == pytest.approx(0.5 * torch.stack(second).mean().item(), rel=1e-5)
    plain = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), DIMS)(copies(features), None)
    assert torch.equal(terms["matryoshka"], plain)
    terms["gor_mean"].backward()
    assert model[0].auto_model.embeddings.word_embeddings.weight.grad.abs().max() > 1e-6


def test_gor_describes_itself(make_model):
    model = make_model()
    loss = MatryoshkaGORLoss(model, MultipleNegativesRankingLoss(model), [16, 8], [1.0, 0.5], gor_weight=0.5)
    assert loss.get_config_dict() == {
        "loss": "MultipleNegativesRankingLoss",
        "matryoshka_dims": [16, 8],
        "matryoshka_weights": [1.0, 0.5],
        "n_dims_per_step": -1,
        "gor_weight": 0.5,
    }


def test_gor_refuses_gradient_caching(make_model):
    model = make_model()
    with pytest.raises(ValueError, match="graph"):
        MatryoshkaGORLoss(model, CachedMultipleNegativesRankingLoss(model), DIMS)


def test_ese_needs_layers(static_model):
    with pytest.raises(ValueError, match="StaticEmbedding"):
        method_loss("ese", static_model, arguments(), scored=False)


@pytest.mark.parametrize("method", ["ese", "matryoshka2d"])
def test_methods_over_layers_refuse_gradient_caching(make_model, method):
    with pytest.raises(ValueError, match=f"{method} runs the loss on several layers"):
        method_loss(method, make_model(), arguments(mini_batch_size=4), scored=False)
