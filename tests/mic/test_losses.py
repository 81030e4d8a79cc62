"""MICLoss: what each term reads and weighs, what it leaves alone, and what it refuses."""

import copy
import io
import json

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SparseEncoder
from sentence_transformers.base.losses import column_merging_disabled
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    GISTEmbedLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    TripletLoss,
)
from torch import nn
from transformers import BertModel
from transformers.modeling_outputs import BaseModelOutput

from hf_mic import MICLoss
from hf_mic.capture import check_recorded, columns_of, encoder_passes
from hf_mic.functional import (
    masked_mean,
    similarity_distillation_loss,
    soft_collapse_loss,
    spectral_isotropy_loss,
)
from hf_mic.layers import default_layers

DIMS = [32, 16, 8]
BELOW = [16, 8]


@pytest.fixture
def make_features(make_sentences):
    """Tokenised columns of different lengths; a fresh copy each time, since models write into them."""

    def build(model, columns=2, rows=6, seed=10, **options):
        texts = [make_sentences(rows, seed + i, longest=4 + 3 * i) for i in range(columns)]
        return [model.preprocess(column, **options) for column in texts]

    return build


def with_dropout(model, p=0.2):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
    for layer in model[0].auto_model.encoder.layer:
        layer.attention.self.dropout_prob = p
    return model.train()


def total(output):
    return torch.stack(list(output.values())).sum() if isinstance(output, dict) else output


def value_and_gradients(loss, features, labels=None, seed=3):
    """The output, and the gradient of its sum for each parameter."""
    torch.manual_seed(seed)
    loss.zero_grad(set_to_none=True)
    output = loss(features, labels)
    total(output).backward()
    gradients = {name: p.grad.clone() for name, p in loss.model.named_parameters() if p.grad is not None}
    assert any(g.abs().sum() > 0 for g in gradients.values())
    return output, gradients


def assert_same_gradients(first, second, equal=torch.equal):
    assert first.keys() == second.keys()
    assert all(equal(first[name], second[name]) for name in first)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)


# ---- gamma 0 is MatryoshkaLoss --------------------------------------------------------------------------------------

INNER = {
    "pairs": (2, lambda model, guide: MultipleNegativesRankingLoss(model)),
    "triplets": (3, lambda model, guide: MultipleNegativesRankingLoss(model)),
    "4-tuples": (4, lambda model, guide: MultipleNegativesRankingLoss(model)),
    "triplet margin": (3, lambda model, guide: TripletLoss(model)),
    "cosent": (2, lambda model, guide: CoSENTLoss(model)),
    "gist": (2, lambda model, guide: GISTEmbedLoss(model, guide)),
    "gist triplets": (3, lambda model, guide: GISTEmbedLoss(model, guide)),
    "cached": (2, lambda model, guide: CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)),
}
LABELS = {"cosent": torch.tensor([0.1, 0.9, 0.4, 0.3, 0.8, 0.2])}


@pytest.fixture
def both(make_model, make_features):
    """The same inner loss in MatryoshkaLoss and in MICLoss, on equal models with dropout, each with its features."""

    def build(kind, **options):
        columns, inner = INNER[kind]
        guide = make_model(normalize=True)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.mul_(0.7)
        plain, ours = with_dropout(make_model()), with_dropout(make_model())
        weights = {"matryoshka_weights": [1.0, 0.5, 0.25]}
        return (
            (MatryoshkaLoss(plain, inner(plain, guide), DIMS, **weights), make_features(plain, columns)),
            (MICLoss(ours, inner(ours, guide), DIMS, **weights, **options), make_features(ours, columns)),
        )

    return build


@pytest.mark.parametrize("kind", INNER)
def test_gamma_zero_is_matryoshka_bit_for_bit(both, kind):
    scope = "pooled" if kind == "cached" else "tokens"
    (plain, plain_features), (ours, features) = both(kind, gamma=0.0, scope=scope)
    expected, expected_gradients = value_and_gradients(plain, plain_features, LABELS.get(kind))
    output, gradients = value_and_gradients(ours, features, LABELS.get(kind))
    assert list(output) == ["matryoshka", "scr", "sir"]
    assert torch.equal(total(output), expected)
    assert output["scr"] == 0
    assert output["sir"] == 0
    assert_same_gradients(gradients, expected_gradients)
    if kind != "cosent":  # that dropout was at work: another seed gives another value
        assert not torch.equal(value_and_gradients(ours, features, LABELS.get(kind), seed=4)[0]["matryoshka"], expected)


@pytest.mark.parametrize("kind", ["pairs", "triplets", "gist triplets", "cosent"])
@pytest.mark.parametrize("scope", ["tokens", "pooled"])
def test_the_regularisers_do_not_touch_the_matryoshka_term(both, kind, scope):
    """With dropout: the very same forward passes, not others like them."""
    options = {"gamma": 0.5, "scope": scope, "distill": "similarity_kl", "distill_weight": 1.0}
    (plain, plain_features), (ours, features) = both(kind, **options)
    expected, expected_gradients = value_and_gradients(plain, plain_features, LABELS.get(kind))
    output, gradients = value_and_gradients(ours, features, LABELS.get(kind))
    assert torch.equal(output["matryoshka"], expected)
    assert list(output) == ["matryoshka", "scr", "sir", "distill"]
    assert all(output[name] != 0 for name in output)
    assert not close(gradients["0.model.embeddings.word_embeddings.weight"],
                     expected_gradients["0.model.embeddings.word_embeddings.weight"])  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in INNER if kind != "cached"])
def test_no_second_forward(both, kind):
    (plain, plain_features), (ours, features) = both(kind, distill="similarity_kl", distill_weight=1.0)
    counts = []
    for loss, given in ((plain, plain_features), (ours, features)):
        rows = []
        hook = loss.model[0].register_forward_hook(lambda m, a, output: rows.append(len(output["attention_mask"])))
        value_and_gradients(loss, given, LABELS.get(kind))
        hook.remove()
        counts.append(rows)
    assert counts[0] == counts[1]
    assert sum(counts[0]) == 6 * INNER[kind][0]


def test_sampled_dims_are_matryoshkas(both, monkeypatch):
    import random

    (plain, plain_features), (ours, features) = both("pairs", gamma=0.0, n_dims_per_step=1)
    plain.n_dims_per_step = 1
    values = []
    for loss, given in ((plain, plain_features), (ours, features)):
        random.seed(5)
        values.append([total(value_and_gradients(loss, given)[0]).item() for _ in range(4)])
    assert values[0] == values[1]
    assert len(set(values[0])) > 1


# ---- the terms equal the formulas applied by hand -------------------------------------------------------------------


def states_by_hand(model, features):
    """Hidden states of each column through the bare transformers model."""
    columns = []
    for column in features:
        tokens = {key: column[key] for key in ("input_ids", "attention_mask")}
        output = model[0].auto_model(**tokens, output_hidden_states=True)
        columns.append((output.hidden_states, column["attention_mask"]))
    return columns


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (None, {1: BELOW, 2: BELOW, 3: BELOW}),
        ([0, 4], {0: BELOW, 4: BELOW}),
        ({3: [4, 24], 1: [5]}, {3: [4, 24], 1: [5]}),
    ],
)
def test_token_terms_equal_the_functions_on_separate_states(make_model, make_features, columns, layers, chosen):
    model = make_model()
    settings = {"tau": 0.03, "var_weight": 0.4, "t": 1.5, "cv_mode": "eigen"}
    weights = {"gamma": 0.3, "scr_weight": 0.7, "sir_weight": 0.6}
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, layers=layers, **settings, **weights)
    output = loss(make_features(model, columns), None)
    scr, sir = [], []
    for states, mask in states_by_hand(model, make_features(model, columns)):
        for layer, dims in chosen.items():
            for d in dims:  # one prefix length at a time
                scr.append(soft_collapse_loss(states[layer], mask, [d], tau=0.03, var_weight=0.4))
                z = masked_mean(states[layer], mask)
                sir.append(spectral_isotropy_loss(z, [d], t=1.5, cv_mode="eigen"))
    assert len(scr) == columns * sum(map(len, chosen.values()))
    torch.testing.assert_close(output["scr"], 0.3 * 0.7 * torch.cat(scr).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output["sir"], 0.3 * 0.6 * torch.cat(sir).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("columns", [2, 3])
def test_pooled_terms_equal_the_functions_on_embeddings(make_model, make_features, normalize, columns):
    model = make_model(normalize)
    options = {"gamma": 0.2, "tau": "auto", "reg_dims": [12, 5], "distill": "similarity_kl", "distill_weight": 0.9}
    inner = MultipleNegativesRankingLoss(model)
    loss = MICLoss(model, inner, DIMS, scope="pooled", distill_temperature=0.1, **options)
    output = loss(make_features(model, columns), None)
    embeddings = [model(column)["sentence_embedding"] for column in make_features(model, columns)]
    assert torch.allclose(embeddings[0].norm(dim=1), torch.ones(6)) == normalize
    scr = [soft_collapse_loss(z[None], torch.ones(1, len(z)), [12, 5], tau="auto") for z in embeddings]
    sir = [spectral_isotropy_loss(z, [12, 5]) for z in embeddings]
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.1}
    kl = [similarity_distillation_loss(z, [16, 8], **temperatures) for z in embeddings]
    for name, weight, values in (("scr", 0.2, scr), ("sir", 0.2, sir), ("distill", 0.9, kl)):
        torch.testing.assert_close(output[name], weight * torch.cat(values).mean(), rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_the_formula(make_model, make_features):
    model = make_model()
    inner = MultipleNegativesRankingLoss(model)
    options = {"gamma": 0.5, "layers": [2], "distill": "similarity_kl", "distill_weight": 0.5}
    _, gradients = value_and_gradients(MICLoss(model, inner, DIMS, **options), make_features(model))
    model.zero_grad(set_to_none=True)
    value = MatryoshkaLoss(model, inner, DIMS)(make_features(model), None)
    hidden = states_by_hand(model, make_features(model))
    scr = torch.cat([soft_collapse_loss(states[2], mask, BELOW) for states, mask in hidden]).mean()
    sir = torch.cat([spectral_isotropy_loss(masked_mean(states[2], mask), BELOW) for states, mask in hidden]).mean()
    kl = [similarity_distillation_loss(masked_mean(states[4], mask), BELOW) for states, mask in hidden]
    (value + 0.5 * (scr + sir) + 0.5 * torch.cat(kl).mean()).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_gradients(gradients, expected, close)


def test_merged_columns_equal_separate_ones(make_model, make_features):
    model = make_model()
    options = {"gamma": 0.5, "distill": "similarity_kl", "distill_weight": 1.0}
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, **options)
    passes = []
    hook = model[0].register_forward_hook(lambda module, args, output: passes.append(output["attention_mask"].shape))
    merged, gradients = value_and_gradients(loss, make_features(model, 4))
    with column_merging_disabled():
        separate, separate_gradients = value_and_gradients(loss, make_features(model, 4))
    hook.remove()
    assert [rows for rows, _ in passes] == [6, 18, 6, 6, 6, 6]
    for name in merged:
        torch.testing.assert_close(merged[name], separate[name], rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients, separate_gradients, close)


def test_weights_scale_terms_and_zero_leaves_them_out(make_model, make_features):
    model = make_model()

    def terms(**options):
        return MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, **options)(make_features(model), None)

    one = terms(gamma=1.0)
    for options, scr, sir in (
        ({"gamma": 0.25}, 0.25, 0.25),
        ({"gamma": 1.0, "scr_weight": 0.5, "sir_weight": 2.0}, 0.5, 2.0),
        ({"gamma": 1.0, "scr_weight": 0.0}, 0.0, 1.0),
        ({"gamma": 1.0, "sir_weight": 0.0}, 1.0, 0.0),
    ):
        values = terms(**options)
        torch.testing.assert_close(values["scr"], scr * one["scr"])
        torch.testing.assert_close(values["sir"], sir * one["sir"])
        assert torch.equal(values["matryoshka"], one["matryoshka"])
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, gamma=1.0)
    loss.gamma_scale = 0.125
    torch.testing.assert_close(loss(make_features(model), None)["scr"], 0.125 * one["scr"])


def test_distillation_alone(make_model, make_features):
    model = make_model()
    inner = MultipleNegativesRankingLoss(model)
    loss = MICLoss(model, inner, DIMS, gamma=0.0, distill="similarity_kl", distill_weight=2.0)
    output = loss(make_features(model), None)
    embeddings = [model(column)["sentence_embedding"] for column in make_features(model)]
    expected = torch.cat([similarity_distillation_loss(z, BELOW) for z in embeddings]).mean()
    torch.testing.assert_close(output["distill"], 2.0 * expected, rtol=1e-5, atol=1e-6)
    assert output["scr"] == output["sir"] == 0
    assert "all_layer_embeddings" not in make_features(model)[0]


@pytest.mark.parametrize("kind", ["pairs", "triplets", "cosent", "gist", "cached"])
def test_evaluation_without_a_graph_gives_the_same_terms(both, kind):
    scope = "pooled" if kind == "cached" else "tokens"
    _, (loss, features) = both(kind, scope=scope, distill="similarity_kl", distill_weight=1.0)
    loss.model.eval()
    trained = loss(copy.deepcopy(features), LABELS.get(kind))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            terms = loss(copy.deepcopy(features), LABELS.get(kind))
        assert not any(value.requires_grad for value in terms.values())
        for name, value in terms.items():
            torch.testing.assert_close(value, trained[name].detach(), rtol=1e-5, atol=1e-6)
            assert value != 0


def test_one_row_and_one_token_give_a_finite_update(make_model):
    model = make_model().train()
    loss = MICLoss(model, CoSENTLoss(model), DIMS, gamma=1.0, distill="similarity_kl", distill_weight=1.0)
    for texts in (["heart"], ["heart", "rate", "heart"], ["heart"] * 4, ["heart rate is normal"] * 4):
        loss.zero_grad(set_to_none=True)
        output = loss([model.preprocess(texts), model.preprocess(texts)], torch.linspace(0, 1, len(texts)))
        total(output).backward()
        assert all(torch.isfinite(value) for value in output.values())
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ---- losses with gradient caching -----------------------------------------------------------------------------------


def tight(a, b):
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["ranking", "ranking triplets", "gist"])
@pytest.mark.parametrize("distill", [None, "similarity_kl"])
def test_cached_losses_equal_the_uncached_ones(make_model, make_features, kind, distill):
    guide = make_model(normalize=True).double()
    columns = 3 if "triplets" in kind else 2
    results = []
    for cached in (False, True):
        model = make_model().double().train()
        if kind == "gist":
            inner = CachedGISTEmbedLoss(model, guide, mini_batch_size=4) if cached else GISTEmbedLoss(model, guide)
        else:
            inner = MultipleNegativesRankingLoss(model)
            inner = CachedMultipleNegativesRankingLoss(model, mini_batch_size=4) if cached else inner
        weight = 0.7 if distill else 0.0
        loss = MICLoss(model, inner, DIMS, gamma=0.4, tau=0.05, scope="pooled", distill=distill, distill_weight=weight)
        trained = value_and_gradients(loss, make_features(model, columns))
        with torch.no_grad():
            evaluated = loss(make_features(model, columns), None)
        for name, value in trained[0].items():
            assert tight(value.detach(), evaluated[name]), name
        results.append(trained)
    (expected, expected_gradients), (output, gradients) = results
    assert list(output) == list(expected)
    for name in expected:
        assert tight(output[name], expected[name]), name
        assert expected[name] != 0
    assert_same_gradients(gradients, expected_gradients, close)  # older hosts replay the cache in single precision


def test_cached_gradients_follow_the_outer_scale(make_model, make_features):
    """Gradient accumulation and loss scaling multiply the loss before its backward."""
    model = make_model().double().train()
    loss = MICLoss(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=4), DIMS, scope="pooled", gamma=1.0)
    _, whole = value_and_gradients(loss, make_features(model))
    loss.zero_grad(set_to_none=True)
    (total(loss(make_features(model), None)) / 4).backward()
    quarter = {name: 4 * p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_gradients(whole, quarter, tight)


def test_cached_terms_reach_the_parameters(make_model, make_features):
    model = make_model().double().train()
    gradients = []
    for gamma in (0.0, 1.0):
        inner = CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
        loss = MICLoss(model, inner, DIMS, scope="pooled", gamma=gamma)
        gradients.append(value_and_gradients(loss, make_features(model))[1])
    name = "0.model.encoder.layer.0.output.dense.weight"
    assert (gradients[1][name] - gradients[0][name]).norm() > 0.01 * gradients[0][name].norm()


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def traces(loss):
    """Everything that could stay patched."""
    config = loss.model[0].auto_model.config
    hooks = [hook for module in loss.modules() for hook in module._forward_hooks.values()]
    hooks = [hook for hook in hooks if not hook.__module__.startswith("transformers.")]  # its own, kept and inert
    patched = [
        name
        for name, module in loss.named_modules()
        if getattr(module.forward, "__func__", module.forward) is not type(module).forward
    ]
    return hooks, patched, config.output_hidden_states, vars(loss.loss.loss).get("calculate_loss")


class Failing(nn.Module):
    """An inner loss that breaks before or after its forward passes."""

    def __init__(self, model, after):
        super().__init__()
        self.model, self.after = model, after

    def forward(self, features, labels):
        if not self.after:
            raise RuntimeError("broken early")
        for column in features:
            self.model(column)
        raise RuntimeError("broken late")


@pytest.mark.parametrize("hidden_states", [False, True])
def test_nothing_stays_patched(make_model, make_features, hidden_states):
    model = make_model()
    model[0].auto_model.config.output_hidden_states = hidden_states
    losses = [
        MICLoss(model, MultipleNegativesRankingLoss(model), DIMS),
        MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, scope="pooled"),
        MICLoss(model, CachedMultipleNegativesRankingLoss(model), DIMS, scope="pooled"),
        MICLoss(model, Failing(model, after=False), DIMS),
        MICLoss(model, Failing(model, after=True), DIMS),
    ]
    clean = [traces(loss) for loss in losses]
    assert all(state[:3] == ([], [], hidden_states) for state in clean)
    for loss in losses:
        if isinstance(loss.loss.loss, Failing):
            with pytest.raises(RuntimeError, match="broken"):
                loss(make_features(model), None)
        else:
            loss(make_features(model), None)
            with pytest.raises((ValueError, RuntimeError)):
                loss([], None)
    assert [traces(loss) for loss in losses] == clean


class SilentBert(BertModel):
    """An encoder that keeps its hidden states to itself, whatever its configuration asks for."""

    def forward(self, *args, **kwargs):
        return BaseModelOutput(last_hidden_state=super().forward(*args, **kwargs).last_hidden_state)


def test_an_encoder_without_hidden_states_is_refused(make_model, make_features):
    model = make_model()
    model[0].auto_model.__class__ = SilentBert
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS)
    clean = traces(loss)
    with pytest.raises(ValueError, match=r'SilentBert returns none\. Use scope="pooled"'):
        loss(make_features(model), None)
    assert traces(loss) == clean
    pooled = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, scope="pooled")
    assert pooled(make_features(model), None)["sir"].isfinite()


def test_an_error_inside_a_cached_loss_restores_it(make_model, make_features, monkeypatch):
    model = make_model()
    loss = MICLoss(model, CachedMultipleNegativesRankingLoss(model), DIMS, scope="pooled")
    clean = traces(loss)
    with monkeypatch.context() as patch:
        patch.setattr(loss, "_pooled_terms", lambda columns: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loss(make_features(model), None)
    assert traces(loss) == clean
    assert total(loss(make_features(model), None)).isfinite()


def test_an_error_in_the_regularisers_restores_everything(make_model, make_features, monkeypatch):
    model = make_model()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS)
    clean = traces(loss)
    with monkeypatch.context() as patch:
        patch.setattr("hf_mic.losses.token_statistics", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loss(make_features(model), None)
    assert traces(loss) == clean


# ---- the loss as an object ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_copies_and_pickles_work_on(make_model, make_features, cached):
    model = make_model()
    inner = CachedMultipleNegativesRankingLoss(model) if cached else MultipleNegativesRankingLoss(model)
    loss = MICLoss(model, inner, DIMS, scope="pooled" if cached else "tokens", gamma=0.5)
    buffer = io.BytesIO()
    torch.save(loss, buffer)  # before the first pass: transformers' hooks for hidden states cannot be pickled
    buffer.seek(0)
    expected = loss(make_features(model), None)
    for other in (copy.deepcopy(loss), torch.load(buffer, weights_only=False)):
        assert other.model is other.loss.model is other.loss.loss.model
        assert other.model is not model
        output, gradients = value_and_gradients(other, make_features(model))
        assert all(torch.equal(output[name], expected[name]) for name in expected)
        assert gradients
    assert all(p.grad is None for p in model.parameters())


def test_the_model_is_a_submodule_and_parameters_are_the_models(make_model):
    model = make_model()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS)
    assert dict(loss.named_children()).keys() == {"model", "loss"}
    assert {id(p) for p in loss.parameters()} == {id(p) for p in model.parameters()}
    assert isinstance(loss.loss, MatryoshkaLoss)


def test_configuration_is_complete_and_json(make_model):
    model = make_model()
    options = {"gamma": 0.3, "tau": "auto", "layers": {2: [8], 3: [16, 4]}, "cv_mode": "eigen", "var_weight": 0.5}
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, matryoshka_weights=[1, 2, 3], **options)
    config = json.loads(json.dumps(loss.get_config_dict()))
    assert config["reg_dims"] == {"2": [8], "3": [16, 4]}
    assert config["matryoshka_dims"] == [32, 16, 8]
    assert config["matryoshka_weights"] == [1, 2, 3]
    assert config["loss"] == "MultipleNegativesRankingLoss"
    assert {name: config[name] for name in ("gamma", "tau", "cv_mode", "var_weight")} == {
        name: options[name] for name in ("gamma", "tau", "cv_mode", "var_weight")
    }
    pooled = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, scope="pooled").get_config_dict()
    assert pooled["reg_dims"] == BELOW
    assert pooled["scope"] == "pooled"
    assert "2605.29987" in loss.citation


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -0.1}, "gamma=.*: must be >= 0"),
        ({"gamma": float("nan")}, "gamma=.*: must be >= 0"),
        ({"gamma": float("inf")}, "gamma=.*: must be >= 0 and finite"),
        ({"t": float("inf")}, "t=.*: must be > 0 and finite"),
        ({"tau": -0.1}, "tau=.*: must be >= 0"),
        ({"tau": "none"}, "tau=.*: must be >= 0"),
        ({"var_weight": -1.0}, "var_weight=.*: must be >= 0"),
        ({"scr_weight": -1.0}, "scr_weight=.*: must be >= 0"),
        ({"sir_weight": -1.0}, "sir_weight=.*: must be >= 0"),
        ({"t": 0.0}, "t=.*: must be > 0"),
        ({"distill_temperature": 0.0}, "distill_temperature=.*: must be > 0"),
        ({"cv_mode": "spectral"}, "cv_mode=.*: must be one of .*eigen"),
        ({"scope": "layers"}, "scope=.*: must be one of"),
        ({"distill": "kl", "distill_weight": 1.0}, "distill=.*: must be one of"),
        ({"distill": "similarity_kl"}, "contradict"),
        ({"distill_weight": 0.5}, "contradict"),
        ({"layers": [5]}, "the encoder has 4 layers, allowed are 0 to 4"),
        ({"layers": [-1]}, r"layers \[-1\]"),
        ({"layers": [1.5]}, r"layers \[1.5\]"),
        ({"layers": []}, "layers is empty"),
        ({"layers": {2: []}}, "dims is empty"),
        ({"layers": {2: [8]}, "reg_dims": [8]}, "not both"),
        ({"layers": {2: [32]}}, "allowed are 1 to 31"),
        ({"reg_dims": [32]}, "allowed are 1 to 31"),
        ({"reg_dims": [0, 8]}, r"\[0\] are out of range"),
        ({"reg_dims": [32], "scope": "pooled"}, "allowed are 1 to 31"),
        ({"scope": "pooled", "layers": [2]}, "layers belong to scope='tokens'"),
        ({"matryoshka_dims": [32]}, "reg_dims, or shorter matryoshka_dims"),
        ({"matryoshka_dims": [64, 32, 16]}, "embedding dimension of 32"),
        (
            {"matryoshka_dims": [32], "reg_dims": [8], "distill": "similarity_kl", "distill_weight": 1.0},
            "no Matryoshka dim is below",
        ),
    ],
)
def test_bad_arguments_are_refused_at_construction(make_model, options, message):
    model = make_model()
    arguments = {"matryoshka_dims": DIMS} | options
    with pytest.raises(ValueError, match=message):
        MICLoss(model, MultipleNegativesRankingLoss(model), **arguments)


def test_matryoshka_inside_is_refused(make_model):
    model = make_model()
    with pytest.raises(ValueError, match="pass its inner loss"):
        MICLoss(model, MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), DIMS), DIMS)


@pytest.mark.parametrize("kind", [AdaptiveLayerLoss, lambda model, loss: Matryoshka2dLoss(model, loss, DIMS)])
def test_losses_over_layers_are_refused(make_model, kind):
    model = make_model()
    with pytest.raises(ValueError, match=r"cannot contain .*Loss: pass its inner loss"):
        MICLoss(model, kind(model, MultipleNegativesRankingLoss(model)), DIMS)


def test_warm_up_holds_for_training_only(make_model, make_features):
    """Evaluation losses of different steps are compared, so they take the whole gamma."""
    model = make_model()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, gamma=1.0)
    model.train()
    whole = loss(make_features(model), None)
    loss.gamma_scale = 0.25
    torch.testing.assert_close(loss(make_features(model), None)["scr"], 0.25 * whole["scr"])
    model.eval()
    assert torch.equal(loss(make_features(model), None)["scr"], whole["scr"])


def test_layers_may_be_numpy_integers(make_model):
    model = make_model()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, layers=np.array([1, 3]))
    assert list(loss.layers) == [1, 3]
    assert json.dumps(loss.get_config_dict()["reg_dims"]) == '{"1": [16, 8], "3": [16, 8]}'


def test_cached_losses_in_token_scope_are_refused(make_model):
    model, guide = make_model(), make_model()
    for inner in (CachedMultipleNegativesRankingLoss(model), CachedGISTEmbedLoss(model, guide)):
        calculate = inner.calculate_loss
        with pytest.raises(ValueError, match='Use scope="pooled"'):
            MICLoss(model, inner, DIMS)
        assert inner.calculate_loss == calculate


def test_a_static_model_needs_the_pooled_scope(static_model, make_features):
    inner = MultipleNegativesRankingLoss(static_model)
    with pytest.raises(ValueError, match=r'StaticEmbedding.*scope="pooled"'):
        MICLoss(static_model, inner, DIMS)
    for columns in (2, 3):
        loss = MICLoss(static_model, inner, DIMS, scope="pooled", distill="similarity_kl", distill_weight=1.0)
        output, _ = value_and_gradients(loss, make_features(static_model, columns))
        embeddings = [static_model(f)["sentence_embedding"] for f in make_features(static_model, columns)]
        expected = torch.cat([spectral_isotropy_loss(z, BELOW) for z in embeddings]).mean()
        torch.testing.assert_close(output["sir"], 0.1 * expected, rtol=1e-5, atol=1e-6)


def test_encoders_without_a_middle_layer_say_what_to_do():
    assert default_layers(12) == [4, 6, 8, 10]
    assert default_layers(6) == [2, 3, 4, 5]
    assert default_layers(4) == [1, 2, 3]
    assert default_layers(2) == [1]
    with pytest.raises(ValueError, match="no middle layer"):
        default_layers(1)


# ---- capture --------------------------------------------------------------------------------------------------------


def test_passes_are_recorded_in_order(make_model, make_features):
    model = make_model()
    features = make_features(model, 2)
    with encoder_passes(model, [1, 4]) as passes:
        outputs = [model(column) for column in features]
    assert [len(kept) for kept in (passes.embeddings, passes.attention_masks)] == [2, 2]
    for i, output in enumerate(outputs):
        assert passes.embeddings[i] is output["sentence_embedding"]
        assert torch.equal(passes.hidden_states[4][i], output["token_embeddings"])
        assert passes.hidden_states[1][i].shape == output["token_embeddings"].shape
    model(make_features(model, 1)[0])
    assert len(passes.embeddings) == 2


def test_merged_passes_are_split_by_the_batch_size():
    features = [{"attention_mask": torch.ones(2, 3)}] * 3
    merged = torch.arange(4).view(4, 1)
    columns = columns_of([torch.full((2, 1), 9), merged], 3, features)
    assert [column.flatten().tolist() for column in columns] == [[9, 9], [0, 1], [2, 3]]
    static = [{"input_ids": torch.arange(7), "offsets": torch.tensor([0, 3])}] * 2
    assert [c.tolist() for c in columns_of([torch.arange(4)], 2, static)] == [[0, 1], [2, 3]]


# ---- what a pass is -------------------------------------------------------------------------------------------------


def test_a_look_up_without_a_graph_is_no_column(make_model, make_features):
    """A loss that embeds each column a second time without gradient changes neither terms nor their gradients."""

    class GuidesItself(MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            with torch.no_grad():
                for column in features:
                    self.model(dict(column))
            return super().forward(features, labels)

    found = []
    for kind in (MultipleNegativesRankingLoss, GuidesItself):
        model = make_model().train()
        loss = MICLoss(model, kind(model), DIMS, gamma=1.0, distill="similarity_kl", distill_weight=1.0)
        output = loss(make_features(model), None)
        (output["scr"] + output["sir"] + output["distill"]).backward()
        found.append((output, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain, gradients), (guided, again) = found
    assert all(torch.equal(plain[name], guided[name]) for name in plain)
    assert gradients
    assert all(torch.equal(gradients[name], again[name]) for name in gradients)


def test_an_inner_loss_of_another_model_is_refused(make_model):
    model, other = make_model(), make_model()
    with pytest.raises(ValueError, match="MultipleNegativesRankingLoss trains another model object"):
        MICLoss(model, MultipleNegativesRankingLoss(other), DIMS)
    MICLoss(model, GISTEmbedLoss(model, guide=other), DIMS)  # a guide is another model by right


def test_a_loss_that_embeds_nothing_is_an_error(make_model, make_features):
    class Nothing(nn.Module):
        def forward(self, features, labels):
            return torch.zeros((), requires_grad=True)

    model = make_model().train()
    with pytest.raises(RuntimeError, match="ran no pass of the model"):
        MICLoss(model, Nothing(), DIMS)(make_features(model), None)


def test_a_batch_that_is_cut_up_within_the_process_is_refused(make_model, make_features):
    model = make_model().train()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS)
    features = make_features(model)
    with encoder_passes(model) as passes:
        model(dict(features[0]))
    several = nn.DataParallel(model)
    check_recorded(several, passes)
    several.device_ids = [0, 1]
    with pytest.raises(RuntimeError, match=r"cuts each column up among 2 GPUs.*accelerate launch"):
        check_recorded(several, passes)
    assert loss.model is model


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder", "str"])
def test_encoders_without_prefixes_are_refused(make_model, kind):
    model = make_model()
    other = {"CrossEncoder": CrossEncoder, "SparseEncoder": SparseEncoder}.get(kind)
    given = "all-MiniLM-L6-v2" if other is None else other.__new__(other)
    if other is not None:
        nn.Module.__init__(given)
    with pytest.raises(TypeError, match=f"MICLoss takes a SentenceTransformer, which .* not a {kind}"):
        MICLoss(given, MultipleNegativesRankingLoss(model), DIMS)
