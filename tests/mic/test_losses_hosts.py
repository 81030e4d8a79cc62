"""MICLoss with the losses, encoders, inputs and trainers that it has to live with."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.losses import column_merging_disabled
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer import losses as hosts
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import nn
from transformers import (
    AutoModel,
    DistilBertConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)

from hf_mic import MICLoss
from hf_mic.capture import encoder_passes
from hf_mic.functional import masked_mean, soft_collapse_loss, spectral_isotropy_loss

DIMS = [32, 16, 8]
BELOW = [16, 8]
WIDTH = 32
SCORES = torch.tensor([0.1, 0.9, 0.4, 0.3, 0.8, 0.2])
BINARY = torch.tensor([0, 1, 0, 1, 1, 0])


def columns_for(model, make_sentences, count=2, rows=6, seed=20, **options):
    texts = [make_sentences(rows, seed + i, longest=5 + 3 * i) for i in range(count)]
    return [model.preprocess(column, **options) for column in texts]


def step(loss, features, labels=None):
    """Terms, and the gradients of their sum."""
    loss.zero_grad(set_to_none=True)
    terms = loss(features, labels)
    torch.stack(list(terms.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in loss.model.named_parameters() if p.grad is not None}
    assert all(value.isfinite() for value in terms.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    return {name: value.detach() for name, value in terms.items()}, gradients


def mnrl(model):
    return hosts.MultipleNegativesRankingLoss(model)


# ---- inner losses ---------------------------------------------------------------------------------------------------

INNER = {
    "symmetric": (2, None, hosts.MultipleNegativesSymmetricRankingLoss),
    "both directions": (
        2,
        None,
        lambda model: hosts.MultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_doc")),
    ),
    "angle": (2, SCORES, hosts.AnglELoss),
    "cosine": (2, SCORES, hosts.CosineSimilarityLoss),
    "contrastive": (2, BINARY, hosts.ContrastiveLoss),
    "online contrastive": (2, BINARY, hosts.OnlineContrastiveLoss),
    "triplet": (3, None, hosts.TripletLoss),
    "margin mse": (3, SCORES, hosts.MarginMSELoss),
    "distilled kl": (3, torch.rand(6, 2), hosts.DistillKLDivLoss),
    "embeddings": (1, torch.randn(6, WIDTH), hosts.MSELoss),
    "batch hard": (1, BINARY, hosts.BatchHardTripletLoss),
    "batch all": (1, BINARY, hosts.BatchAllTripletLoss),
}


@pytest.mark.parametrize("name", INNER)
def test_any_inner_loss(make_model, make_sentences, name):
    count, labels, inner = INNER[name]
    model = make_model()
    plain = hosts.MatryoshkaLoss(model, inner(model), DIMS)(columns_for(model, make_sentences, count), labels)
    terms, gradients = step(
        MICLoss(model, inner(model), DIMS, layers=[2]), columns_for(model, make_sentences, count), labels
    )
    assert torch.equal(terms["matryoshka"], plain.detach())
    scr = []
    with torch.no_grad():
        for column in columns_for(model, make_sentences, count):
            tokens = {key: column[key] for key in ("input_ids", "attention_mask")}
            states = model[0].auto_model(**tokens, output_hidden_states=True).hidden_states[2]
            scr.append(soft_collapse_loss(states, column["attention_mask"], BELOW))
    torch.testing.assert_close(terms["scr"], 0.1 * torch.cat(scr).mean())
    assert gradients["0.model.encoder.layer.0.output.dense.weight"].abs().sum() > 0


def test_a_loss_that_returns_named_components_is_summed(make_model, make_sentences):
    model = make_model()
    inner = hosts.GlobalOrthogonalRegularizationLoss(model)
    with pytest.raises(TypeError):
        hosts.MatryoshkaLoss(model, inner, DIMS)(columns_for(model, make_sentences), None)
    for gamma in (0.0, 0.1):
        terms, _ = step(MICLoss(model, inner, DIMS, gamma=gamma), columns_for(model, make_sentences))
        full = [model(column)["sentence_embedding"] for column in columns_for(model, make_sentences)]
        expected = 0.0
        for d in DIMS:
            expected += sum(inner.compute_loss_from_embeddings([e[:, :d] for e in full]).values())
        torch.testing.assert_close(terms["matryoshka"], expected.detach(), rtol=1e-5, atol=1e-6)
    assert isinstance(inner(columns_for(model, make_sentences), None), dict)  # by itself it is as before


# ---- encoders -------------------------------------------------------------------------------------------------------


def build_encoder(kind, folder, tiny_bert_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert_path)
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0}
    plain = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    configs = {
        "mpnet": lambda: MPNetConfig(**size, **plain, max_position_embeddings=70),
        "roberta": lambda: RobertaConfig(**size, **plain, max_position_embeddings=70),
        "distilbert": lambda: DistilBertConfig(**size, dim=WIDTH, n_layers=3, n_heads=4, hidden_dim=48),
        "modernbert": lambda: ModernBertConfig(
            **size, **plain, max_position_embeddings=64, global_attn_every_n_layers=2
        ),
        "llama": lambda: LlamaConfig(**size, **plain, num_key_value_heads=2, max_position_embeddings=64),
        "qwen3": lambda: Qwen3Config(**size, **plain, num_key_value_heads=2, head_dim=8, max_position_embeddings=64),
        "t5": lambda: T5Config(**size, d_model=WIDTH, num_layers=3, num_heads=4, d_kv=8, d_ff=48),
    }
    torch.manual_seed(0)
    config = configs[kind]()
    model = T5EncoderModel(config) if kind == "t5" else AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(WIDTH)], device="cpu")


@pytest.mark.parametrize("kind", ["mpnet", "roberta", "distilbert", "modernbert", "llama", "qwen3", "t5"])
def test_architectures(kind, tmp_path, tiny_bert_path, make_sentences):
    model = build_encoder(kind, tmp_path, tiny_bert_path).eval()
    loss = MICLoss(model, mnrl(model), DIMS, gamma=1.0)
    assert list(loss.layers) == [1, 2]
    terms, gradients = step(loss, columns_for(model, make_sentences, 3))
    scr = []
    with torch.no_grad(), encoder_passes(model, [1, 2, 3]) as passes, column_merging_disabled():
        for column in columns_for(model, make_sentences, 3):
            token_embeddings = model(column)["token_embeddings"]
            states, mask = passes.hidden_states, passes.attention_masks[-1]
            scr += [soft_collapse_loss(states[layer][-1], mask, BELOW) for layer in (1, 2)]
            assert not torch.equal(states[1][-1], states[2][-1])
            assert torch.allclose(states[3][-1], token_embeddings, atol=1e-6)
    torch.testing.assert_close(terms["scr"], torch.cat(scr).mean(), rtol=1e-4, atol=1e-5)
    assert terms["sir"] != 0
    assert sum(g.abs().sum() > 0 for g in gradients.values()) >= 0.8 * len(gradients) > 10


@pytest.mark.parametrize("columns", [2, 3])
def test_queries_and_documents_by_different_encoders(make_model, static_model, make_sentences, columns):
    """A static query encoder beside a transformer: embeddings are there, token states of all columns are not."""
    router = Router.for_query_document(query_modules=[*static_model], document_modules=[*make_model()])
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu")

    def features():
        tasks = ["query", *["document"] * (columns - 1)]
        texts = [make_sentences(6, seed) for seed in range(columns)]
        return [model.preprocess(column, task=task) for column, task in zip(texts, tasks, strict=True)]

    with pytest.raises(ValueError, match=r'Router.*scope="pooled"'):
        MICLoss(model, mnrl(model), DIMS)
    terms, gradients = step(MICLoss(model, mnrl(model), DIMS, scope="pooled", gamma=1.0), features())
    assert {name.split(".")[2] for name in gradients} == {"query", "document"}
    with torch.no_grad():
        expected = [spectral_isotropy_loss(model(column)["sentence_embedding"], BELOW) for column in features()]
    torch.testing.assert_close(terms["sir"], torch.cat(expected).mean(), rtol=1e-4, atol=1e-5)


def test_head_narrower_than_the_states(make_model, make_sentences):
    bert = make_model()
    model = SentenceTransformer(modules=[*bert, Dense(WIDTH, 12)], device="cpu")
    loss = MICLoss(model, mnrl(model), [12, 6], distill="similarity_kl", distill_weight=1.0)
    assert loss.layers[2] == [12, 6]  # both leave a residual of the 32 state features
    assert loss.distill_dims == [6]
    terms, gradients = step(loss, columns_for(model, make_sentences))
    assert gradients["2.linear.weight"].abs().sum() > 0
    assert terms["distill"] > 0
    assert MICLoss(model, mnrl(model), [12, 6], scope="pooled").reg_dims == [6]
    with pytest.raises(ValueError, match="the width is 12"):
        MICLoss(model, mnrl(model), [12, 6], scope="pooled", reg_dims=[12])


def test_normalised_embeddings(make_model, make_sentences):
    model = make_model(normalize=True)
    plain = make_model()
    values = [step(MICLoss(m, mnrl(m), DIMS, gamma=1.0), columns_for(m, make_sentences))[0] for m in (model, plain)]
    for name in ("scr", "sir"):  # the token scope sees states before the head
        torch.testing.assert_close(values[0][name], values[1][name])
    terms, _ = step(
        MICLoss(model, mnrl(model), DIMS, gamma=1.0, scope="pooled", var_weight=0.0), columns_for(model, make_sentences)
    )
    assert 0 < terms["scr"] < 1


def test_lora_adapters_learn_from_every_term(make_model, make_sentences):
    model = make_model()
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False))
    inner = mnrl(model)
    terms, gradients = step(MICLoss(model, inner, DIMS, gamma=1.0), columns_for(model, make_sentences))
    assert gradients
    assert all("lora" in name for name in gradients)
    assert len(gradients) == 4 * 2 * 2
    _, without = step(MICLoss(model, inner, DIMS, gamma=0.0), columns_for(model, make_sentences))
    first = [name for name in gradients if "layer.0." in name]
    assert first
    assert all(not torch.allclose(gradients[name], without[name], rtol=1e-3) for name in first)
    assert terms["scr"] > 0


# ---- precision, memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["tokens", "pooled"])
def test_bfloat16_autocast_stays_near_float32(make_model, make_sentences, scope):
    model = make_model()
    options = {"scope": scope, "gamma": 1.0, "distill": "similarity_kl", "distill_weight": 1.0}
    loss = MICLoss(model, mnrl(model), DIMS, distill_temperature=0.5, **options)
    exact, exact_gradients = step(loss, columns_for(model, make_sentences, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, gradients = step(loss, columns_for(model, make_sentences, 3))
    for name, value in rounded.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05, abs=0.02), name
        if name != "matryoshka":
            assert value.dtype == torch.float32
    name = "0.model.encoder.layer.1.output.dense.weight"
    assert torch.cosine_similarity(gradients[name].flatten(), exact_gradients[name].flatten(), dim=0) > 0.98
    half = make_model().to(torch.bfloat16)
    loss = MICLoss(half, mnrl(half), DIMS, distill_temperature=0.5, **options)
    terms, _ = step(loss, columns_for(half, make_sentences, 3))
    assert terms["scr"].item() == pytest.approx(exact["scr"].item(), rel=0.05)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(make_model, make_sentences, reentrant):
    results = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model[0].auto_model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model[0].auto_model.enable_input_require_grads()
        loss = MICLoss(model, mnrl(model), DIMS, gamma=1.0)
        for _ in range(2):  # the second step would show states left over from a recomputation
            result = step(loss, columns_for(model, make_sentences, 3))
        results.append(result)
    (expected, expected_gradients), (terms, gradients) = results
    assert all(torch.equal(terms[name], expected[name]) for name in expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


# ---- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [2, 3])
def test_both_padding_sides_are_equal(make_model, make_sentences, columns):
    values = []
    for side in ("right", "left"):
        model = make_model()
        model.tokenizer.padding_side = side
        features = columns_for(model, make_sentences, columns)
        mask = features[-1]["attention_mask"]
        assert (mask[:, 0 if side == "left" else -1] == 0).any()
        for column in features:  # positions count from the first real token on either side
            column["position_ids"] = (column["attention_mask"].cumsum(1) - 1).clamp(min=0)
        options = {"gamma": 1.0, "distill": "similarity_kl", "distill_weight": 1.0}
        values.append(step(MICLoss(model, mnrl(model), DIMS, **options), features))
    (right, right_gradients), (left, left_gradients) = values
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, rtol=1e-4, atol=1e-5, msg=name)
    name = "0.model.encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(left_gradients[name], right_gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("columns", [2, 3])
def test_prompts_count_where_the_pooling_counts_them(make_model, make_sentences, include, side, columns):
    model = make_model()
    model[1].include_prompt = include
    model.tokenizer.padding_side = side
    prompt = "patient with heart rhythm : "
    features = columns_for(model, make_sentences, columns, prompt=prompt)
    length = 5
    assert include or int(torch.as_tensor(features[0]["prompt_length"]).flatten()[0]) == length
    terms, _ = step(MICLoss(model, mnrl(model), DIMS, layers=[2], gamma=1.0), features)
    scr, sir = [], []
    with torch.no_grad():
        for column in columns_for(model, make_sentences, columns, prompt=prompt):
            tokens = {key: column[key] for key in ("input_ids", "attention_mask")}
            mask = tokens["attention_mask"].clone()
            for row in mask if not include else []:
                row[row.nonzero()[:length]] = 0
            states = model[0].auto_model(**tokens, output_hidden_states=True).hidden_states[2]
            scr.append(soft_collapse_loss(states, mask, BELOW))
            sir.append(spectral_isotropy_loss(masked_mean(states, mask), BELOW))
    if side == "right" or columns == 2:  # merging pads left-padded columns on the right, which shifts BERT's positions
        torch.testing.assert_close(terms["scr"], torch.cat(scr).mean(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(terms["sir"], torch.cat(sir).mean(), rtol=1e-4, atol=1e-4)


def test_states_without_a_mask_are_refused(make_model, make_sentences):
    class Flattening(nn.Module):
        """An encoder that packs its rows, as flash attention does."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, features, labels):
            for column in features:
                self.model({**column, "attention_mask": None})
            return torch.zeros(())

    model = make_model()
    with pytest.raises(ValueError, match='flattening off or use scope="pooled"'):
        MICLoss(model, Flattening(model), DIMS)(columns_for(model, make_sentences), None)


# ---- the trainer of sentence-transformers ---------------------------------------------------------------------------


class Recorder(SentenceTransformerTrainer):
    """Keeps what each step's loss was."""

    def compute_loss(self, *args, **kwargs):
        value = super().compute_loss(*args, **kwargs)
        self.seen = [*getattr(self, "seen", []), (value[0] if isinstance(value, tuple) else value).item()]
        return value


def train(model, loss, data, folder, **options):
    defaults = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments = SentenceTransformerTrainingArguments(str(folder), **defaults | options)
    trainer = Recorder(model=model, args=arguments, train_dataset=data, loss=loss)
    trainer.train()
    return trainer


def test_several_data_sets_with_a_dict_of_losses(make_model, make_sentences, tmp_path):
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    texts = [make_sentences(16, seed) for seed in range(3)]
    data = {
        "pairs": Dataset.from_dict({"a": texts[0], "b": texts[1]}),
        "triplets": Dataset.from_dict({"a": texts[0], "b": texts[1], "c": texts[2]}),
        "sts": Dataset.from_dict({"a": texts[0], "b": texts[2], "score": [i / 16 for i in range(16)]}),
    }
    cached = hosts.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    losses = {
        "pairs": MICLoss(model, mnrl(model), DIMS, gamma=0.5),
        "triplets": MICLoss(model, cached, DIMS, scope="pooled"),
        "sts": MICLoss(model, hosts.CoSENTLoss(model), DIMS, gamma=0.5, distill="similarity_kl", distill_weight=1.0),
    }
    trainer = train(model, losses, data, tmp_path)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == len(trainer.seen) == 6
    assert sum("distill" in entry for entry in logs) >= 2
    for entry, value in zip(logs, trainer.seen, strict=True):
        assert entry["loss"] == pytest.approx(value, abs=1e-3)
    assert sum(not torch.equal(p, before[name]) for name, p in model.named_parameters()) > 60


def test_components_sum_to_the_loss_also_under_accumulation(make_model, make_sentences, tmp_path):
    data = Dataset.from_dict({"a": make_sentences(16, 0), "b": make_sentences(16, 1)})
    for options in ({}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}):
        model = make_model()
        loss = MICLoss(model, mnrl(model), DIMS, gamma=1.0, distill="similarity_kl", distill_weight=0.5)
        trainer = train(model, loss, data, tmp_path, **options)
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(logs) == 2
        accumulated = options.get("gradient_accumulation_steps", 1)
        for i, entry in enumerate(logs):
            total = sum(entry[name] for name in ("matryoshka", "scr", "sir", "distill"))
            seen = trainer.seen[i * accumulated : (i + 1) * accumulated]
            assert entry["loss"] == pytest.approx(total, abs=1e-3)
            assert entry["loss"] == pytest.approx(sum(seen) / accumulated, abs=1e-3)


def test_the_card_cites_the_paper_and_shows_the_configuration(make_model, make_sentences, tmp_path):
    model = make_model()
    data = Dataset.from_dict({"a": make_sentences(16, 0), "b": make_sentences(16, 1)})
    train(model, MICLoss(model, mnrl(model), DIMS, gamma=0.25, layers={2: [8]}), data, tmp_path, max_steps=1)
    model.save_pretrained(str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    for part in (
        "2605.29987",
        "#### MICLoss",
        '"gamma": 0.25',
        "Matryoshka Representation Learning",
        "MultipleNegativesRankingLoss",
    ):
        assert part in card, part
    loaded = SentenceTransformer(str(tmp_path / "model"), truncate_dim=8, device="cpu")
    assert loaded.encode(["heart rate"]).shape == (1, 8)
