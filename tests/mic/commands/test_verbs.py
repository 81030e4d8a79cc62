"""The command of the package: its verbs, their help without heavy imports, and how wrong input ends."""

import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

import hf_mic
from hf_mic.__main__ import VERBS, main

HEAVY = {"torch", "transformers", "sentence_transformers", "datasets", "sklearn", "matplotlib", "pandas"}


def run_in_new_process(*words):
    code = f"import sys; from hf_mic.__main__ import main\ntry: main({list(words)!r})\nexcept SystemExit: pass\n"
    code += f"print('LOADED', *sorted({sorted(HEAVY)!r} & sys.modules.keys()))".replace("['", "{'").replace("']", "'}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, _, loaded = done.stdout.partition("LOADED")
    return text, loaded.split()


def test_without_words_the_verbs_are_listed():
    text, loaded = run_in_new_process()
    assert loaded == []
    assert all(f"  {verb} " in text for verb in VERBS)
    assert main([]) == main(["--help"]) == 0


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_heavy_imports(verb):
    text, loaded = run_in_new_process(verb, "--help")
    assert loaded == []
    assert f"usage: hf-mic {verb}" in text
    assert f"\n    hf-mic {verb} " in text, "the help shows a command"
    assert "default: None" not in text
    assert ":`" not in text, "no markup of docstrings"
    assert "/work" not in text
    assert ".." + "/" not in text, "no folder of a developer"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_a_module_with_parse_and_main(verb):
    module = import_module(f"hf_mic.commands.{verb.replace('-', '_')}")
    assert list(signature(module.parse).parameters) == ["words"]
    assert module.main.__doc__


def test_unknown_verb(capsys):
    assert main(["evalaute"]) == 2
    message = capsys.readouterr().err
    assert "no verb 'evalaute' (did you mean 'evaluate'?)" in message
    assert all(verb in message for verb in VERBS)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-mic-evl-ecg {hf_mic.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "--mdoel", "x"], "there is no option --mdoel (did you mean '--model'?)"),
        (["train", "--mdoel", "x"], "there is no option --mdoel (did you mean '--model'?)"),
        (["train", "--max_step", "3"], "there is no option --max_step (did you mean '--max_steps'?)"),
    ],
)
def test_a_mistyped_option_is_named_before_a_missing_one(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_settings_may_come_first_where_a_model_may(capsys, tmp_path):
    (tmp_path / "settings.yaml").write_text("model: m\nk: 0\n")
    assert main(["inspect", str(tmp_path / "settings.yaml")]) == 2
    assert "k=0: must be at least 1" in capsys.readouterr().err


def test_what_the_package_refuses_is_one_message(capsys, tmp_path):
    assert main(["report", str(tmp_path / "no.md"), "--name", "x", "--results", "y.json"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    assert main(["report", str(readme), "--name", "x", "--results", "y.json"]) == 2
    assert "must hold the lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b\n", "cannot be read as YAML"),
        ("A plain sentence.\n", "must hold lines of"),
        ("metod: x\n", "no 'metod'"),
    ],
)
@pytest.mark.parametrize("words", [["study"], ["card"], ["adapt"], ["evaluate"], ["train"], ["inspect", "--config"]])
def test_a_file_that_cannot_be_used_is_one_message(words, text, message, capsys, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    assert main([*words, str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}")
    assert message in said


@pytest.mark.parametrize(
    "words",
    [
        ["adapt", "--texts", "texts.txt", "--model"],
        ["evaluate", "--tasks", "sts=pairs.csv", "--models"],
        ["inspect", "--texts", "texts.txt", "--model"],
        ["publish", "--repo_id", "ann/mic", "--model"],
        ["train", "--use_cpu", "--report_to", "none", "--data", "texts.txt", "--model"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_without_an_encoder_is_one_message(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("one\ntwo\nthree\n")
    Path("pairs.csv").write_text("sentence1,sentence2,score\na,b,1\nc,d,2\ne,f,3\n")
    Path("empty").mkdir()
    for folder in ("empty", "absent"):
        assert main([*words, str(tmp_path / folder)]) == 2
        assert f"error: No sentence-transformers model '{tmp_path / folder}' could be loaded" in capsys.readouterr().err


def test_what_the_hub_cannot_do_is_one_message(monkeypatch, capsys, tmp_path, make_model):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make_model().save_pretrained(str(tmp_path / "encoder"), create_model_card=False)
    (tmp_path / "encoder" / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    assert main(["publish", str(tmp_path / "encoder"), "--repo_id", "ann/mic"]) == 2
    message = capsys.readouterr().err
    assert "error: OfflineModeIsEnabled" in message
    assert message.rstrip().endswith("Nothing was sent.")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "hf_mic.evaluation.loading", raising=False)  # another test may have imported it
    assert main(["evaluate", "--models", "m"]) == 2
    message = capsys.readouterr().err
    assert "sentence_transformers is not installed" in message
    assert "pip install 'hf-mic-evl-ecg[mic]'" in message


def test_what_the_hub_refused_is_one_message(monkeypatch, capsys):
    code = compile(
        "raise RuntimeError('the Hub refused')", str(Path(hf_mic.__file__).parent / "hub" / "push.py"), "exec"
    )
    monkeypatch.setattr("hf_mic.commands.report.main", lambda args: exec(code))
    assert main(["report", "a.md", "--name", "x", "--results", "y"]) == 2
    assert "error: the Hub refused" in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def parse(words):
        raise ValueError("of somebody else")

    monkeypatch.setattr("hf_mic.commands.report.parse", parse)
    with pytest.raises(ValueError, match="of somebody else"):
        main(["report"])
