"""The verb study on a tiny encoder and tiny data: complete, resumable, no test text in training."""

import csv
import itertools
import json

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

from hf_mic.__main__ import main as command
from hf_mic.commands.study import completed, is_done, parse, read_plan, settings_of
from hf_mic.runs.study_runs import GEOMETRY, training_data

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=42, max_position_embeddings=32, **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(32), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """The files of the study with random sentences; one STS test sentence also stands in the training data."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)

    def texts(count):
        return [" ".join(rng.choice(WORDS, size=6)) for _ in range(count)]

    def write(name, header, rows):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows([header, *rows])

    scored = texts(24)
    for part in ("train", "dev", "test"):
        first = scored if part == "test" else [*texts(23), scored[0]]
        write(f"stsb/{part}.csv", ["sentence1", "sentence2", "score"], zip(first, texts(24), range(24), strict=True))
    for part in ("train", "test"):
        write(f"classification/banking77/{part}.csv", ["text", "category"], zip(texts(20), "ab" * 10, strict=True))
    for part in ("test", "train"):
        write(f"retrieval/scifact/qrels/{part}.tsv", ["query-id", "corpus-id", "score"], [("q0", "d0", 1)])
    for part, letter in (("corpus", "d"), ("queries", "q")):
        rows = [json.dumps({"_id": f"{letter}{i}", "text": text}) for i, text in enumerate(texts(4))]
        (folder / "retrieval" / "scifact" / f"{part}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder, scored


@pytest.fixture(scope="module")
def plan(repo_root):
    """The reported plan, cut down: two methods, two steps, two dimensions."""
    whole = yaml.safe_load((repo_root / "studies" / "configs" / "mic_minilm.yaml").read_text(encoding="utf-8"))
    methods = {method["name"]: method for method in whole["methods"]}
    small = {"max_steps": 2, "per_device_train_batch_size": 4, "matryoshka_dims": [32, 8], "bf16": False}
    return whole | {
        "training": whole["training"] | small,
        "dims": [8, 32],
        "short_dims": [8],
        "retrieval_seeds": 1,
        "methods": [methods["mrl"] | {"seeds": 2}, methods["mic_distill"] | {"seeds": 1, "short": True}],
        "plot": ["truncation", "pca", "mrl", "mic_distill"],
    }


def test_a_study_runs_in_shards_resumes_and_is_collected(encoder_path, data_folder, plan, tmp_path, capsys):
    def run(*options, changed=plan):
        path = tmp_path / "mic_minilm.yaml"
        path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        given = ["--model", encoder_path, "--data_dir", str(data_folder[0]), "--output_dir", str(tmp_path)]
        assert command(["study", str(path), *given, *options]) == 0

    run("--shard", "0/2")
    assert len(list((tmp_path / "runs").iterdir())) == 2
    run("--shard", "1/2")
    runs = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert set(runs) == {"untrained-0.json", "mrl-0.json", "mrl-1.json", "mic_distill-0.json"}
    run()
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == runs
    slower = {**plan, "training": plan["training"] | {"learning_rate": 1e-3}}
    with pytest.raises(AssertionError):
        run(changed=slower)
    assert "was made with another training" in capsys.readouterr().err
    run("--collect")
    rows = json.loads((tmp_path / "mic_minilm.json").read_text())["rows"]
    seeds = {(row["method"], row["seed"]) for row in rows}
    assert seeds == {("truncation", None), ("pca", None), ("mrl", 0), ("mrl", 1), ("mic_distill", 0)}
    assert {row["dim"] for row in rows if row["method"] == "mic_distill"} == {8}
    assert {(row["method"], row["seed"]) for row in rows if row["task"] == "scifact"} == seeds - {
        ("mrl", 1),
        ("mic_distill", 0),
    }
    assert {row["metric"] for row in rows if row["task"] == "geometry"} <= set(GEOMETRY)
    values = {
        seed: [row["value"] for row in rows if (row["method"], row["seed"]) == ("mrl", seed) and row["task"] == "stsb"]
        for seed in (0, 1)
    }
    assert values[0] != values[1]
    assert (tmp_path / "mic_minilm.png").read_bytes()[:4] == b"\x89PNG"
    assert "| mrl |" in (tmp_path / "mic_minilm.md").read_text()


def test_no_scored_sentence_is_trained_on(data_folder, plan):
    folder, scored = data_folder
    source = plan["data"]["unsupervised"]
    whole = training_data(folder, source, set())
    clean = training_data(folder, source, set(scored))
    assert list(whole) == list(clean) == ["banking77", "stsb"]
    assert scored[0] in whole["stsb"]["anchor"]
    assert not set(scored) & set(itertools.chain(*(part["anchor"] for part in clean.values())))
    assert len(clean["stsb"]) == len(whole["stsb"]) - 1


def test_a_run_of_an_older_version_is_not_repeated(plan, tmp_path):
    whole = completed(plan)
    settings = settings_of(whole, whole["methods"][0], False)
    older = {name: value for name, value in settings.items() if name not in ("model", "tasks", "bf16_scores")}
    for made_with in ({"settings": older}, {}):
        (tmp_path / "run.json").write_text(json.dumps(made_with))
        assert is_done(tmp_path / "run.json", settings)
    (tmp_path / "run.json").write_text(json.dumps({"settings": older | {"dims": [4]}}))
    with pytest.raises(ValueError, match="another dims"):
        is_done(tmp_path / "run.json", settings)


def test_a_damaged_run_is_named(plan, tmp_path):
    whole = completed(plan)
    (tmp_path / "run.json").write_text('{"settings": {"dims"')
    with pytest.raises(ValueError, match=r"run\.json cannot be read as json"):
        is_done(tmp_path / "run.json", settings_of(whole, None, False))


def test_a_run_of_another_model_is_refused(plan, tmp_path):
    whole = completed(plan)
    for method in (None, whole["methods"][0]):
        (tmp_path / "run.json").write_text(json.dumps({"settings": settings_of(whole, method, False)}))
        assert is_done(tmp_path / "run.json", settings_of(whole, method, False))
        with pytest.raises(ValueError, match="another model"):
            is_done(tmp_path / "run.json", settings_of({**whole, "model": "other"}, method, False))


def test_a_plan_needs_only_what_differs_from_the_defaults(tmp_path):
    path = tmp_path / "plan.yaml"
    small = {
        "data": {"own": [{"file": "a.csv", "kind": "pairs"}]},
        "training": {},
        "dims": [4],
        "methods": [{"name": "mrl"}],
    }
    path.write_text(yaml.safe_dump(small))
    plan = read_plan(path)
    assert plan["methods"] == [{"name": "mrl", "method": "mrl", "data": "own", "seeds": 1}]
    assert (plan["short_dims"], plan["plot"], plan["head"]) == ([4], ["truncation", "pca", "mrl"], "none")
    for wrong, message in (
        ({"heads": "none"}, r"no 'heads' \(did you mean 'head'\?\)"),
        ({"data": ["a.csv"]}, "data must map names"),
        ({"training": 3}, "training must map options"),
        ({"methods": ["mrl"]}, "methods must be a list"),
        ({"head": "square"}, "head='square': must be one of"),
        ({"plot": ["x"]}, r"plot names \['x'\]"),
        ({"methods": [{"method": "mic"}]}, "has no name"),
        ({"methods": [{"name": "mic", "data": "other"}]}, "trains on 'other'"),
    ):
        path.write_text(yaml.safe_dump(small | wrong))
        with pytest.raises(ValueError, match=message):
            read_plan(path)
    path.write_text(yaml.safe_dump({"data": {}}))
    with pytest.raises(ValueError, match="'dims', 'methods', 'training' must be given"):
        read_plan(path)
    with pytest.raises(ValueError, match="shard='2/2': must be i/n"):
        parse([str(path), "--shard", "2/2"])
