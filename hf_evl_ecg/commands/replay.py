"""Compute every number of a results json again from the answers that are kept beside it: no model, no picture, no recording.

    hf-evl-ecg replay model_cards/results/ecg_small.json
    hf-evl-ecg replay model_cards/results/ecg_small.json --names evl_ecg-all

Ends with status 2 and names the first number that differs. Takes seconds for a method and minutes for all of a study, most of them for the
resamples that intervals are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["ReplayArguments", "command", "main"]


@dataclass
class ReplayArguments:
    """Which results, from which answers."""

    results: str = field(metadata={"help": "Results json; may stand first, without --results.", "positional": True})
    answers: str | None = field(
        default=None, metadata={"help": "Folder of the packed answers; default: beside the json, as STUDY_answers."}
    )
    names: list[str] | None = field(
        default=None, metadata={"help": "Only these methods, or single runs as METHOD_SEED; default: all."}
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, ReplayArguments, description=__doc__, prog=prog))


def main(args: ReplayArguments) -> int:
    """Compute and compare.

    Returns:
        How many rows are as they stand in the results.

    Raises:
        ReplayError: One is not.
        ArchiveError: The answers are missing or damaged.
    """
    from hf_evl_ecg.scores.replay import replay

    path = Path(args.results)
    total = 0
    for name, rows in replay(path, args.answers or path.with_name(f"{path.stem}_answers"), args.names):
        print(f"{name}: {rows} rows as in {path.name}", flush=True)
        total += rows
    print(f"{total} rows follow from the answers.")
    return total
