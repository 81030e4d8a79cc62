"""The verb train: options, every method, unsupervised data, a dense head, two processes, a complete result."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_mic.commands.train import main, parse
from hf_mic.hub.legacy_modules import has_legacy_modules
from hf_mic.runs.training_run import load_data, warn_about_single_process

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "mic" / "train.py"
WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> str:
    """An encoder of 4 layers and width 32 that ends in Normalize, without dropout."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(
        BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes, **no_dropout)
    ).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def write_csv(path: Path, header: list[str], rows) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=6)) for _ in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    a, b = sentences(32, 0), sentences(32, 1)
    labels = [("first" if i % 2 else "second") for i in range(32)]
    return {
        "pairs": write_csv(folder / "pairs.csv", ["question", "answer"], zip(a, b)),
        "scored": write_csv(
            folder / "scored.csv", ["sentence1", "sentence2", "score"], zip(a, b, [i % 6 for i in range(32)])
        ),
        "labelled": write_csv(folder / "labelled.csv", ["text", "label"], zip(a, labels)),
        "texts": write_csv(folder / "texts.csv", ["text"], zip(sentences(32, 2))),
    }


COLUMNS = '{"anchor": "question", "positive": "answer"}'


def options(model_path, output, *more) -> list[str]:
    common = [
        "--model",
        model_path,
        "--output_dir",
        str(output),
        "--report_to",
        "none",
        "--use_cpu",
        "--disable_tqdm",
        "True",
    ]
    return [*common, "--per_device_train_batch_size", "8", "--max_steps", "2", "--save_strategy", "no", *map(str, more)]


# ---- options --------------------------------------------------------------------------------------------------------


def test_yaml_values_are_replaced_by_options(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: m\ndata: [a.csv, b.csv]\ncolumns: {anchor: q, positive: a}\noutput_dir: out\ngamma: 0.3\nunsupervised: false\n"
        "layer_dims: {2: [4]}\nreport_to: none\nuse_cpu: true\n"
    )
    for given in ([str(config)], ["--config", str(config)]):
        what, training = parse([*given, "--gamma", "0.7", "--method", "mrl"])
        assert (what.model, what.data, what.method) == ("m", ["a.csv", "b.csv"], "mrl")
        assert what.columns == {"anchor": "q", "positive": "a"}
        assert what.unsupervised is False
        assert (training.gamma, training.layer_dims, training.output_dir) == (0.7, {2: [4]}, "out")


@pytest.mark.parametrize("name", ["mic_pairs", "mic_unsupervised"])
def test_the_configs_parse(repo_root, name):
    what, training = parse([str(repo_root / "examples" / "configs" / f"{name}.yaml"), "--use_cpu"])
    assert what.method == "mic"
    assert training.output_dir == f"outputs/{name}"


def test_help_lists_own_options_first_and_all_if_asked(capsys):
    texts = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            parse([option])
        texts[option] = capsys.readouterr().out
        assert "default: None" not in texts[option]
        assert texts[option].startswith(
            "usage: hf-mic train [FILE.yaml] --model MODEL --data NAME [NAME ...] [options]\n"
        )
    assert len(texts["--help"].splitlines()) < 200
    text = texts["--help-all"]
    assert "Set dataloader_pin_memory to False." in text  # and not what the option that is turned off does
    assert text.index("  --dense_head") < text.index("  --gamma GAMMA") < text.index("  --max_steps")
    assert "  --max_steps" not in texts["--help"]
    for part in ("accelerate launch --num_processes", "--dense_head", "--gamma_warmup_steps", "SimCSE", "--reg_dims"):
        assert part in texts["--help"]
        assert part in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kinds", "pairs", "pairs", "pairs"], "one per source"),
        (["--kinds", "pairs", "--unsupervised"], "leave --kinds out"),
        (["--score_range", "5"], "two numbers"),
        (["--head_learning_rate", "0"], "head_learning_rate"),
        (["--columns", "[1]"], "mapping"),
        (["--columns", "{bad"], "mapping"),
    ],
)
def test_contradictions_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        parse(["--model", "m", "--data", "a.csv", "b.csv", "--use_cpu", "--report_to", "none", *more])


def test_bad_data_are_refused_with_the_reason(model_path, files, tmp_path):
    with pytest.raises(ValueError, match="question"):
        main(*parse(options(model_path, tmp_path, "--data", files["pairs"])))
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        main(*parse(options(model_path, tmp_path, "--data", "missing.csv")))
    given = ["--data", files["scored"], "--matryoshka_dims", 64, 8]
    with pytest.raises(ValueError, match="matryoshka_dims=64: must lie in"):
        main(*parse(options(model_path, tmp_path, *given)))


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_complete(model_path, files, tmp_path):
    tasks = [f"sts={files['scored']}", f"classification={files['labelled']},{files['labelled']}"]
    more = ["--data", files["pairs"], "--columns", COLUMNS, "--eval_tasks", *tasks, "--n_bootstrap", 10, "--seed", 5]
    results = main(*parse(options(model_path, tmp_path, *more)))
    assert {row["method"] for row in results["rows"]} == {"truncation", "mic"}
    assert {row["dim"] for row in results["rows"]} == {8, 16, 32}
    assert {row["seed"] for row in results["rows"]} == {None, 5}
    assert json.loads((tmp_path / "mic_train.json").read_text())["config"]["training"]["gamma"] == 0.1
    assert (tmp_path / "mic_train.png").read_bytes()[:4] == b"\x89PNG"
    assert "| truncation |" in (tmp_path / "mic_train.md").read_text()
    card = (tmp_path / "README.md").read_text()
    assert "#### pairs" in card
    assert "This model is `mic`" in card
    assert "<!--" not in card
    assert len(ModelCard.load(tmp_path / "README.md").data.eval_results) == 9
    assert not list(tmp_path.rglob("training_args.bin"))
    start, trained = SentenceTransformer(model_path), SentenceTransformer(str(tmp_path), truncate_dim=8)
    assert trained.encode(["w1 w2"]).shape == (1, 8)
    assert not np.allclose(trained.encode(["w1 w2"]), start.encode(["w1 w2"])[:, :8], atol=1e-6)


@pytest.mark.parametrize("method", ["mrl", "simcse", "ese", "matryoshka2d", "gor"])
def test_every_method_trains(model_path, files, tmp_path, method):
    more = ["--data", files["pairs"], "--columns", COLUMNS, "--method", method, "--learning_rate", "0.01"]
    assert main(*parse(options(model_path, tmp_path, *more))) is None
    before, after = (load_file(Path(path, "model.safetensors")) for path in (model_path, tmp_path))
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert "No scores by dimension were measured" in (tmp_path / "README.md").read_text()


def test_the_card_of_an_unsupervised_run_compares_no_text_with_itself(model_path, files, tmp_path):
    """Each sentence is its own positive, so the host's examples hold it twice, with a similarity of 1."""
    main(*parse(options(model_path, tmp_path, "--data", files["texts"], "--unsupervised", "--base_model", "ann/start")))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.widget
    for example in card.data.widget:
        assert example["source_sentence"] not in example["sentences"]
        assert len(set(example["sentences"])) == len(example["sentences"]) > 0
    shown = re.search(r"sentences = \[\n(.*?)\n\]", card.text, re.DOTALL)[1].splitlines()
    assert len(set(shown)) == len(shown) > 1
    assert card.data.base_model == "ann/start"
    assert "Base model:** [ann/start](https://huggingface.co/ann/start)" in card.text


def test_unsupervised_takes_the_sentences_of_all_columns(files):
    given = [
        "--model",
        "m",
        "--data",
        files["scored"],
        files["texts"],
        "--unsupervised",
        "--use_cpu",
        "--report_to",
        "none",
    ]
    parts = load_data(parse(given)[0])
    assert list(parts) == ["scored", "texts"]
    assert len(parts["scored"]) == 64
    assert len(parts["texts"]) == 32
    for part in parts.values():
        assert part["anchor"] == part["positive"]
    named = parse([*given[:3], files["pairs"], *given[5:], "--columns", COLUMNS])[0]
    assert len(load_data(named)["pairs"]) == 64


def test_a_launch_that_started_one_process_only_is_told(monkeypatch, caplog):
    """accelerate launch --cpu --num_processes 2 sets an address, but starts one process when there is no MPI."""
    for name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    warn_about_single_process()
    assert not caplog.records
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    warn_about_single_process()
    assert "accelerate launch --multi_gpu" in caplog.text


def test_several_kinds_train_together(model_path, files, tmp_path):
    more = ["--data", files["texts"], files["scored"], "--kinds", "single", "scored", "--score_range", 0, 5]
    main(*parse(options(model_path, tmp_path, *more)))
    card = (tmp_path / "README.md").read_text()
    assert "Data set `texts`: Trained with MIC" in card
    assert "CoSENTLoss" in card


@pytest.mark.parametrize("kind", ["linear", "orthogonal"])
def test_the_dense_head_starts_as_identity_and_trains_at_its_own_rate(model_path, files, tmp_path, kind):
    more = [
        "--data",
        files["scored"],
        "--dense_head",
        kind,
        "--head_learning_rate",
        "0.05",
        "--learning_rate",
        "0",
        *(["--legacy_modules"] if kind == "linear" else []),
    ]
    what, training = parse(options(model_path, tmp_path, *more))
    start, texts = SentenceTransformer(model_path), sentences(4, 9)
    main(what, training)
    saved = SentenceTransformer(str(tmp_path))
    assert has_legacy_modules(tmp_path) == (kind == "linear")
    assert [type(module).__name__ for module in saved] == ["Transformer", "Pooling", "Dense", "Normalize"]
    for name, value in start[0].state_dict().items():
        assert torch.equal(saved[0].state_dict()[name], value)
    shift = (saved[2].linear.weight - torch.eye(32)).abs().max().item()
    assert 0.01 < shift < (0.2 if kind == "linear" else 2)
    weight = saved[2].linear.weight
    assert torch.allclose(weight @ weight.T, torch.eye(32), atol=1e-4) == (kind == "orthogonal")
    pooled = start[1](start[0](start.preprocess(texts)))["sentence_embedding"]
    expected = torch.nn.functional.normalize(pooled @ saved[2].linear.weight.T, dim=1)
    assert np.allclose(saved.encode(texts), expected.detach().numpy(), atol=1e-5)


def test_resume_takes_the_last_checkpoint_or_starts_anew(model_path, files, tmp_path):
    more = ["--data", files["scored"], "--resume_from_checkpoint", "last"]
    given = options(model_path, tmp_path, *more)
    given[given.index("no", given.index("--save_strategy"))] = "steps"
    main(*parse([*given, "--save_steps", "1"]))
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    main(*parse([*given, "--save_steps", "1", "--max_steps", "3"]))
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "train_runtime" not in entry][-1:] in ([], [3])
    assert state["global_step"] == 3


def launch(arguments: list[str], processes: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*command, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_two_processes_equal_one_with_the_whole_batch(model_path, files, tmp_path):
    """The same command under accelerate launch; plain SGD, so that weights differ as gradients do."""
    more = [
        "--data",
        files["pairs"],
        "--columns",
        COLUMNS,
        "--gather_across_devices",
        "--optim",
        "sgd",
        "--learning_rate",
        "0.05",
    ]
    main(*parse([*options(model_path, tmp_path / "one", *more), "--per_device_train_batch_size", "8"]))
    launch([*options(model_path, tmp_path / "two", *more), "--per_device_train_batch_size", "4"], processes=2)
    start, one, two = (
        load_file(Path(path, "model.safetensors")) for path in (model_path, tmp_path / "one", tmp_path / "two")
    )
    moved = max((one[name] - value).abs().max().item() for name, value in start.items())
    apart = max((one[name] - two[name]).abs().max().item() for name in start)
    assert moved > 1e-3
    assert apart < 0.01 * moved
    assert "<!--" not in (tmp_path / "two" / "README.md").read_text()
