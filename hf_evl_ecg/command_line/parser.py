"""Command lines of the verbs: dataclasses as options, values of a YAML file before them, help that starts at once."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from hf_evl_ecg.files import read_mapping
from hf_evl_ecg.method import DistillationOptions, MethodOptions

__all__ = ["HelpFormatter", "option_tokens", "parse_arguments"]

MANY_OPTIONS = 20
_METAVARS = {int: "N", float: "X", bool: "BOOL"}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "1", "on"), True),
    **dict.fromkeys(("false", "no", "0", "off"), False),
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and after each option its default, unless that is nothing."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = (action.help or "").replace("%", "%%"), action.default  # argparse fills in %(names)s
        if action.required:
            return f"{text} (required)"
        if default is True:
            return text if action.nargs == 0 else f"{text} (default: True; --no_{action.dest}: False)"
        unsaid: tuple[Any, ...] = (None, "", [], argparse.SUPPRESS)
        if default is False or any(default == nothing for nothing in unsaid) or action.nargs == 0:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


def parse_arguments(
    arguments: Sequence[str] | None,
    *kinds: type,
    description: str | None,
    prog: str | None = None,
    training: Callable[[], type] | None = None,
    method: type = MethodOptions,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Any, ...]:
    """Read a command line into dataclasses.

    A YAML file after ``--config`` provides values that options replace. Leading words are the values of fields with
    ``metadata["positional"]``; where there are none, the file may stand first without ``--config``.

    Args:
        arguments: Words of the command line; None: those this process was started with.
        kinds: Dataclasses whose fields are the options.
        description: What ``--help`` says first.
        prog: Name of the command.
        training: Returns `EVLECGConfig` or a subclass, which reads what is left over. It is called only once all other options
            have been read: importing it takes seconds.
        method: The fields of it that --help shows without importing it; those of distillation that it lacks are refused.
        presets: Values of options by the name that ``--method`` has; those of the YAML file and those given replace them.

    Returns:
        One object for each dataclass, the training arguments last.
    """
    file, values, words = _expand(list(sys.argv[1:] if arguments is None else arguments), kinds)
    preset = option_tokens(_preset([*values, *words], presets or {}))
    about: dict[str, Any] = {"description": description, "prog": prog}
    parser = _parser(kinds, add_help=training is None, **about)
    known = _names(*kinds) | {"config", "help", "help-all"}
    if training is None:
        _refuse_unknown(parser, known, file, values, words)
        return _objects(kinds, vars(parser.parse_args([*values, *words])))
    helps = {
        "-h": lambda: _parser((*kinds, method), whole=True, **about),
        "--help-all": lambda: _whole_parser((*kinds, method), training(), **about),
    }
    for name, shown in helps.items():
        names = ("-h", "--help") if name == "-h" else (name,)
        parser.add_argument(*names, action=_ShowHelp, shown=shown)
    if not {"-h", "--help", "--help-all"} & set(words):
        without = _names(DistillationOptions) - _names(method)
        _refuse_unknown(parser, known | _names(method), file, values, words, lambda: _names(training()) - without)
    found, rest = parser.parse_known_args([*preset, *values, *words])
    from transformers import HfArgumentParser

    reader = HfArgumentParser(training(), allow_abbrev=False)  # type: ignore[arg-type]  # its hint asks for a type of its own
    config, unknown = reader.parse_args_into_dataclasses(rest, return_remaining_strings=True, look_for_args_file=False)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return (*_objects(kinds, vars(found)), config)


def option_tokens(values: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line; those that are None are left out.

    Example:
        >>> option_tokens({"data": "questions", "layers": [-1, 4], "seed": None})
        ['--data', 'questions', '--layers', '-1', '4']
    """
    tokens: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            tokens += [f"--{name}", json.dumps(value)]
        elif value is not None:
            tokens += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return tokens


class _ShowHelp(argparse.Action):
    """Print the help of another parser, which is made only now."""

    def __init__(self, *, shown: Callable[[], argparse.ArgumentParser], **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)
        self.shown = shown

    def __call__(self, *_: Any) -> NoReturn:
        self.shown().print_help()
        raise SystemExit(0)


def _parser(
    kinds: Sequence[type], *, add_help: bool = True, whole: bool = False, **about: Any
) -> argparse.ArgumentParser:
    """A parser with a group of options for each dataclass; ``whole``: there are more, which --help-all shows."""
    # No abbreviations: a shortened training option must not be read as one of the verb's own.
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter, add_help=add_help, allow_abbrev=False, **about)
    # Shown here, and read before this parser is made.
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with values of options; those given here replace them."
    )
    for kind in kinds:
        group = parser.add_argument_group(
            (kind.__doc__ or kind.__name__).partition("\n")[0].partition(":")[0].rstrip(".")
        )
        hints = get_type_hints(kind)
        for option in fields(kind):
            _add_option(group, option, hints[option.name])
            if hints[option.name] is bool:
                parser.epilog = "BOOL is true or false, and true if it is left out; --no_NAME stands for --NAME false."
    if whole:
        parser.add_argument(
            "--help-all", action="store_true", help="show the training options of transformers too, and exit"
        )
    _shorten_usage(parser)
    return parser


def _shorten_usage(parser: argparse.ArgumentParser) -> None:
    """Of many options, name in the usage those that are required: the others stand below, and push an error off the screen."""
    if len(parser._actions) > MANY_OPTIONS:
        required = argparse.ArgumentParser(prog=parser.prog, add_help=False)
        for action in parser._actions:
            if action.required or not action.option_strings:
                required._add_action(action)
        parser.usage = " ".join(f"{required.format_usage().removeprefix('usage: ').strip()} [options]".split())


def _whole_parser(kinds: Sequence[type], training: type, **about: Any) -> argparse.ArgumentParser:
    """A parser that shows, and does not read, own options first and those of transformers after them."""
    from transformers import HfArgumentParser, TrainingArguments

    inherited = HfArgumentParser(TrainingArguments, add_help=False)  # type: ignore[arg-type]
    inherited._optionals.title = "Training options of transformers"
    inherited.set_defaults(
        **{option.name: option.default for option in fields(training) if option.default is not MISSING}
    )
    for action in inherited._actions:
        if action.option_strings[0].startswith(
            "--no_"
        ):  # HfArgumentParser repeats the help of the option that is turned off
            action.help = f"Set {action.dest} to False."
    parents = [_parser(kinds, add_help=False), inherited]
    parser = argparse.ArgumentParser(parents=parents, formatter_class=HelpFormatter, **about)
    _shorten_usage(parser)
    return parser


def _expand(words: list[str], kinds: Sequence[type]) -> tuple[str, list[str], list[str]]:
    """A YAML file (empty: none), its values as options, and all other words; leading words as options too."""
    positional = [option.name for kind in kinds for option in fields(kind) if option.metadata.get("positional")]
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if not positional and words and words[0].endswith((".yaml", ".yml")):
        words = ["--config", *words]
    file, values = "", []
    if "--config" in words[:-1]:
        place = words.index("--config")
        file, words = words[place + 1], words[:place] + words[place + 2 :]
        values = [_underscored(word) for word in option_tokens(read_mapping(file))]
    for name in positional:
        if words and not words[0].startswith("-"):
            words = [*words[1:], f"--{name}", words[0]]
    return file, values, [_underscored(word) for word in words]


def _preset(words: Sequence[str], presets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The preset that the last ``--method`` names; nothing if there is none of that name, which the option itself refuses."""
    named = [word.partition("=") for word in words]
    after = [*words[1:], ""]
    chosen = [value if equals else after[at] for at, (name, equals, value) in enumerate(named) if name == "--method"]
    return presets.get(chosen[-1], {}) if chosen else {}


def _names(*kinds: type) -> set[str]:
    names = {option.name for kind in kinds for option in fields(kind)}
    return names | {f"no_{name}" for name in names}


def _refuse_unknown(
    parser: argparse.ArgumentParser,
    known: set[str],
    file: str,
    values: Sequence[str],
    words: Sequence[str],
    more: Callable[[], set[str]] | None = None,
) -> None:
    """Name an option that there is not, before argparse says which ones are missing; ``more`` adds to those known."""
    for where, given in ((f"{file}: ", values), ("", words)):
        for name in (word[2:].partition("=")[0] for word in given if word.startswith("--")):
            if name not in known and more is not None:
                known, more = known | more(), None
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), 1)
                hint = f"did you mean --{near[0]}?" if near else "see --help"
                parser.error(f"{where}--{name}: no such option ({hint})")


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    dashed = word.startswith("--") and name != "--help-all"
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if dashed else word


def _add_option(group: argparse._ArgumentGroup, option: Field[Any], hint: Any) -> None:
    """One field as an option: numbers, texts, paths, bool, Literal, lists of them, each possibly None."""
    settings: dict[str, Any] = {"help": option.metadata.get("help", "")}
    if option.default is not MISSING:
        settings["default"] = option.default
    elif option.default_factory is not MISSING:
        settings["default"] = option.default_factory()
    else:
        settings["required"] = True
    kind = _without_none(hint)
    if get_origin(kind) is list:
        kind, settings["nargs"], settings["metavar"] = get_args(kind)[0], "+", "NAME"
    if get_origin(kind) is Literal:
        settings["choices"] = get_args(kind)
    elif kind is bool:
        settings |= {"type": _boolean, "nargs": "?", "const": True}
    else:
        settings["type"] = kind
    if kind in _METAVARS:
        settings["metavar"] = _METAVARS[kind]
    group.add_argument(f"--{option.name}", **settings)
    if kind is bool:  # also where False is the default: a YAML file may say True
        unset: dict[str, Any] = {"dest": option.name, "action": "store_false", "default": option.default}
        group.add_argument(f"--no_{option.name}", **unset, help=option.metadata.get("no_help", argparse.SUPPRESS))


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))  # Optional alone: a text is one type
    return hint


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r}: true or false is allowed")
    return _BOOLEANS[text.lower()]


def _objects(kinds: Sequence[type], values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(kind(**{option.name: values[option.name] for option in fields(kind)}) for kind in kinds)
