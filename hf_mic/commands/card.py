"""Render a model card from the results of a study.

    hf-mic card model_cards/mic_minilm.yaml
    hf-mic card model_cards/mic_minilm.yaml --output exported/README.md

The YAML file names the results json and the method of the model; every number of the card is from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_mic.command_line.options import parse_options


@dataclass
class CardArguments:
    """Which card, and where it goes."""

    spec: str = field(metadata={"help": "YAML file that describes the card; the word --spec may be left out."})
    output: str | None = field(
        default=None, metadata={"help": "Where the card goes. Default: beside the YAML file, ending in .md."}
    )


def parse(words: Sequence[str]) -> tuple[CardArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([CardArguments], words, __doc__, prog="hf-mic card", positional="spec", yaml_first=False)
    return (args,)


def main(args: CardArguments) -> Path:
    """Write the card.

    Returns:
        The card.

    Raises:
        FileNotFoundError: If the results are not there: a card is made of measured results only.
    """
    from hf_mic.cards.study_card import write_card

    card = write_card(args.spec, args.output)
    print(f"Written: {card}")
    return card
