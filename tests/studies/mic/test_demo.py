"""studies/mic/demo.py and its corpus: sound statements, honest hold-out, a complete result from a tiny encoder."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

FOLDER = Path(__file__).resolve().parents[3] / "studies" / "mic"


def load(name: str, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(monkeypatch):
    return load("corpus", monkeypatch)


@pytest.fixture
def demo(corpus, monkeypatch):
    return load("demo", monkeypatch)


@pytest.fixture
def tiny_model(corpus, tmp_path) -> str:
    """An encoder of width 32 that knows the words of the corpus."""
    words = sorted(
        {word for s in corpus.load_findings() for text in s.phrasings for word in re.findall(r"\w+|[^\w\s]+", text)}
    )
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)).save_pretrained(
        tmp_path / "bert"
    )
    wrapped.save_pretrained(tmp_path / "bert")
    modules = [Transformer(str(tmp_path / "bert")), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    return str(tmp_path / "model")


# ---- corpus ---------------------------------------------------------------------------------------------------------


def test_the_vocabulary_is_sound():
    vocabulary = yaml.safe_load((FOLDER / "ecg_findings.yaml").read_text())
    names = [family["name"] for family in vocabulary["families"]]
    assert len(set(names)) == len(names) >= 40
    used_shared, used_units = set(), set()
    for family in vocabulary["families"]:
        assert len(family["templates"]) == 4, family["name"]
        for template in family["templates"]:
            assert set(re.findall(r"{(\w+)}", template)) == set(family["slots"]), (family["name"], template)
        for slot in family["slots"].values():
            if isinstance(slot, str):
                used_shared.add(slot)
                slot = vocabulary["shared"][slot]
            if "unit" in slot:
                used_units.add(slot["unit"])
                assert len(vocabulary["units"][slot["unit"]]) == 4
            else:
                assert all(len(forms) == 4 and all(forms) for forms in slot.values()), family["name"]
    assert used_shared == set(vocabulary["shared"])
    assert used_units == set(vocabulary["units"])


def test_units_agree_with_each_other(corpus):
    """Rounded to two decimals of a second, durations of a family must stay apart; amplitudes at 10 mm/mV."""
    texts = {text for statement in corpus.load_findings() for text in statement.phrasings}
    assert "ST elevation of 3.5 mm in the inferior leads" in texts
    assert "Elevated ST segments (0.35 mV) in II, III and aVF" in texts
    assert "J point raised by 350 µV in the inferior wall" in texts
    assert "Prolonged PR interval of 0.21 s" in texts
    assert "First-degree AV block, PR 210 ms" in texts


def test_phrasings_are_distinct_and_statements_are_held_out_whole(corpus):
    training, held_out = corpus.make_corpus()
    texts = [text for statement in training + held_out for text in statement.phrasings]
    assert len(set(texts)) == len(texts)
    assert len(training) > 900
    assert len(held_out) > 200
    assert {s.family for s in held_out} == {s.family for s in corpus.load_findings()}
    findings = set(corpus.load_findings())
    alone = [statement for statement in held_out if statement in findings]
    learned = "\n".join(text for statement in training for text in statement.phrasings).lower()
    long_enough = [s.phrasings[0].lower() for s in alone if len(s.phrasings[0]) > 25]
    assert len(long_enough) > 60
    assert not [text for text in long_enough if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", learned)]


def test_the_corpus_depends_on_the_seed_only(corpus):
    assert corpus.make_corpus(seed=1) == corpus.make_corpus(seed=1)
    assert corpus.make_corpus(seed=1) != corpus.make_corpus(seed=2)
    training, _ = corpus.make_corpus()
    first, again = corpus.training_pairs(training), corpus.training_pairs(training)
    assert first["anchor"] == again["anchor"]
    assert len(first) == 3 * len(training)
    of_text = {text: statement for statement in training for text in statement.phrasings}
    for row in first.select(range(200)):
        assert of_text[row["anchor"]] is of_text[row["positive"]]
        assert row["anchor"] != row["positive"]


def test_reports_do_not_contradict_themselves(corpus):
    training, held_out = corpus.make_corpus()
    findings = set(corpus.load_findings())
    combined = [statement for statement in training + held_out if statement not in findings]
    assert len(combined) == 800
    fibrillation = [s for s in combined if "Atrial fibrillation" in s.phrasings[0]]
    assert len(fibrillation) > 20
    for statement in fibrillation:  # no P waves, so neither atrial enlargement nor PR interval nor blocked P waves
        assert statement.category not in ("ectopy", "pacing", "quality")
        assert "atrial enlargement" not in statement.family
        assert "AV block" not in statement.family


def test_tasks_are_about_held_out_statements(corpus):
    training, held_out = corpus.make_corpus()
    retrieval, classification, similarity = corpus.build_tasks(training, held_out)
    seen = {text for statement in training for text in statement.phrasings}
    assert not seen & {*retrieval.corpus.values(), *retrieval.queries.values()}
    assert not seen & {*classification.test_texts, *similarity.sentences1, *similarity.sentences2}
    assert set(classification.train_texts) <= seen
    assert set(similarity.scores) == {0.0, 1.0, 2.0, 3.0}
    assert all(a != b for a, b in zip(similarity.sentences1, similarity.sentences2, strict=True))


# ---- demo -----------------------------------------------------------------------------------------------------------


def test_the_demo_is_complete(demo, tiny_model, tmp_path, capsys):
    output = tmp_path / "out"
    args = demo.DemoArguments(
        output_dir=str(output), model=tiny_model, steps=2, dims=[8, 32], combined=40, truncate_dim=8, n_bootstrap=0
    )
    results = demo.main(args)
    assert {row["method"] for row in results["rows"]} == {"truncation", "pca", "mrl", "mic"}
    assert {row["task"] for row in results["rows"]} == {"ecg_retrieval", "ecg_finding", "ecg_similarity"}
    full = {
        row["method"]: row["value"]
        for row in results["rows"]
        if (row["task"], row["metric"], row["dim"]) == ("ecg_retrieval", "ndcg@10", 32)
    }
    assert full["pca"] == pytest.approx(full["truncation"], abs=0.02)  # a rotation changes nothing at full width
    for name in ("demo_mic.json", "demo_mic.md", "demo_mic.png", "mic/README.md", "mrl/README.md"):
        assert (output / name).stat().st_size > 500
    card = (output / "mic" / "README.md").read_text()
    assert "Generated ECG statements" in card
    assert "Not for clinical use" in card
    assert "<!--" not in card
    data = ModelCard.load(output / "mic" / "README.md").data
    assert data.language in ("en", ["en"])
    assert data.model_name == "Sentence encoder for ECG statements, MIC demonstration"
    printed = capsys.readouterr().out
    assert "| mic |" in printed
    assert "truncated to 8: largest difference" in printed

    model = SentenceTransformer(str(output / "mic"), device="cpu")
    _, held_out = demo.make_corpus(combined=40)
    with torch.no_grad():
        model[0].auto_model.embeddings.word_embeddings.weight += torch.randn(32)
    with pytest.raises(RuntimeError, match="differs"):
        demo.check_reload(model, output / "mic", held_out, 8)
    with pytest.raises(RuntimeError, match="does not load in a new process"):
        demo.check_reload(model, output / "nowhere", held_out, 8)
