"""hf_mic inspect: what is measured, what the verdict says, what is written, for models of every make."""

import json
import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW, Dense, Router, StaticEmbedding

from hf_mic.__main__ import main
from hf_mic.evaluation.evaluation import encoders, evaluate_model
from hf_mic.evaluation.tasks import RetrievalTask, STSTask
from hf_mic.frozen.head import add_dense_head
from hf_mic.inspection.findings import verdict
from hf_mic.inspection.inputs import read_texts
from hf_mic.inspection.inspection import Inspection, inspect_model, measure_embeddings
from hf_mic.inspection.page import markdown_page
from hf_mic.inspection.report import inspection_json, inspection_markdown, write_inspection
from hf_mic.inspection.settings import InspectionError, InspectionSettings, default_dims

QUICK = InspectionSettings(k=5, max_queries=40, n_bootstrap=20)


@pytest.fixture
def texts(make_sentences) -> list[str]:
    return list(dict.fromkeys(make_sentences(90, seed=1)))


def nearest(vectors: np.ndarray, query: int, k: int) -> set[int]:
    """Slow reference: the k nearest other rows by cosine."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = sorted((row for row in range(len(unit)) if row != query), key=lambda row: -float(unit[row] @ unit[query]))
    return set(order[:k])


def kept(full: np.ndarray, part: np.ndarray, k: int) -> float:
    return float(np.mean([len(nearest(full, i, k) & nearest(part, i, k)) / k for i in range(len(full))]))


# ---- measurements ---------------------------------------------------------------------------------------------------


def test_neighbours_agree_with_a_slow_count():
    vectors = np.random.default_rng(0).normal(size=(60, 16)) * np.linspace(2, 0.5, 16)
    found = measure_embeddings(vectors, [4, 16], InspectionSettings(k=5, precisions=["float32", "binary"]))
    assert [row["dim"] for row in found["neighbours"]] == [4, 16]
    assert found["neighbours"][0]["first"] == pytest.approx(kept(vectors, vectors[:, :4], 5))
    assert found["neighbours"][1]["first"] == found["neighbours"][1]["principal_axes"] == 1.0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    axes = np.linalg.eigh(np.cov(unit.T))[1][:, ::-1]
    assert found["neighbours"][0]["principal_axes"] == pytest.approx(kept(vectors, (unit @ axes)[:, :4], 5), abs=1e-6)
    by_storage = {(row["dim"], row["precision"]): row for row in found["storage"]}
    assert by_storage[4, "float32"]["kept"] == found["neighbours"][0]["first"]
    assert by_storage[16, "binary"]["bytes_per_vector"] == 2
    assert 0.2 < by_storage[16, "binary"]["kept"] < 1.0  # 16 signs keep much more than the chance level 5 / 59


def test_order_of_coordinates_shows():
    """All variance in the first coordinates: they keep what random ones lose; the rotated cloud keeps it only rotated."""
    random = np.random.default_rng(1)
    scales = np.r_[np.ones(8), np.full(56, 0.05)]
    ordered = random.normal(size=(300, 64)) * scales
    rotation = np.linalg.qr(random.normal(size=(64, 64)))[0]
    first = measure_embeddings(ordered, [8, 64], QUICK)["neighbours"][0]
    turned = measure_embeddings(ordered @ rotation, [8, 64], QUICK)["neighbours"][0]
    assert first["first"] > 0.6 > first["random"] + 0.3
    assert turned["first"] < 0.5 * turned["principal_axes"]
    assert turned["principal_axes"] == pytest.approx(first["principal_axes"], abs=0.02)


def test_zero_vectors_are_measured():
    vectors = np.random.default_rng(2).normal(size=(40, 8))
    vectors[3] = 0
    found = measure_embeddings(vectors, [4, 8], QUICK)
    assert all(0 <= row["first"] <= 1 for row in found["neighbours"])


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "normalised", "dense", "static"])
def test_any_model(kind, make_model, static_model, texts):
    model = static_model if kind == "static" else make_model(normalize=kind == "normalised")
    if kind == "dense":
        add_dense_head(model)
    found = inspect_model(model, texts, settings=QUICK, name=kind)
    assert [row["dim"] for row in found.neighbours] == [8, 16, 32]
    assert found.model["modules"] == [type(module).__name__ for module in model]
    full = np.asarray(model.encode(texts), dtype=np.float64)
    assert found.model["norm"]["mean"] == pytest.approx(np.linalg.norm(full, axis=1).mean(), rel=1e-4)
    eigenvalues = np.linalg.eigvalsh(np.cov(full.T))[::-1]
    np.testing.assert_allclose(found.spectra[32], eigenvalues, rtol=1e-3, atol=1e-6 * eigenvalues[0])
    assert any("not of unit length" in line for line in verdict(found)) == (kind != "normalised")


def test_truncate_dim_is_set_aside_and_measured(make_model, texts):
    model, whole = make_model(), make_model()
    model.truncate_dim = 12
    found = inspect_model(model, texts, settings=QUICK)
    assert model.truncate_dim == 12
    assert [row["dim"] for row in found.neighbours] == [8, 12, 16, 32]
    assert found.model["width"] == 32
    np.testing.assert_allclose(found.spectra[32], inspect_model(whole, texts, settings=QUICK).spectra[32])
    assert any("truncate_dim = 12" in line for line in verdict(found))
    with pytest.raises(InspectionError, match=r"dims=\[64\]: must be at most 32"):
        inspect_model(model, texts, settings=InspectionSettings(dims=[64], k=5))
    assert model.truncate_dim == 12


def test_prompts_reach_the_encoder(static_model, texts):
    static_model.prompts |= {"fast": "fast fast fast "}
    plain, named, literal = (
        inspect_model(static_model, texts, settings=InspectionSettings(k=5, n_bootstrap=0, **options))
        for options in ({}, {"prompt_name": "fast"}, {"prompt": "fast fast fast "})
    )
    assert named.spectra[32].sum() < 0.9 * plain.spectra[32].sum()  # common words pull the texts together
    np.testing.assert_array_equal(named.spectra[32], literal.spectra[32])
    assert "'fast fast fast '" in inspection_markdown(literal)
    with pytest.raises(InspectionError, match="prompt_name='slow': the model has"):
        inspect_model(static_model, texts, settings=InspectionSettings(prompt_name="slow"))


def test_router_models_embed_queries_by_their_own_route(static_model, make_sentences):
    torch.manual_seed(1)
    other = StaticEmbedding(static_model.tokenizer, embedding_dim=32)
    model = SentenceTransformer(modules=[Router.for_query_document([other], [static_model[0]])], device="cpu")
    documents, queries = encoders(model)
    texts = make_sentences(3, seed=4)
    np.testing.assert_allclose(documents(texts), static_model.encode(texts), rtol=1e-5)
    np.testing.assert_allclose(
        queries(texts), SentenceTransformer(modules=[other], device="cpu").encode(texts), rtol=1e-5
    )


def test_scores_are_those_of_the_evaluation(make_model, texts):
    model = make_model()
    model.prompts["query"] = "rate : "
    sts = STSTask("pairs", texts[:30], texts[30:60], list(np.linspace(0, 5, 30)))
    corpus = {str(i): text for i, text in enumerate(texts[:40])}
    retrieval = RetrievalTask("find", corpus, {"q": "old infarct", "r": texts[0]}, {"q": {"3": 1}, "r": {"0": 1}})
    settings = InspectionSettings(k=5, dims=[8], precisions=["float32"], n_bootstrap=0)
    found = inspect_model(model, tasks=[sts, retrieval], name="mine", settings=settings)
    expected = evaluate_model(model, [sts, retrieval], [8, 32], method="mine", n_bootstrap=0)
    assert [row["metric"] for row in found.scores] == [row["metric"] for row in expected]
    assert [row["value"] for row in found.scores] == pytest.approx([row["value"] for row in expected])
    assert found.texts["from"] == "tasks"
    assert found.texts["measured"] == len({*texts[:60]})
    assert "**pairs**: spearman" in inspection_markdown(found)


# ---- the verdict ----------------------------------------------------------------------------------------------------


def handmade(**changes) -> Inspection:
    """Round numbers for a model of width 96."""
    rows = [(8, 0.5, 0.3, 0.7), (16, 0.95, 0.6, 0.96), (96, 1.0, 1.0, 1.0)]
    r2 = {8: 0.25, 16: 0.5, 96: None}
    score = {8: 0.5, 16: 0.77, 96: 0.8}
    parts = {
        "model": {
            "name": "mine",
            "width": 96,
            "truncate_dim": None,
            "norm": {"lowest": 1.0, "highest": 1.0, "mean": 1.0},
        },
        "texts": {"measured": 2000},
        "neighbours": [{"dim": d, "first": a, "random": b, "principal_axes": c} for d, a, b, c in rows],
        "storage": [
            {"dim": 16, "precision": "float32", "bytes_per_vector": 64, "kept": 0.95},
            {"dim": 96, "precision": "binary", "bytes_per_vector": 12, "kept": 0.8},
            {"dim": 96, "precision": "int8", "bytes_per_vector": 96, "kept": 0.99},
        ],
        "geometry": [{"dim": d, "residual_r2_adjusted": r2[d], "participation_ratio": d / 2} for d in r2],
        "spectra": {},
        "scores": [
            {"task": "stsb", "metric": "spearman", "dim": d, "precision": "float32", "value": v}
            for d, v in score.items()
        ],
        "settings": {"k": 10, "precisions": ["float32", "int8", "binary"]},
    }
    return Inspection(**{**parts, **changes})


def test_verdict_of_round_numbers():
    assert verdict(handmade()) == [
        "Keeps 95 % of the full-width neighbours (10 nearest of 2,000 texts by cosine; 50 % at 8) at 16 of 96 dimensions.",
        "The first coordinates keep more than coordinates drawn at random: 95 % against 60 % of the neighbours at 16 dimensions.",
        "The principal axes of these texts keep 96 % there, no more than the coordinates as they are.",
        "The variance fills 48 of 96 dimensions (participation ratio); the first 16 predict 50 % of the variance of the other 80 "
        "(adjusted R²).",
        "Within 64 bytes per vector, 16 dimensions as float32 (64 bytes) keep most neighbours: 95 %.",
        "Within 256 bytes per vector, 96 dimensions as int8 (96 bytes) keep most neighbours: 99 %.",
        "stsb: spearman x 100 is 77.0 at 16 dimensions and 80.0 at 96; no shorter measured prefix has 95 % of the full-width "
        "score.",
    ]


def test_verdict_where_nothing_suffices():
    rows = [
        {"dim": 8, "first": 0.4, "random": 0.41, "principal_axes": 0.9},
        {"dim": 16, "first": 0.8999, "random": 0.9, "principal_axes": 0.95},
    ]
    rows.append({"dim": 96, "first": 1.0, "random": 1.0, "principal_axes": 1.0})
    model = handmade().model | {"truncate_dim": 16, "norm": {"lowest": 2.0, "highest": 3.0, "mean": 2.5}}
    said = verdict(handmade(neighbours=rows, model=model, texts={"measured": 150}, scores=[]))
    assert said[0].startswith("No measured prefix below the full 96 dimensions keeps 90 % of the full-width neighbours")
    assert said[0].endswith(": 90 % at 16, 40 % at 8.")
    assert said[1].startswith("The first coordinates keep no more than coordinates drawn at random: 90 % against 90 %")
    assert said[2].endswith("95 % there, so a rotation can make prefixes better.")
    assert [line.split()[0] for line in said[-3:]] == ["Read", "The", "Embeddings"]
    named = verdict(handmade(neighbours=rows, model=model | {"next_command": "hf-mic adapt --model m --texts t.txt"}))
    assert named[3] == "Next, to find one and append it to the model: hf-mic adapt --model m --texts t.txt"


def test_the_command_that_follows_an_inspection_of_a_model_runs(make_sentences, tmp_path, monkeypatch, capsys):
    """A model whose last coordinates carry the most, so that a rotation helps."""
    monkeypatch.chdir(tmp_path)
    words = sorted({word for text in make_sentences(200, 0) for word in text.split()})
    spread = Dense(len(words), 32, bias=False, activation_function=None)
    with torch.no_grad():
        torch.manual_seed(0)
        spread.linear.weight.copy_(torch.randn(32, len(words)) * torch.linspace(0.01, 1, 32).unsqueeze(1) ** 2)
    SentenceTransformer(modules=[BoW(words), spread], device="cpu", similarity_fn_name="cosine").save("backwards")
    write_lines(tmp_path / "t.txt", dict.fromkeys(make_sentences(200, 0)))
    assert main(["inspect", "backwards", "--texts", "t.txt", "--dims", "8", "16", "--k", "5"]) == 0
    command = re.search(r"Next, to find one and append it to the model: hf-mic (.*)$", capsys.readouterr().out, re.M)[1]
    assert command.split() == [
        "adapt",
        "--model",
        "backwards",
        "--texts",
        "t.txt",
        "--output_dir",
        "outputs/backwards_adapted",
    ]
    assert main([*command.split(), "--dims", "8", "16", "--batch_size", "64", "--pool_size", "64", "--steps", "5"]) == 0
    assert SentenceTransformer("outputs/backwards_adapted/model", truncate_dim=8).encode(["fast"]).shape == (1, 8)


def test_verdict_of_a_negative_score():
    scores = [row | {"value": -0.1 * row["dim"]} for row in handmade().scores]
    assert "spearman x 100 is" in verdict(handmade(scores=scores))[-1]


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model_path(make_model, tmp_path) -> str:
    path = tmp_path / "my_model"
    make_model().save(str(path))
    return str(path)


def write_lines(path, lines) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_command_writes_a_whole_report(model_path, texts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = [
        "sentence1\tsentence2\tscore",
        *(f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(zip(texts[:30], texts[30:60], strict=True))),
    ]
    task = write_lines(tmp_path / "mine.tsv", table)
    quick = ["--k", "5", "--n_bootstrap", "20", "--dims", "8", "16", "--device", "cpu"]
    assert main(["inspect", model_path, "--tasks", f"sts={task}", "--html", *quick]) == 0
    folder = tmp_path / "outputs" / "inspect" / "my_model"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"inspection.{end}" for end in ("json", "md", "html")} | {
        f"{name}.png" for name in ("neighbours", "spectra", "geometry", "scores")
    }
    report = json.loads((folder / "inspection.json").read_text())
    assert report["verdict"][0] in capsys.readouterr().out
    assert [row["dim"] for row in report["neighbours"]] == [8, 16, 32]
    assert {row["metric"] for row in report["scores"]} == {"spearman"}
    assert report["model"]["name"] == "my_model"
    assert str(tmp_path) not in (folder / "inspection.md").read_text()
    page = (folder / "inspection.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'src="(?!data:)|href=', page)
    # a second report without tasks and page leaves nothing of the first
    assert main(["inspect", "--model", model_path, "--texts", write_lines(tmp_path / "t.txt", texts), *quick]) == 0
    left = {path.name for path in folder.iterdir()}
    assert left == names - {"scores.png", "inspection.html"}


def test_a_failure_leaves_the_older_report(make_model, texts, tmp_path, monkeypatch):
    found = inspect_model(make_model(), texts, settings=QUICK)
    write_inspection(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("hf_mic.inspection.report.plot_geometry", fail)
    with pytest.raises(OSError, match="disk full"):
        write_inspection(inspect_model(make_model(), texts[:50], settings=QUICK), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_same_input_same_report(make_model, texts):
    settings = InspectionSettings(k=5, max_texts=40)
    first, second = (inspection_json(inspect_model(make_model(), texts, settings=settings)) for _ in range(2))
    assert first["texts"] == {**first["texts"], "given": len(texts), "measured": 40}
    assert first == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "0 distinct texts are too few to compare 10 neighbours"),
        (["--texts", "few.txt"], "3 distinct texts are too few to compare 10 neighbours: give at least 21"),
        (["--texts", "absent.txt"], "absent.txt does not exist"),
        (["--texts", "columns.csv"], "say which of them hold texts"),
        (["--texts", "numbers.jsonl"], "not a text"),
        (["--texts", "few.txt", "--dims", "0"], "dims=[0]: must be distinct"),
        (["--texts", "few.txt", "--precisions", "int4"], "precisions=['int4']: must be distinct, of float32"),
        (["--texts", "few.txt", "--prompt", "a", "--prompt_name", "b"], "give one of them"),
        (["--texts", "few.txt", "--max_texts", "9"], "max_texts=9: must be at least 21"),
        (["--tasks", "sts"], "task='sts': must be one of"),
    ],
)
def test_wrong_input_ends_with_one_message(options, message, model_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "few.txt", ["heart", "rate", "rhythm", "rate"])
    write_lines(tmp_path / "columns.csv", ["first,second", "heart,rate"])
    write_lines(tmp_path / "numbers.jsonl", ['{"text": 3}'])
    assert main(["inspect", model_path, *options, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "outputs").exists()


def test_broken_embeddings_are_named(make_model, texts):
    collapsed, diverged = make_model(), make_model()
    with torch.no_grad():
        for parameter in collapsed.parameters():
            parameter.zero_()
        diverged[0].auto_model.embeddings.word_embeddings.weight[20:].fill_(float("nan"))
    with pytest.raises(InspectionError, match="collapsed"):
        inspect_model(collapsed, texts, settings=QUICK)
    with pytest.raises(ValueError, match="NaN or infinity, the first for"):
        inspect_model(diverged, texts, settings=QUICK)


def test_texts_of_several_files(tmp_path):
    first = write_lines(tmp_path / "a.txt", ["one", "two", "one"])
    second = write_lines(tmp_path / "b.csv", ["question,answer", "two,three", "four,five"])
    assert read_texts([first], None) == ["one", "two"]
    assert read_texts([second], ["answer", "question"]) == ["three", "five", "two", "four"]


def test_default_dims():
    assert default_dims(384) == [8, 16, 32, 64, 128, 256, 384]
    assert default_dims(256, truncate_dim=100) == [8, 16, 32, 64, 100, 128, 256]
    assert default_dims(4) == [4]
    assert default_dims(32, truncate_dim=64) == [8, 16, 32]


def test_page_shows_markdown_and_hides_nothing():
    text = "# A < B\n\n- **bold** `x_1`\n- second\n\n| a | b |\n| --- | --: |\n| 1 & 2 | 3 |\n\n![Pic](p.png)\n\n![Q](q.png)\n\nEnd."
    page = markdown_page(text, title="T", pictures={"p.png": b"\x89PNG"})
    assert "<h1>A &lt; B</h1>" in page
    assert "<ul><li><b>bold</b> <code>x_1</code></li><li>second</li></ul>" in page
    assert '<td>1 &amp; 2</td><td class="number">3</td>' in page
    assert '<img alt="Pic" src="data:image/png;base64,iVBORw==">' in page
    assert '<img alt="Q" src="q.png">' in page
    assert "<p>End.</p>" in page


def test_a_dot_product_model_is_told_what_cosine_does_not_say(make_model, texts):
    model = make_model()
    cautioned = []
    for kind in ("cosine", "dot"):
        model.similarity_fn_name = kind
        cautioned.append(
            any(
                "by dot product, in which its lengths count" in line
                for line in verdict(inspect_model(model, texts, settings=QUICK))
            )
        )
    assert cautioned == [False, True]
    with pytest.raises(TypeError, match="inspect_model takes a SentenceTransformer"):
        inspect_model(torch.nn.Linear(2, 2), texts, settings=QUICK)
