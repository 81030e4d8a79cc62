"""Command lines of scripts: dataclasses as options, a YAML file of values, help that reads as it was written."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

__all__ = ["HelpFormatter", "parse_options"]


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults after each option, and the description as it is written."""


def parse_options(kinds: Sequence[Any], arguments: Sequence[str], description: str | None) -> tuple[Any, ...]:
    """Read options; a YAML file, first or after ``--config``, provides values that options replace.

    Args:
        kinds: Dataclasses whose fields are the options.
        arguments: The command line, without the name of the script.
        description: Text above the options in the help.

    Returns:
        One instance of each dataclass.

    Raises:
        ValueError: If the file holds no mapping or an option that there is not, or a dataclass refuses a value.
        FileNotFoundError: If there is no such file.
        SystemExit: If the command line cannot be read, with the usual message.

    Example:
        With ``run.yaml`` holding ``gamma: 0.3`` and ``seed: 1``, ``run.yaml --seed 2`` gives gamma 0.3 and seed 2.
    """
    given = list(arguments)
    if given[:1] == ["--config"]:
        given = given[1:]
    if given and given[0].endswith((".yaml", ".yml")):
        names = [field.name for kind in kinds for field in fields(kind) if field.init]
        given = _tokens(_read_values(Path(given[0]), names)) + given[1:]
    parser = HfArgumentParser(kinds, description=description, formatter_class=HelpFormatter)
    *parsed, unknown = parser.parse_args_into_dataclasses(given, return_remaining_strings=True)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return tuple(parsed)


def _read_values(path: Path, names: Sequence[str]) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{path} must hold options, one `name: value` per line; it holds {values!r}.")
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            raise ValueError(
                f"{path}: there is no option {name!r}{f', did you mean {near[0]!r}?' if near else ''} See --help."
            )
    return values


def _tokens(values: Mapping[str, Any]) -> list[str]:
    """Values of a YAML file as options of the command line; null leaves an option at its default."""
    tokens: list[str] = []
    for name, value in values.items():
        if isinstance(value, list):
            tokens += [f"--{name}", *map(str, value)]
        elif value is not None:
            tokens.append(f"--{name}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return tokens
