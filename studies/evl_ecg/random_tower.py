r"""A model whose vision tower is drawn anew: what a student says that cannot see, and knows the questions alone.

    python studies/evl_ecg/random_tower.py --model outputs/student_general --output_dir outputs/student_random_tower

Trained with --freeze_vision_tower it is a row that every table of an image model should have: a score it reaches needs no tower that
was taught anything. Runs on one process, in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import small_models
import torch

from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.models.native import base_model


@dataclass
class TowerArguments:
    """Which model, where it goes."""

    model: str = field(metadata={"help": "A model of small_models.py, whatever it was taught."})
    output_dir: str = field(metadata={"help": "Where the model goes, with its processor."})
    seed: int = field(default=0, metadata={"help": "Seed of the new weights."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, TowerArguments, description=__doc__, prog=prog))


def main(args: TowerArguments) -> None:
    """Draw the tower's matrices anew, as they were drawn when the model was built, and save the model."""
    model, processor = load_model(args.model, "float32")
    tower = base_model(model).get_encoder(modality="image")
    small_models.initialise(tower, args.seed)
    with torch.no_grad():  # what initialise leaves alone: biases and norms, which were taught too
        for name, parameter in tower.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    model.save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)


if __name__ == "__main__":
    command()
