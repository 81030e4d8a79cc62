"""A loss that is no number stops a run before it reaches a weight, and says whose fault it is."""

import math

import pytest
import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.trainer import NonFiniteLossError


@pytest.fixture
def train(make_model, make_sentences, tmp_path):
    """Train on pairs, or on several data sets, with a model that was changed before; returns what it then was."""

    def run(change=lambda model: None, *, data=None, weights=None, **options):
        model = make_model()
        change(model)
        if weights is not None:
            weights.update({name: value.clone() for name, value in model.state_dict().items()})
        pairs = Dataset.from_dict({"anchor": make_sentences(8, 0), "positive": make_sentences(8, 1)})
        arguments = MICTrainingArguments(
            str(tmp_path), per_device_train_batch_size=4, max_steps=3, learning_rate=1e-3, report_to="none", save_strategy="no",
            use_cpu=True, disable_tqdm=True, **options.pop("arguments", {}),
        )  # fmt: skip
        trainer = MICTrainer(model=model, args=arguments, train_dataset=data or pairs, **options)
        trainer.train()

    return run


def spoil(row):
    """Make the embedding of one token NaN, or of all."""

    def change(model):
        with torch.no_grad():
            model[0].auto_model.embeddings.word_embeddings.weight[row] = math.nan

    return change


def test_a_model_that_has_diverged_is_named_and_keeps_its_weights(train, make_model):
    before, model = {}, []

    def change(built):
        spoil(slice(None))(built)
        model.append(built)

    with pytest.raises(NonFiniteLossError, match=r"^step 1: .* embeddings of rows \[0, 1, 2, 3\] .*learning_rate"):
        train(change, weights=before)
    for name, value in model[0].state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)


def test_rows_and_data_set_are_named(train, make_sentences):
    good = Dataset.from_dict({"anchor": make_sentences(4, 0), "positive": make_sentences(4, 1)})
    scored = Dataset.from_dict({"a": make_sentences(4, 2), "b": make_sentences(4, 3), "score": [0.1, 0.2, 0.5, 0.9]})
    with pytest.raises(NonFiniteLossError, match=r"step 1, data set '(pairs|sts)': .* rows \["):
        train(spoil(slice(None)), data={"pairs": good, "sts": scored})


def test_a_label_that_is_no_number_is_named(train, make_sentences):
    scored = Dataset.from_dict(
        {"a": make_sentences(4, 2), "b": make_sentences(4, 3), "score": [0.1, math.nan, 0.5, 0.9]}
    )
    with pytest.raises(NonFiniteLossError, match=r"^step 1: labels of rows \[\d\] of the batch are NaN"):
        train(data=scored)


def test_a_term_that_overflows_is_told_from_a_model_that_did(train):
    class Overflowing(MultipleNegativesRankingLoss):
        def forward(self, *args):
            return super().forward(*args) * math.inf

    with pytest.raises(NonFiniteLossError, match=r"although all embeddings are: a term overflows"):
        train(loss=lambda model: Overflowing(model))


def test_one_pair_trains(train, make_sentences):
    """SIR has no variance over a batch of one, and the last batch of an epoch may be one."""
    train(data=Dataset.from_dict({"anchor": make_sentences(5, 0), "positive": make_sentences(5, 1)}))
    train(data=Dataset.from_dict({"anchor": make_sentences(1, 0), "positive": make_sentences(1, 1)}))
    train(data=Dataset.from_dict({"anchor": ["the same"] * 4, "positive": ["the same"] * 4}))


def test_the_same_seed_gives_the_same_bits(train):
    """With dropout, the sampler and a term of chance (dims drawn per step) in play."""
    runs = []
    for seed in (3, 3, 4):
        model = []
        options = {"seed": seed, "n_dims_per_step": 1, "distill": "similarity_kl", "distill_weight": 0.5}

        def change(built, model=model):
            model.append(built)
            for part in built.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.2

        train(change, arguments=options)
        runs.append(model[0].state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())
    assert not all(torch.equal(value, runs[2][name]) for name, value in runs[0].items())
