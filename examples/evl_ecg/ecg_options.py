"""What the scripts beside this file have in common: options from a YAML file, questions, images, models, LoRA."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, DatasetDict, load_from_disk
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, HfArgumentParser, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.config import RenderConfig


@dataclass
class ImageOptions:
    """How ECGs are drawn; the same for training, caching and evaluation."""

    image_width: int = field(default=1100, metadata={"help": "Width of the drawn page (px)."})
    image_height: int = field(default=850, metadata={"help": "Height of the drawn page (px)."})
    layout: str = field(default="3x4+rhythm", metadata={"help": "3x4+rhythm, 3x4, 6x2 or 12x1."})
    grid: str = field(default="full", metadata={"help": "full: 1 and 5 mm lines; thick: 5 mm lines; none."})
    paper: str = field(default="red", metadata={"help": "Paper: red, pink, orange, green, blue or grey."})
    footer: bool = field(default=True, metadata={"help": "Write speed and gain (and 'simulated') below the leads."})
    overflow: str = field(default="overlap", metadata={"help": "overlap or clamp, where traces leave their row."})
    augment: float = field(
        default=0.0, metadata={"help": "Share of training pages with artefacts (rotation, noise, creases …), 0 to 1."}
    )
    image_seed: int = field(
        default=0,
        metadata={"help": "Artefacts follow from this seed and the record's name; -1 draws new ones each time."},
    )

    def config(self) -> RenderConfig:
        """How a page is drawn, without artefacts."""
        return RenderConfig(
            width_px=self.image_width,
            height_px=self.image_height,
            layout=self.layout,
            grid=self.grid,
            palette=self.paper,
            footer=self.footer,
            overflow=self.overflow,
        )

    def renderer(self, *, train: bool = False) -> RenderedECG:
        """The image loader: with artefacts for training if ``augment`` is positive, clean otherwise."""
        augment = AugmentConfig(probability=self.augment) if train and self.augment > 0 else None
        return RenderedECG(self.config(), augment, None if self.image_seed == -1 else self.image_seed)


@dataclass
class LoraOptions:
    """Train all weights, or low-rank adapters of the decoder."""

    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters (peft); 0 trains all weights."})
    lora_alpha: float = field(default=32.0, metadata={"help": "Scale of LoRA."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of LoRA."})
    lora_targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "Names of the linear layers that get adapters."},
    )

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself, or with adapters in its decoder."""
        if self.lora_rank == 0:
            return model
        from peft import LoraConfig, get_peft_model

        inside = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.split(".")[-1] in self.lora_targets
        ]
        decoder = {id(module) for module in model.get_decoder().modules()}
        targets = [name for name in inside if id(model.get_submodule(name)) in decoder]
        if not targets:
            raise ValueError(f"--lora_targets {self.lora_targets}: the decoder has no such linear layers.")
        config = LoraConfig(
            r=self.lora_rank, lora_alpha=self.lora_alpha, lora_dropout=self.lora_dropout, target_modules=targets
        )
        return get_peft_model(model, config)


def load_questions(folder: str | Path, split: str, limit: int | None = None) -> Dataset:
    """Read one split of what prepare_data.py wrote.

    Args:
        folder: The folder.
        split: train, validation or test.
        limit: Keep this many records (all questions of each), drawn evenly over the dataset.

    Raises:
        ValueError: There is no such dataset or split.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder; write a question dataset there with prepare_data.py.")
    data = load_from_disk(str(folder))
    if not isinstance(data, DatasetDict) or split not in data:
        raise ValueError(
            f"{folder} has no split {split!r}; it has {sorted(data) if isinstance(data, dict) else 'none'}."
        )
    return limit_records(data[split], limit)


def limit_records(questions: Dataset, limit: int | None) -> Dataset:
    """Keep the questions about this many records, drawn evenly over the dataset; all of them if ``limit`` is None."""
    names = list(zip(questions["source"], questions["record"], strict=True))
    records = list(dict.fromkeys(names))
    if limit is None or limit >= len(records):
        return questions
    kept = {records[i * len(records) // limit] for i in range(limit)}
    return questions.select([i for i, name in enumerate(names) if name in kept])


def load_model(path: str, dtype: str = "auto") -> tuple[Any, Any]:
    """Load a native vision-language model and its processor from a folder or the Hub."""
    return AutoModelForImageTextToText.from_pretrained(path, dtype=dtype), AutoProcessor.from_pretrained(path)


def last_checkpoint(training: TrainingArguments) -> str | None:
    """The checkpoint that ``resume_from_checkpoint`` names; ``last`` is the newest one, None if there is none yet."""
    wanted = training.resume_from_checkpoint
    if not wanted or str(wanted).lower() not in ("last", "true"):
        return wanted or None
    return get_last_checkpoint(training.output_dir) if Path(training.output_dir).is_dir() else None


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults after each option, and the description as it is written."""


def parse_arguments(arguments: Sequence[str], *kinds: type, description: str | None) -> tuple[Any, ...]:
    """Read options into dataclasses; a YAML file, first or after --config, provides values that options replace."""
    given = list(arguments)
    if given[:1] == ["--config"]:
        given = given[1:]
    if given and given[0].endswith((".yaml", ".yml")):
        values = yaml.safe_load(Path(given[0]).read_text(encoding="utf-8"))
        given = [*option_tokens(values), *given[1:]]
    parser = HfArgumentParser(kinds, description=description, formatter_class=_HelpFormatter)
    return tuple(parser.parse_args_into_dataclasses(given))


def option_tokens(values: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line; those that are None are left out."""
    tokens: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            tokens += [f"--{name}", json.dumps(value)]
        elif value is not None:
            tokens += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return tokens
