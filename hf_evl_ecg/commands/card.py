"""Write a model card from results alone: what was not measured is not in the card.

    hf-evl-ecg card model_cards/ecg_small.yaml
    hf-evl-ecg card model_cards/ecg_small.yaml --output exported/README.md --model exported

The first writes ecg_small.md beside the file, the second a README.md into an exported model; pictures lie beside the card. The YAML
file names the results json, the method and the seed that the card is about (see model_cards/ for examples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["CardArguments", "command", "main"]


@dataclass
class CardArguments:
    """Which card, and where it goes."""

    spec: str = field(
        metadata={"help": "YAML file that describes the card; may stand first, without --spec.", "positional": True}
    )
    output: str | None = field(
        default=None, metadata={"help": "Where the card goes; default: beside the YAML file, ending in .md."}
    )
    model: str | None = field(
        default=None, metadata={"help": "Folder of the exported model, whose provenance is shown."}
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, CardArguments, description=__doc__, prog=prog))


def main(args: CardArguments) -> Path:
    """Write the card.

    Returns:
        Its file.

    Raises:
        MissingResultsError: There are no results to write about.
    """
    from hf_evl_ecg.cards.card import write_card

    written = write_card(args.spec, args.output, args.model)
    print(f"Written: {written}")
    return Path(written)
