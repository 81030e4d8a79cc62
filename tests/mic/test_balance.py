"""How strongly each term pulls, and the gamma that follows from it."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

import hf_mic.balance
from hf_mic import MICLoss
from hf_mic.balance import GammaMeasure, gradient_norm, gradient_shares

DIMS = [32, 16, 8]


def test_the_norm_is_that_of_all_tensors_together_and_leaves_no_gradient():
    x, y, other = (torch.randn(3, 4, requires_grad=True) for _ in range(3))
    value = (x * torch.arange(4.0)).sum() + 2 * y.sum()
    expected = math.sqrt(3 * (0 + 1 + 4 + 9) + 12 * 4)
    assert gradient_norm(value, [x, y]) == pytest.approx(expected)
    assert gradient_norm(value, [x, y, other]) == pytest.approx(expected)
    assert gradient_norm(value, [other]) == 0
    assert gradient_norm(value.detach(), [x]) == 0
    assert x.grad is None
    value.backward()  # the graph is still there


def test_shares_are_ratios_at_the_tensors_a_term_acts_on():
    deep = torch.ones(2, requires_grad=True)
    states = deep * 3
    main, term = 4 * states.sum(), 0.5 * states.sum()
    assert gradient_shares(main, {"scr": term}, {"scr": [states]}) == {"scr": pytest.approx(0.125)}
    assert gradient_shares(main.detach(), {"scr": term}, {"scr": [states]}) == {"scr": math.inf}


def test_gamma_is_the_geometric_mean_of_the_first_steps(monkeypatch):
    monkeypatch.setattr(hf_mic.balance, "AUTO_STEPS", 3)
    measure = GammaMeasure(0.1)
    measure.add(main=0.0, regularisers=1.0)  # says nothing
    measure.add(main=math.inf, regularisers=1.0)
    for main in (1.0, 10.0, 100.0, 1e9):
        measure.add(main=main, regularisers=1.0)
    assert measure.fixed
    assert measure.value == pytest.approx(1.0)
    other = GammaMeasure(0.1)
    other.fix(0.7)
    other.add(main=1.0, regularisers=1.0)
    assert other.value == 0.7


@pytest.mark.parametrize("scope", ["tokens", "pooled"])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_regularisers_get_the_share_that_was_asked_for(make_model, make_sentences, scope, share):
    """Measured again from outside: the sum of both terms against the main loss, at the recorded states."""
    model = make_model().train()
    options = {"gamma": "auto", "gamma_share": share, "scope": scope, "tau": 0.01}
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, **options)
    found = {}
    loss.balance.watch = lambda main, weighted, acted: found.update(main=main, weighted=weighted, acted=acted)
    features = [dict(model.preprocess(make_sentences(6, seed))) for seed in (1, 2)]
    loss(features, None)
    pull = gradient_norm(found["weighted"]["scr"] + found["weighted"]["sir"], found["acted"]["scr"])
    assert pull == pytest.approx(share * gradient_norm(found["main"], found["acted"]["scr"]), rel=1e-4)
    assert loss.balance.gamma > 0


def test_measuring_changes_neither_terms_nor_gradients(make_model, make_sentences):
    def step(watched):
        model = make_model().train()
        loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, gamma=0.3)
        loss.balance.watched = watched
        output = loss([dict(model.preprocess(make_sentences(6, seed))) for seed in (1, 2)], None)
        sum(output.values()).backward()
        return output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, loss.balance.shares

    (plain, gradients, nothing), (seen, again, shares) = step(False), step(True)
    assert nothing == {}
    assert set(shares) == {"scr", "sir"}
    assert all(share > 0 for share in shares.values())
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    assert gradients
    assert all(torch.equal(gradients[name], again[name]) for name in gradients)


def test_evaluation_before_training_measures_nothing(make_model, make_sentences):
    model = make_model().eval()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, gamma="auto")
    output = loss([dict(model.preprocess(make_sentences(6, seed))) for seed in (1, 2)], None)
    assert (float(output["scr"]), float(output["sir"])) == (0, 0)
    assert loss.balance.gamma == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": "much"}, "gamma='much': must be >= 0 and finite, or 'auto'"),
        ({"gamma": "auto", "gamma_share": 0.0}, "gamma_share=0.0: must be > 0"),
    ],
)
def test_other_words_and_empty_shares_are_refused(make_model, options, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        MICLoss(model, MultipleNegativesRankingLoss(model), DIMS, **options)


def test_a_loss_that_caches_gradients_has_no_measure(make_model):
    model = make_model()
    with pytest.raises(ValueError, match="gamma='auto' with CachedMultipleNegativesRankingLoss"):
        MICLoss(model, CachedMultipleNegativesRankingLoss(model), DIMS, gamma="auto", scope="pooled")
