"""Command lines of the verbs: dataclasses as options, a YAML file of values, help that reads as it was written.

Nothing heavy is loaded, so that ``--help`` answers at once: transformers has such a parser, whose import takes a second.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hf_mic.files import did_you_mean, read_mapping

__all__ = ["HelpFormatter", "make_parser", "parse_options", "read_words", "refuse_unknown", "shorten_usage"]


MANY_OPTIONS = 20
_METAVARS = {int: "N", float: "X", bool: "BOOL"}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written; after each option whether it is required, or its default if there is one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if action.required:
            return f"{text} (required)"
        if default is True:
            return text if action.nargs == 0 else f"{text} (default: True; --no_{action.dest}: False)"
        if default is None or default is False or default in ("", [], argparse.SUPPRESS) or action.nargs == 0:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


def parse_options(
    kinds: Sequence[Any],
    words: Sequence[str],
    description: str | None,
    *,
    prog: str | None = None,
    positional: str | None = None,
    yaml_first: bool = True,
) -> tuple[Any, ...]:
    """Read options; a YAML file, first or after ``--config``, provides values that options replace.

    What there is not is named before what is missing. Options are written out, with _ or - between their words.

    Args:
        kinds: Dataclasses whose fields are the options. Fields may be texts, numbers, bools, lists of them, a Literal of texts, any
            of these or None, and unions that hold ``str``, which get the text of the command line.
        words: The command line, without the name of the program.
        description: Text above the options in the help.
        prog: Name of the program in the help.
        positional: Name of the option that the first word is for, if it is no option: ``inspect MODEL`` is ``inspect --model MODEL``.
        yaml_first: Whether a first word that ends in .yaml or .yml is such a file; False where it is the positional option.

    Returns:
        One instance of each dataclass.

    Raises:
        ValueError: If the file holds no mapping or an option that there is not, or a dataclass refuses a value.
        FileNotFoundError: If there is no such file.
        SystemExit: If the command line cannot be read, with the usual message.

    Example:
        With ``run.yaml`` holding ``gamma: 0.3`` and ``seed: 1``, ``run.yaml --seed 2`` gives gamma 0.3 and seed 2.
    """
    parser = make_parser(kinds, description, prog=prog)
    shorten_usage(parser, positional)
    names = [field.name for kind in kinds for field in fields(kind) if field.init]
    given = read_words(words, names, positional, yaml_first)
    refuse_unknown(parser, given)
    parsed = vars(parser.parse_args(given))
    return tuple(kind(**{field.name: parsed[field.name] for field in fields(kind) if field.init}) for kind in kinds)


def make_parser(
    kinds: Sequence[Any], description: str | None, *, prog: str | None = None, add_help: bool = True
) -> argparse.ArgumentParser:
    """A parser with a group of options for each dataclass, under the first line of its docstring."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=HelpFormatter, add_help=add_help, allow_abbrev=False
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with values of the options below, which replace them."
    )
    for kind in kinds:
        _add_options(parser.add_argument_group(kind.__doc__.split("\n")[0].rstrip(".")), kind)
    shorten_usage(parser)
    return parser


def shorten_usage(parser: argparse.ArgumentParser, positional: str | None = None) -> None:
    """Of many options, name in the usage those that are required: the others stand below, and push an error off the screen.

    Args:
        parser: With all its options.
        positional: As for :func:`parse_options`.
    """
    if len(parser._actions) > MANY_OPTIONS:
        required = argparse.ArgumentParser(prog=parser.prog, add_help=False)
        for action in parser._actions:
            if action.required and action.dest != positional:
                required._add_action(action)
        words = required.format_usage().removeprefix("usage: ").strip().removeprefix(parser.prog)
        needed = any(action.required for action in parser._actions if action.dest == positional)
        first = "[FILE.yaml]" if positional is None else positional.upper() if needed else f"[{positional.upper()}]"
        parser.usage = " ".join(f"{parser.prog} {first}{words} [options]".split())


def refuse_unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with the usual message if a word is an option that there is not; argparse names what is missing before that."""
    known = [name for action in parser._actions for name in action.option_strings]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and " " not in name and name not in known:
            parser.error(f"there is no option {name}{did_you_mean(name, known)}")


def _add_options(parser: argparse._ActionsContainer, kind: Any) -> None:
    """Add an option for each field of a dataclass: its name, type, default and the ``help`` of its metadata."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.init:
            parser.add_argument(f"--{field.name}", **_argument(field, hints[field.name]))
            if hints[field.name] is bool and field.default is True:  # the help of the option itself names this one
                told = field.metadata.get("no_help", argparse.SUPPRESS)
                parser.add_argument(
                    f"--no_{field.name}", dest=field.name, action="store_false", help=told, default=True
                )


def _argument(field: Field, hint: Any) -> dict[str, Any]:
    """Keyword arguments of ``add_argument`` for a field."""
    factory = field.default_factory
    default = field.default if factory is MISSING else factory()
    argument: dict[str, Any] = {"help": field.metadata.get("help")}
    argument |= {"required": True} if default is MISSING else {"default": default}
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not NoneType]
        hint = members[0] if len(members) == 1 else str
    if get_origin(hint) is list:
        argument["nargs"], argument["metavar"], (hint,) = "+", "NAME", get_args(hint)
    if get_origin(hint) is Literal:
        argument["choices"], hint = list(get_args(hint)), str
        argument["metavar"] = "{" + ",".join(argument["choices"]) + "}"
    if hint in _METAVARS:
        argument["metavar"] = _METAVARS[hint]
    if hint is bool:
        return argument | {"type": _truth, "nargs": "?", "const": True}
    return argument | {"type": hint}


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def read_words(
    words: Sequence[str], names: Sequence[str], positional: str | None = None, yaml_first: bool = True
) -> list[str]:
    """Words with those of a YAML file instead of its name, and with the name of the positional option before the first word.

    Args:
        words: The command line. A file stands after ``--config``, or comes first.
        names: Options that a file may hold.
        positional: As for :func:`parse_options`.
        yaml_first: As for :func:`parse_options`.
    """
    given = [part for word in words for part in _parts(word)]
    if yaml_first and given and not given[0].startswith("-") and given[0].endswith((".yaml", ".yml")):
        given = ["--config", *given]
    elif positional and given and not given[0].startswith("-"):
        given = [f"--{positional}", *given]
    if "--config" not in given[:-1]:
        return given
    place = given.index("--config")
    return _values_as_words(read_mapping(given[place + 1], names)) + given[:place] + given[place + 2 :]


def _parts(word: str) -> list[str]:
    """``--image-width=3`` as ``--image_width=3``, and ``--config=FILE`` as two words."""
    if not word.startswith("--") or word == "--help-all":
        return [word]
    name, equals, value = word.partition("=")
    name = f"--{name[2:].replace('-', '_')}"
    return ["--config", value] if name == "--config" and equals else [name + equals + value]


def _values_as_words(values: Mapping[str, Any]) -> list[str]:
    """Values of a YAML file as options of the command line; null leaves an option at its default."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return words
