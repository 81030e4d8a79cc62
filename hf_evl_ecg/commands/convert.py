"""Convert a checkpoint in LLaVA layout, such as PULSE-7B, to the native class of transformers.

    hf-evl-ecg convert PULSE-ECG/PULSE-7B outputs/pulse_native

Weights are read and written tensor by tensor, so memory stays at about one shard; their type is kept. DESTINATION appears only when it
is complete. Every command, and load_model of hf_evl_ecg.models, loads it with the packing of image tokens that the source was trained
with; Auto classes of transformers always pack "spatial_unpad", so a model that was trained "flat" would see other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_evl_ecg.command_line.parser import parse_arguments

__all__ = ["ConvertArguments", "command", "main"]


@dataclass
class ConvertArguments:
    """What is converted, and where it goes."""

    source: str = field(metadata={"help": "Folder or Hub name of the checkpoint; may stand first.", "positional": True})
    destination: str = field(metadata={"help": "New folder; may stand second.", "positional": True})
    vision_tower: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the vision tower; default: what the source names."}
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, ConvertArguments, description=__doc__, prog=prog))


def main(args: ConvertArguments) -> Path:
    """Convert.

    Returns:
        The new folder.
    """
    from hf_evl_ecg.llava.convert import convert_llava

    written = convert_llava(args.source, args.destination, vision_tower=args.vision_tower)
    print(f"Written: {written}")
    return written
