"""studies/mic/demo.py and its text: sentences of packages that are held out whole, a complete result from a tiny encoder."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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
def docstrings(monkeypatch):
    return load("docstrings", monkeypatch)


@pytest.fixture
def demo(docstrings, monkeypatch):
    load("bytes_report", monkeypatch)
    module = load("demo", monkeypatch)
    monkeypatch.setattr(module, "FITTED", ("huggingface_hub",))
    monkeypatch.setattr(module, "SCORED", ("accelerate",))
    return module


@pytest.fixture
def tiny_model(docstrings, tmp_path) -> str:
    """An encoder of width 32 that knows the words of the sentences."""
    described = [*docstrings.read_docstrings("huggingface_hub"), *docstrings.read_docstrings("accelerate")]
    words = sorted({word for d in described for word in re.findall(r"\w+|[^\w\s]+", f"{d.name} {d.summary}")})
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


# ---- docstrings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return ``True`` where\nit is :func:`finite`. More.\n\nParameters", "Return True where it is finite."),
        ("No stop at the end of this\n\nMore.", "No stop at the end of this"),
        ("Too short.", None),
        ("x" * 241, None),
        ("", None),
    ],
)
def test_the_first_sentence_of_a_docstring(docstrings, docstring, sentence):
    assert docstrings.first_sentence(docstring) == sentence


def test_a_package_is_read_from_its_files(docstrings, tmp_path, monkeypatch):
    """Public names only, each sentence once; tests, and what no parser reads, are left out; nothing is imported."""
    package = tmp_path / "told"
    for part in ("", "inner", "tests"):
        (package / part).mkdir(exist_ok=True)
        (package / part / "__init__.py").write_text("")
    said = 'def {0}():\n    """{1}"""\n'
    (package / "one.py").write_text(
        "raise SystemExit\n"
        + said.format("solve_it", "Solve all of it in one go. Slowly.")
        + said.format("_hidden", "Hidden from everyone.")
    )
    (package / "inner" / "two.py").write_text(
        'class TwoParts:\n    """Two parts of a whole thing."""\n    def again(self):\n        """Solve all of it in one go."""\n'
    )
    (package / "tests" / "test_one.py").write_text(said.format("test_it", "Test it and be glad."))
    (package / "broken.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = docstrings.read_docstrings("told")
    assert [(d.area, d.name, d.summary) for d in found] == [
        ("told.inner", "two parts", "Two parts of a whole thing."),
        ("told.inner", "again", "Solve all of it in one go."),
    ]
    with pytest.raises(ModuleNotFoundError, match="'no_such_package' is not installed"):
        docstrings.read_docstrings("no_such_package")


def test_tasks_ask_about_sentences_of_other_packages(docstrings):
    described = docstrings.read_docstrings("accelerate")
    search, area = docstrings.text_tasks(described)
    names = {d.summary: d.name for d in described}
    for query, grades in search.qrels.items():
        (found,) = grades
        assert names[search.corpus[found]] == search.queries[query]
    assert len(set(search.queries.values())) == len(search.queries) > 50
    assert not set(area.train_texts) & set(area.test_texts)
    assert set(area.test_labels) == set(area.train_labels)
    assert min(map(area.train_labels.count, area.train_labels)) >= docstrings.LEAST_OF_AN_AREA / 2
    assert docstrings.text_tasks(described, seed=1)[1] != area == docstrings.text_tasks(described)[1]


def test_neighbours_are_those_at_full_width(docstrings):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    task = docstrings.neighbour_task([f"t{i}" for i in range(60)], vectors)
    assert len(task.queries) == 15
    assert not set(task.queries.values()) & set(task.corpus.values())
    for query, grades in task.qrels.items():
        own = vectors[int(query[1:])]
        cosines = {key: float(vectors[int(key[1:])] @ own) for key in task.corpus}
        assert set(grades) == set(sorted(cosines, key=cosines.get)[-10:])


# ---- demo -----------------------------------------------------------------------------------------------------------


def test_the_demo_is_complete(demo, tiny_model, tmp_path, capsys):
    output = tmp_path / "out"
    args = demo.DemoArguments(
        output_dir=str(output), model=tiny_model, sizes=[2, 4], keep=4, steps=5, fitted=400, scored=200, n_bootstrap=20
    )
    rows = demo.main(args)["rows"]
    assert {(row["method"], row["bytes"]) for row in rows} == {
        ("float32", 128),
        *((method, size) for method in ("truncation", "pca", "pq", "mic") for size in (2, 4)),
    }
    assert {row["task"] for row in rows} == {"neighbours", "search_by_name", "area"}
    assert all(row["dim"] * row["bits"] == 8 * row["bytes"] for row in rows if row["method"] != "pq")
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    scores = {(row["method"], row["bytes"], row["task"]): row["value"] for row in rows}
    assert scores["float32", 128, "neighbours"] == 1
    assert all(0 < value < 1 for key, value in scores.items() if key[2] == "neighbours" and key[0] != "float32")
    for name in ("demo_mic.json", "demo_mic.md", "demo_mic.png", "encoder/README.md", "compressor/compressor.json"):
        assert (output / name).stat().st_size > 500
    printed = capsys.readouterr().out
    assert "| mic |" in printed
    assert "loaded without hf_mic: largest difference" in printed

    # The row of MIC is what the saved compressor gives.
    compressor, encoder = Compressor.load(output / "compressor"), SentenceTransformer(tiny_model, device="cpu")
    held_out = demo.drawn(demo.SCORED, 200, 0)
    search = demo.text_tasks(held_out)[0]
    codes = compressor.transform(encoder.encode(list(search.corpus.values())))
    assert codes.shape == (len(search.corpus), 4)
    _, found = compressor.search(encoder.encode(list(search.queries.values())), codes, k=10)
    rows_of = {key: row for row, key in enumerate(search.corpus)}
    wanted = np.array([[rows_of[key] for key in search.qrels[query]] for query in search.queries])
    gains = (found == wanted) / np.log2(np.arange(2, 12))
    assert gains.sum(axis=1).mean() == pytest.approx(
        scores["mic", 4, "search_by_name"], abs=0.02
    )  # ties may be broken otherwise

    texts = [docstring.summary for docstring in held_out[:8]]
    vectors = encoder.encode(texts)
    assert demo.check_reload(output, texts, vectors) < 1e-4
    with pytest.raises(RuntimeError, match="differs from the saved compressor"):
        demo.check_reload(output, texts, -vectors)
    with pytest.raises(RuntimeError, match="does not load in a new process"):
        demo.check_reload(tmp_path, texts, vectors)


def test_what_is_kept_must_be_made(demo):
    with pytest.raises(ValueError, match=r"keep=3: must be one of sizes, \[4, 8, 16\]"):
        demo.DemoArguments(keep=3)
