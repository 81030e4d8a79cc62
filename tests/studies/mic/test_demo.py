"""studies/mic/demo.py and its corpus: sound statements, honest hold-out, a complete result from a tiny encoder."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_mic import Compressor

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
    load("bytes_report", monkeypatch)
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
        output_dir=str(output), model=tiny_model, sizes=[2, 4], keep=4, steps=5, combined=40, n_bootstrap=20
    )
    rows = demo.main(args)["rows"]
    assert {(row["method"], row["bytes"]) for row in rows} == {
        ("float32", 128),
        *((method, size) for method in ("truncation", "pca", "pq", "mic") for size in (2, 4)),
    }
    assert {row["task"] for row in rows} == {"ecg_retrieval", "ecg_finding", "ecg_similarity"}
    assert all(row["dim"] * row["bits"] == 8 * row["bytes"] for row in rows if row["method"] != "pq")
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    scores = {(row["method"], row["bytes"], row["task"]): row["value"] for row in rows}
    assert scores["float32", 128, "ecg_retrieval"] > scores["truncation", 2, "ecg_retrieval"]
    for name in ("demo_mic.json", "demo_mic.md", "demo_mic.png", "encoder/README.md", "compressor/compressor.json"):
        assert (output / name).stat().st_size > 500
    printed = capsys.readouterr().out
    assert "| mic |" in printed
    assert "loaded without hf_mic: largest difference" in printed

    # The row of MIC is what the saved compressor gives.
    compressor, encoder = Compressor.load(output / "compressor"), SentenceTransformer(tiny_model, device="cpu")
    training, held_out = demo.make_corpus(combined=40)
    retrieval = demo.build_tasks(training, held_out)[0]
    codes = compressor.transform(encoder.encode(list(retrieval.corpus.values())))
    assert codes.shape == (len(retrieval.corpus), 4)
    _, found = compressor.search(encoder.encode(list(retrieval.queries.values())), codes, k=10)
    gains = (found == np.arange(len(found))[:, None]) / np.log2(np.arange(2, 12))
    assert gains.sum(axis=1).mean() == pytest.approx(
        scores["mic", 4, "ecg_retrieval"], abs=0.02
    )  # ties may be broken otherwise

    texts = [statement.phrasings[0] for statement in held_out[:8]]
    vectors = encoder.encode(texts)
    assert demo.check_reload(output, texts, vectors) < 1e-4
    with pytest.raises(RuntimeError, match="differs from the saved compressor"):
        demo.check_reload(output, texts, -vectors)
    with pytest.raises(RuntimeError, match="does not load in a new process"):
        demo.check_reload(tmp_path, texts, vectors)


def test_what_is_kept_must_be_made(demo):
    with pytest.raises(ValueError, match=r"keep=3: must be one of sizes, \[4, 8, 16\]"):
        demo.DemoArguments(keep=3)
