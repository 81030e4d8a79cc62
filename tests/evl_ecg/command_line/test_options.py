"""Dataclasses as command lines: every kind of field, YAML before options, training options after one's own; a fast start."""

import importlib
import re
import subprocess
import sys
from dataclasses import dataclass, field, fields
from typing import Literal

import pytest

from hf_evl_ecg.__main__ import VERBS, main
from hf_evl_ecg.command_line import options
from hf_evl_ecg.command_line.parser import option_tokens, parse_arguments
from hf_evl_ecg.drawing.palettes import PALETTES
from hf_evl_ecg.method import AnswerOptions, DistillationOptions, MethodOptions


@dataclass
class Inside:
    """One of each kind."""

    data: str = field(metadata={"help": "A folder."})
    steps: int = 3
    rate: float = field(default=0.5, metadata={"help": "A share, 100 % at most."})
    name: str | None = None
    limit: int | None = None
    draw: bool = field(default=True, metadata={"help": "Draw it."})
    fast: bool = False
    layers: list[int] = field(default_factory=lambda: [-1], metadata={"help": "Of 100 %."})
    labels: list[str] | None = field(default=None, metadata={"help": "About 1 %."})
    kind: Literal["teacher", "student"] = "teacher"


@dataclass
class Asked:
    """What is asked about."""

    record: str = field(metadata={"positional": True})
    again: str = ""


def read(*given: str, kinds=(Inside,)):
    found = parse_arguments(list(given), *kinds, description="What it does.")
    return found if len(kinds) > 1 else found[0]


def test_defaults_and_required():
    assert read("--data", "d") == Inside("d")
    with pytest.raises(SystemExit) as ended:
        read("--steps", "1")
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--steps", "7"], "steps", 7),
        (["--rate", "1e-3"], "rate", 1e-3),
        (["--limit", "2"], "limit", 2),
        (["--name", "x"], "name", "x"),
        (["--name=a-b"], "name", "a-b"),
        (["--no_draw"], "draw", False),
        (["--fast", "--no_fast"], "fast", False),
        (["--no-draw"], "draw", False),
        (["--draw", "False"], "draw", False),
        (["--draw"], "draw", True),
        (["--fast"], "fast", True),
        (["--fast", "yes"], "fast", True),
        (["--fast", "0"], "fast", False),
        (["--layers", "-1", "4"], "layers", [-1, 4]),
        (["--labels", "AF", "I-AVB"], "labels", ["AF", "I-AVB"]),
        (["--kind", "student"], "kind", "student"),
    ],
)
def test_every_kind_of_field(given, name, value):
    assert getattr(read("--data", "d", *given), name) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--kind", "other"], "invalid choice"),
        (["--fast", "perhaps"], "true or false"),
        (["--steps", "many"], "invalid int"),
        (["--step", "1"], "--step: no such option (did you mean --steps?)"),
        (["--zzz=1"], "--zzz: no such option (see --help)"),
    ],
)
def test_wrong_values_are_refused(given, message, capsys):
    with pytest.raises(SystemExit) as ended:
        read("--data", "d", *given)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_yaml_file_comes_before_options(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: d\nsteps: 9\nrate: 2.0e-5\ndraw: false\nlayers: [1, 2]\nname:\n")
    for given in ([str(path)], ["--config", str(path)], [f"--config={path}"]):
        assert read(*given) == Inside("d", 9, 2e-5, draw=False, layers=[1, 2])
        assert read(*given, "--steps", "1", "--draw").steps == 1
        assert read(*given, "--steps", "1", "--draw").draw
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected lines of NAME: VALUE, got list"):
        read(str(path))
    assert option_tokens({"a": {"b": 1}, "c": True}) == ["--a", '{"b": 1}', "--c", "True"]


def test_leading_words(tmp_path):
    asked, inside = read("rec.yaml", "--data", "d", kinds=(Asked, Inside))
    assert (asked.record, inside.data) == ("rec.yaml", "d")
    assert read("--record", "r", "--again", "x", kinds=(Asked,)) == Asked("r", "x")
    path = tmp_path / "asked.yaml"
    path.write_text("record: r\nagain: x\n")
    assert read("--config", str(path), kinds=(Asked,)) == Asked("r", "x")
    assert read("q", "--config", str(path), kinds=(Asked,)) == Asked("q", "x")


def test_training_arguments_read_what_is_left_over(tmp_path, capsys):
    from hf_evl_ecg import EVLECGConfig

    called = []

    def training():
        called.append(1)
        return EVLECGConfig

    given = ["--output_dir", str(tmp_path), "--learning-rate", "0.25", "--alpha", "0.25", "--data", "d", "--use_cpu"]
    inside, config = parse_arguments([*given, "--steps", "4"], Inside, description=None, training=training)
    assert (inside.steps, config.learning_rate, config.alpha) == (4, 0.25, 0.25)
    called.clear()
    with pytest.raises(SystemExit):
        parse_arguments(["--help"], Inside, description=None, training=training)
    assert not called
    text = capsys.readouterr().out
    assert "--help-all" in text
    assert text.index("--labels NAME") < text.index("  --alpha X")
    assert "--learning_rate" not in text
    with pytest.raises(SystemExit):
        parse_arguments(["--help-all"], Inside, description=None, training=training)
    text = capsys.readouterr().out
    assert text.index("--labels NAME") < text.index("  --alpha X") < text.index("  --learning_rate")
    assert text.count("  --alpha ") == 1
    assert re.match(r"usage: \S+ --data DATA \[options\]\n", text)
    assert "Set dataloader_pin_memory to False." in text  # and not what the option that is turned off does
    assert "default: None" not in text
    assert re.search(r"--remove_unused_columns [^(]*\(default: True\)", text) is None, "EVLECGConfig's own default"
    with pytest.raises(SystemExit):
        parse_arguments([*given, "--learning_rat", "1"], Inside, description=None, training=training)
    assert "--learning_rat: no such option (did you mean --learning_rate?)" in capsys.readouterr().err


def test_an_option_that_there_is_not_is_named_before_those_that_are_missing(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("dta: d\n")
    for given, message in ((["--dta", "d"], "error: --dta: no such"), ([str(path)], f"error: {path}: --dta: no such")):
        with pytest.raises(SystemExit):
            read(*given)
        assert message in capsys.readouterr().err
    for verb, given in (("teach", ["--lambda_ot", "1"]), ("teach", ["--alpha", "0"]), ("export", ["--augment", "0.5"])):
        with pytest.raises(SystemExit):
            main([verb, *given])
        assert f"{given[0]}: no such option" in capsys.readouterr().err


def test_teach_shows_what_has_an_effect(capsys):
    with pytest.raises(SystemExit):
        main(["teach", "--help"])
    text = capsys.readouterr().out
    assert "--max_length" in text
    assert not re.search(
        r"--(alpha|lambda_|mhca_|ot_|relation_|uld_|hidden_tokens|teacher_|aligner_|student_layer)", text
    )
    names = [{option.name for option in fields(kind)} for kind in (AnswerOptions, DistillationOptions, MethodOptions)]
    assert names[0] | names[1] == names[2]
    assert not names[0] & names[1]


def test_help_says_what_matters(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert "A folder. (required)" in text
    assert "100 % at most. (default: 0.5)" in text
    assert "(default: -1)" in text
    assert "Draw it. (default: True; --no_draw: False)" in " ".join(text.split())
    assert "None" not in text
    assert "One of each kind" in text
    assert "--no_NAME stands for --NAME false" in " ".join(text.split())


# ---- the command -----------------------------------------------------------------------------------------------------


def test_without_words_it_names_the_verbs(capsys):
    assert main([]) == main(["help"]) == 0
    out, again = capsys.readouterr().out.split("Usage: ")[1:]
    assert out == again
    assert main(["--version"]) == 0
    assert re.fullmatch(r"hf-mic-evl-ecg \d[\w.]+\n", capsys.readouterr().out)
    for verb in VERBS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [verb]]
        assert len(line.split()) > 3
    assert main(["explain"]) == 2
    err = capsys.readouterr().err
    assert "explain: no such verb" in err
    assert all(verb in err for verb in VERBS)
    assert main(["distill"]) == 2
    assert "did you mean distil?" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "extras"), [("gradio", "ecg,app"), ("peft", "ecg")])
def test_what_is_not_installed_is_named(module, extras, monkeypatch, capsys):
    def run(arguments, prog):
        monkeypatch.setitem(sys.modules, module, None)
        __import__(module)

    monkeypatch.setattr("hf_evl_ecg.commands.app.command", run)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == f"error: {module} is not installed (pip install 'hf-mic-evl-ecg[{extras}]')\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert f"hf-evl-ecg {verb}" in text.split("\n\n")[0]
    assert "default: None" not in text
    assert not re.search(r"/(home|work|tmp|root|Users)/", text)


def test_no_help_waits_for_torch():
    """In one new process: each verb's help, and what was imported by then."""
    code = (
        "import contextlib, io, sys\nfrom hf_evl_ecg.__main__ import VERBS, main\n"
        "for verb in VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([verb, '--help'])\n"
        "print(*sorted({'torch', 'transformers', 'datasets', 'pandas', 'gradio', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_image_options_reach_the_page():
    image = options.ImageOptions(448, 224, "6x2", "thick", "blue", False, "clamp", 0.5, -1)
    config = image.config()
    assert (config.width_px, config.height_px, config.layout.name, config.grid) == (448, 224, "6x2", "thick")
    assert (config.palette, config.footer, config.overflow) == (PALETTES["blue"], False, "clamp")
    assert image.renderer() == options.PageOptions(448, 224, "6x2", "thick", "blue", False, "clamp").renderer()
    assert image.renderer().augment is None
    assert image.training_renderer().augment.probability == 0.5
    assert image.training_renderer().seed is None
    assert options.ImageOptions(image_seed=3).training_renderer().seed == 3
    assert len(fields(image)) == 9, "a new option needs a line here"


def test_a_fault_of_the_program_shows_its_place(monkeypatch, capsys):
    """A refusal is one line; a failure deep in a training is not reduced to one."""
    command_line = importlib.import_module("hf_evl_ecg.__main__")
    card = importlib.import_module("hf_evl_ecg.commands.card")
    assert command_line.main(["card", "no-such-spec.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    monkeypatch.setattr(card, "command", lambda arguments, prog: int("half"))
    with pytest.raises(ValueError, match="half"):
        command_line.main(["card"])
