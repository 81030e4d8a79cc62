"""The model card: complete, valid, the same after a second call, written at once."""

import json
import os
import re
import socket

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MatryoshkaLoss, MultipleNegativesRankingLoss

from hf_mic import MICLoss, MICTrainer, MICTrainingArguments
from hf_mic.cards.card import complete_model_card, describe_loss, hub_name


def row(method, dim, value, *, task="stsb", metric="spearman", seed=0, precision="float32"):
    return {
        "method": method,
        "seed": seed,
        "task": task,
        "dim": dim,
        "precision": precision,
        "bytes_per_vector": 4 * dim,
        "metric": metric,
        "value": value,
        "n": 100,
        "ci_low": value - 0.1,
        "ci_high": value + 0.1,
    }


ROWS = [
    row("mic", 8, 0.5),
    row("mic", 32, 0.7512344),
    row("truncation", 8, 0.4),
    row("truncation", 32, 0.76),
    row("mic", 8, 0.45, precision="int8"),
    row("mic", 8, 0.3, task="banking77", metric="accuracy"),
    row("mic", 8, 0.2, task="banking77", metric="accuracy_standardised"),
]
RESULTS = {"study": "mic_test", "config": {}, "commit": "0" * 40, "machine": {"cpu": "a processor"}, "rows": ROWS}


@pytest.fixture
def saved(make_model, make_sentences, tmp_path):
    """A model trained for a step and saved by the trainer, with the card of sentence-transformers."""
    pairs = Dataset.from_dict({"anchor": make_sentences(8, 0), "positive": make_sentences(8, 1)})
    args = MICTrainingArguments(str(tmp_path), max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    trainer = MICTrainer(model=make_model(), args=args, train_dataset=pairs)
    trainer.train()
    trainer.save_model()
    return tmp_path, trainer.loss


def test_the_card_is_complete_without_asking_the_network(saved, monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder, loss = saved
    assert "<!--" in (folder / "README.md").read_text()
    complete_model_card(
        folder, loss=loss, results=RESULTS, method="mic", truncate_dim=16, limits=["Only heart rhythms."]
    )
    text = (folder / "README.md").read_text()
    for nothing in (
        "<!--",
        "-->",
        "ore information needed",
        "ore Information Needed",
        "sentence_transformers_model_id",
    ):
        assert nothing not in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert len(set(headings)) == len(headings)
    wanted = [
        "Usage",
        "Truncation",
        "How it was trained",
        "Scores by dimension",
        "Limits",
        "Training Details",
        "Citation",
    ]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert "truncate_dim=16" in text
    assert "| mic | **50.00** | 75.12 |" in text
    assert "| truncation | 40.00 | **76.00** |" in text
    assert "This model is `mic`" in text
    assert "- Only heart rhythms." in text
    assert "weight γ = 0.1, on the token states of layers 1, 2 and 3, prefixes 16" in text
    assert "@inproceedings{mic2026" in text
    assert "@misc{kusupati2024matryoshka" in text or "Matryoshka Representation Learning" in text
    assert (folder / "scores_by_dimension.png").read_bytes()[:4] == b"\x89PNG"
    assert "![Scores by dimension](scores_by_dimension.png)" in text
    assert str(folder) not in text
    assert re.findall(r"^# (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)[0] == "MIC encoder"


def test_the_metadata_hold_the_scores_of_this_model(saved):
    folder, loss = saved
    complete_model_card(folder, loss=loss, results=RESULTS, method="mic")
    data = ModelCard.load(folder / "README.md").data
    found = {(r.dataset_name, r.metric_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert found == {
        ("stsb", "spearman", "spearman at 8 dimensions"): 0.5,
        ("stsb", "spearman", "spearman at 32 dimensions"): 0.751234,
        ("banking77", "accuracy", "accuracy at 8 dimensions"): 0.3,
        ("banking77", "accuracy_standardised", "accuracy_standardised at 8 dimensions"): 0.2,
    }
    assert {"sentence-transformers", "mic", "matryoshka", "arxiv:2605.29987", "loss:MICLoss"} <= set(data.tags)
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    json.dumps(data.to_dict())


def test_a_second_call_changes_nothing_and_new_results_replace_old_ones(saved):
    folder, loss = saved
    options = {"loss": loss, "results": RESULTS, "method": "mic", "limits": ["One."]}
    complete_model_card(folder, **options)
    first = (folder / "README.md").read_text()
    complete_model_card(folder, **options)
    assert (folder / "README.md").read_text() == first
    new = RESULTS | {"rows": [row("mic", 8, 0.9)]}
    complete_model_card(folder, loss=loss, results=new, method="mic")
    text = (folder / "README.md").read_text()
    assert "90.00" in text
    assert "75.12" not in text
    assert len(ModelCard.load(folder / "README.md").data.eval_results) == 1
    assert "- One." not in text


def test_the_code_of_the_card_runs(saved, monkeypatch):
    folder, _ = saved
    complete_model_card(folder, truncate_dim=8)
    code = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(code) == 2
    for block in code:
        scope: dict = {}
        exec(block.replace("path/to/this/folder", str(folder)), scope)
        assert isinstance(scope["model"], SentenceTransformer)
    assert scope["embeddings"].shape == (2, 8)


def test_a_card_without_results_says_so(saved):
    folder, _ = saved
    complete_model_card(folder, model_id="me/model")
    text = (folder / "README.md").read_text()
    assert "No scores by dimension were measured" in text
    assert 'SentenceTransformer("me/model")' in text
    assert "\n# model\n" in text, "its name on the Hub, not that of a class"
    assert "# Download from the 🤗 Hub" in text
    assert ModelCard.load(folder / "README.md").data.eval_results is None


def test_a_failed_write_leaves_the_old_card(saved, monkeypatch):
    folder, loss = saved
    before = (folder / "README.md").read_text()
    names = {path.name for path in folder.iterdir()}

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        complete_model_card(folder, loss=loss)
    assert (folder / "README.md").read_text() == before
    assert {path.name for path in folder.iterdir()} == names


def test_ambiguous_or_missing_results_are_refused(saved):
    folder, _ = saved
    with pytest.raises(ValueError, match="method='ese', seed=None: the results hold no row of it"):
        complete_model_card(folder, results=RESULTS, method="ese")
    two = RESULTS | {"rows": [row("mic", 8, 0.5, seed=0), row("mic", 8, 0.7, seed=1)]}
    with pytest.raises(ValueError, match="give the seed"):
        complete_model_card(folder, results=two, method="mic")
    complete_model_card(folder, results=two, method="mic", seed=1)
    (result,) = ModelCard.load(folder / "README.md").data.eval_results
    assert result.metric_value == 0.7
    with pytest.raises(FileNotFoundError):
        complete_model_card(folder / "nowhere")


def test_losses_are_described(make_model):
    model = make_model()
    inner = MultipleNegativesRankingLoss(model)
    pooled = MICLoss(
        model, inner, [32, 8], scope="pooled", gamma=0.5, cv_mode="eigen", distill="similarity_kl", distill_weight=2.0
    )
    text = describe_loss({"pairs": pooled, "sts": MatryoshkaLoss(model, CoSENTLoss(model), [32, 8])})
    assert "Data set `pairs`: Trained with MIC" in text
    assert "γ = 0.5, on the sentence embeddings, prefixes 8." in text
    assert "eigen coefficient of variation" in text
    assert "weight 2, temperature 0.05" in text
    assert "Data set `sts`: Trained with `MatryoshkaLoss`" in text
    assert "off (γ = 0)" in describe_loss(MICLoss(model, inner, [32, 8], gamma=0.0))
    paired = MICLoss(model, inner, [32, 8], layers={1: [4, 8], 3: [16], 4: [4, 8]})
    assert "states of layers 1 and 4, prefixes 4 and 8; layer 3, prefixes 16." in describe_loss(paired)
    assert "with weights 1 and 0.5" in describe_loss(MICLoss(model, inner, [32, 8], matryoshka_weights=[1, 0.5]))


def test_defaults_are_not_listed_one_by_one(saved):
    folder, _ = saved
    listed = re.findall(r"^- `(\w+)`: ", (folder / "README.md").read_text(), re.MULTILINE)
    assert len(listed) > 90
    complete_model_card(folder)
    text = (folder / "README.md").read_text()
    kept = re.findall(r"^- `(\w+)`: ", text, re.MULTILINE)
    assert "max_steps" in kept
    assert len(kept) < 10
    assert (
        "Defaults worth knowing: `per_device_train_batch_size` 8, `num_train_epochs` 3.0, `learning_rate` 5e-05, "
        in text
    )
    complete_model_card(folder)
    assert (folder / "README.md").read_text() == text


def test_names_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mic").mkdir(parents=True)
    assert hub_name("outputs/mic") is None
    assert hub_name("my_model") is None
    assert hub_name("org/model") == "org/model"
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "0a1b"
    assert hub_name(str(snapshot)) == hub_name(f"{snapshot}/") == "sentence-transformers/all-MiniLM-L6-v2"
