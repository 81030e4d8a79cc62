"""Options of scripts: a YAML file, options that replace its values, and what is refused."""

import re
from dataclasses import dataclass, field, make_dataclass
from typing import Literal

import pytest

from hf_mic.command_line import options
from hf_mic.command_line.options import parse_options


@dataclass
class First:
    """Some options."""

    name: str = field(metadata={"help": "Name."})
    sizes: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Sizes."})
    columns: str | None = None


@dataclass
class Second:
    """Others."""

    rate: float = 0.5
    fast: bool = False
    safe: bool = field(default=True, metadata={"help": "Careful."})

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0, got {self.rate}")


@pytest.fixture
def parse(tmp_path):
    def run(yaml, *more):
        path = tmp_path / "run.yaml"
        path.write_text(yaml, encoding="utf-8")
        return parse_options((First, Second), [str(path), *more], "What it does.")

    return run


def test_a_file_gives_values_and_options_replace_them(parse):
    first, second = parse(
        "name: a\nsizes: [3, 4]\nrate: 1e-3\nfast: true\nsafe: false\n", "--rate", "2", "--sizes", "5"
    )
    assert (first, second) == (First("a", [5]), Second(2.0, True, False))


def test_every_kind_of_value(parse):
    first, second = parse("name: '- dashes -- and = signs'\ncolumns: {a: [x, 'y z']}\nsizes: [-3]\nrate: null\n")
    assert first == First("- dashes -- and = signs", [-3], '{"a": ["x", "y z"]}')
    assert second == Second()


def test_the_file_may_follow_config_or_be_left_out(tmp_path):
    (tmp_path / "run.yml").write_text("name: a\n", encoding="utf-8")
    assert parse_options([First], ["--config", str(tmp_path / "run.yml")], None) == (First("a"),)
    assert parse_options([First], [f"--config={tmp_path / 'run.yml'}"], None) == (First("a"),)
    assert parse_options([First], ["--name", "b"], None) == (First("b"),)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("", "must hold lines of"),
        ("- name\n", "must hold lines of"),
        ("just words\n", "must hold lines of"),
        ("name: [a\n", "cannot be read as YAML"),
        ("nmae: a\n", r"no 'nmae' \(did you mean 'name'\?\); known are"),
        ("name: a\nzzz: 1\n", "no 'zzz'; known are columns, fast, name"),
        ("name: a\nrate: -1\n", "rate must be >= 0"),
    ],
)
def test_bad_files_are_refused(parse, yaml, message):
    with pytest.raises(ValueError, match=message):
        parse(yaml)


def test_bad_options_end_with_the_usual_message(parse, capsys, tmp_path):
    for more, message in (
        (["--zzz", "3"], "there is no option --zzz\n"),
        (["--rate", "fast"], "--rate"),
        (["--siezs", "3"], "there is no option --siezs (did you mean '--sizes'?)"),
        (["--rat", "3"], "there is no option --rat (did you mean '--rate'?)"),
    ):
        with pytest.raises(SystemExit) as error:
            parse("name: a\n", *more)
        assert error.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):  # the word that was mistyped, not the option that is missing for that reason
        parse_options([First], ["--nmae", "a"], None)
    assert "there is no option --nmae (did you mean '--name'?)" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        parse_options([First], [str(tmp_path / "absent.yaml")], None)


def test_help_keeps_its_layout(capsys):
    with pytest.raises(SystemExit):
        parse_options([First, Every, Second], ["--help"], "One line:\n\n    indented as it is")
    text = capsys.readouterr().out
    assert "\n    indented as it is" in text
    assert "(default: 1 2)" in text
    assert "None" not in text
    for line in (
        "--name NAME Name. (required)",
        "--sizes N [N ...]",
        "--kinds {x,y}",
        "--rates X [X ...]",
        "--fast [BOOL]\n",
    ):
        assert f"\n  {line}" in re.sub("(?<=[A-Z]) {2,}", " ", text)
    assert "Careful. (default: True; --no_safe: False)" in re.sub(r"\s+", " ", text)
    assert "--no_safe " not in text


@dataclass
class Every:
    """Every type of a field."""

    size: int
    kind: Literal["a", "b"] = "a"
    maybe: Literal["c"] | None = None
    count: int | None = None
    rates: list[float] | None = None
    kinds: list[Literal["x", "y"]] = field(default_factory=lambda: ["x"])
    mixed: float | str | None = 0.5
    flag: bool | None = None
    made: int = field(default=0, init=False)


def test_every_type_of_field():
    (found,) = parse_options([Every], ["--size", "3"], None)
    assert found == Every(3)
    words = [
        "--size",
        "3",
        "--kind",
        "b",
        "--maybe",
        "c",
        "--count",
        "4",
        "--rates",
        "1",
        "2e-1",
        "--kinds",
        "y",
        "x",
        "--mixed",
        "auto",
        "--flag",
        "no",
    ]
    (found,) = parse_options([Every], words, None)
    assert found == Every(3, "b", "c", 4, [1.0, 0.2], ["y", "x"], "auto", False)
    assert type(found.rates[0]) is float


@pytest.mark.parametrize(
    ("words", "fast", "safe"),
    [
        ([], False, True),
        (["--fast"], True, True),
        (["--fast", "True", "--safe", "false"], True, False),
        (["--no_safe"], False, False),
        (["--no_safe", "--safe"], False, True),
        (["--no-safe"], False, False),
    ],
)
def test_switches(words, fast, safe):
    (found,) = parse_options([Second], words, None)
    assert (found.fast, found.safe) == (fast, safe)


@pytest.mark.parametrize(
    "words",
    [[], ["--size", "x"], ["--size", "1.5"], ["--size", "3", "--kind", "c"], ["--size", "3", "--flag", "maybe"], ["--size", "3", "--made", "1"]],
)  # fmt: skip
def test_wrong_values_are_refused(words, capsys):
    with pytest.raises(SystemExit) as error:
        parse_options([Every], words, None)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_first_word_may_stand_for_an_option(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("name: a\nsizes: [7]\n", encoding="utf-8")
    plan = {"positional": "name", "yaml_first": False}
    assert parse_options([First], ["b.yaml", "--sizes", "3"], None, **plan) == (First("b.yaml", [3]),)
    assert parse_options([First], [str(file), "--sizes", "3"], None, positional="name") == (First("a", [3]),)
    assert parse_options([First], ["--name", "b"], None, positional="name") == (First("b"),)
    found = parse_options([First], ["b", "--config", str(file)], None, positional="name")
    assert found == (First("b", [7]),)


def test_all_names_exist():
    assert all(hasattr(options, name) for name in options.__all__)


Many = make_dataclass("Many", [("name", str), *((f"option_{i}", int, field(default=0)) for i in range(20))])
Many.__doc__ = "Many options."


@pytest.mark.parametrize(("positional", "usage"), [(None, "tool [FILE.yaml] --name NAME"), ("name", "tool NAME"), ("option_3", "tool [OPTION_3] --name NAME")])  # fmt: skip
def test_usage_of_many_options_names_what_is_required(positional, usage, capsys):
    for words in (["--help"], ["--nmae", "x"]):
        with pytest.raises(SystemExit):
            parse_options([Many], words, None, prog="tool", positional=positional)
        shown = capsys.readouterr()
        assert (shown.out + shown.err).startswith(f"usage: {usage} [options]\n")
        assert ("--option_19 N" in shown.out) is (words == ["--help"])


def test_an_option_that_is_on_may_say_what_turning_it_off_does(capsys):
    hidden = field(default=True, metadata={"help": "Hide it.", "no_help": "Show it to all."})
    with pytest.raises(SystemExit):
        parse_options(
            [make_dataclass("Told", [("hidden", bool, hidden)], namespace={"__doc__": "Told."})], ["--help"], None
        )
    assert re.search(
        r"Hide it. \(default: True; --no_hidden:\s+False\)\n  --no_hidden +Show it to all.\n", capsys.readouterr().out
    )
