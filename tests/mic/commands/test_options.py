"""Options of scripts: a YAML file, options that replace its values, and what is refused."""

from dataclasses import dataclass, field

import pytest

from hf_mic import options
from hf_mic.commands.options import parse_options


@dataclass
class First:
    """Some options."""

    name: str
    sizes: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Sizes."})
    columns: str | None = None


@dataclass
class Second:
    """Others."""

    rate: float = 0.5
    fast: bool = False
    safe: bool = True

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
    assert parse_options([First], ["--name", "b"], None) == (First("b"),)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("", "must hold options"),
        ("- name\n", "must hold options"),
        ("just words\n", "must hold options"),
        ("name: [a\n", "cannot be read as YAML"),
        ("nmae: a\n", "no option 'nmae', did you mean 'name'"),
        ("name: a\nzzz: 1\n", "no option 'zzz' See --help"),
        ("name: a\nrate: -1\n", "rate must be >= 0"),
    ],
)
def test_bad_files_are_refused(parse, yaml, message):
    with pytest.raises(ValueError, match=message):
        parse(yaml)


def test_bad_options_end_with_the_usual_message(parse, capsys, tmp_path):
    for more, message in (
        (["--nonsense", "3"], "unrecognized arguments: --nonsense 3"),
        (["--rate", "fast"], "--rate"),
    ):
        with pytest.raises(SystemExit) as error:
            parse("name: a\n", *more)
        assert error.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        parse_options([First], [str(tmp_path / "absent.yaml")], None)


def test_help_keeps_its_layout(capsys):
    with pytest.raises(SystemExit):
        parse_options([First], ["--help"], "One line:\n\n    indented as it is")
    text = capsys.readouterr().out
    assert "\n    indented as it is" in text
    assert "(default: [1, 2])" in text


def test_all_names_exist():
    assert all(hasattr(options, name) for name in options.__all__)
