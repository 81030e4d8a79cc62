r"""Teach a vision tower the grammar of ECG paper before any question: class, rate, axis and intervals of simulated ECGs.

    python studies/evl_ecg/vision_pretraining.py --model outputs/small_student_init --steps 1000 --image_width 448 \
        --image_height 224 --grid thick --output_dir outputs/small_student_taught

A vision tower with random weights learns little from a thousand real ECGs with one word of answer each. Simulated ECGs are
unlimited and their truth is known, so the tower is first trained as a classifier and regressor on them. The heads are thrown
away; projector and decoder are untouched. For models whose vision tower reads square tiles (LlavaNext, Idefics3 and their kin).
Runs on one process. CPU smoke run: --steps 2.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.qa.labels import CPSC_CLASSES
from hf_evl_ecg.signals.simulation import simulate

# Typical mean and spread of what the regression head predicts: rate (1/min), QRS and QT (ms), and PR (ms), which AF lacks.
MEASURED = {"heart_rate_bpm": (80.0, 20.0), "qrs_ms": (105.0, 25.0), "qt_ms": (380.0, 30.0), "pr_ms": (170.0, 35.0)}


@dataclass(frozen=True)
class VisionPretraining:
    """How long and on what a vision tower is taught.

    Attributes:
        steps: Optimizer steps; each takes new simulated ECGs.
        batch_size: ECGs per step.
        learning_rate: Peak of a one-cycle schedule.
        classes: Simulated classes, of the nine of CPSC-2018.
        seed: Seed of heads and ECGs.
        num_workers: Processes that simulate and draw.
        bf16: Run the tower in bfloat16 (autocast).
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    classes: tuple[str, ...] = CPSC_CLASSES
    seed: int = 0
    num_workers: int = 0
    bf16: bool = False


class VisionHeads(nn.Module):
    """Mean over the patches of each tile → class logits, standardised measurements, cosine and sine of the axis."""

    def __init__(self, tiles: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(tiles * width)
        self.label = nn.Linear(tiles * width, num_classes)
        self.values = nn.Linear(tiles * width, len(MEASURED) + 2)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: (B, tiles, N, D) → (B, C), (B, 6)."""
        pooled = self.norm(patches.mean(2).flatten(1))
        return self.label(pooled), self.values(pooled)


class SimulatedPages(Dataset):
    """Pixels and truth of simulated ECGs; every index is another heart.

    Seeds begin at 2^40, far beyond those of simulated data sets, so no page of training, validation or test returns here.
    """

    FIRST_SEED = 1 << 40

    def __init__(
        self, size: int, plan: VisionPretraining, processor: Any, draw: RenderedECG, *, offset: int = 0
    ) -> None:
        self.size, self.plan, self.processor, self.draw = size, plan, processor, draw
        self.first = self.FIRST_SEED + (plan.seed << 32) + offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        label = index % len(self.plan.classes)
        name = self.plan.classes[label]
        image = self.draw({"record": f"{name}/{self.first + index}", "storage": "simulated", "root": ""})
        truth = simulate(name, seed=self.first + index, fs_hz=100.0).metadata
        values = [(np.nan if truth[k] is None else truth[k] - m) / s for k, (m, s) in MEASURED.items()]
        angle = np.nan if truth["axis_deg"] is None else np.deg2rad(truth["axis_deg"])
        pixels = self.processor.image_processor([image], return_tensors="pt")["pixel_values"]
        return pixels.flatten(0, -4), label, torch.tensor([*values, np.cos(angle), np.sin(angle)], dtype=torch.float32)


def tower_patches(model: nn.Module, pixels: Tensor) -> Tensor:
    """Output of a vision tower that reads square tiles. Shape: (B, tiles, 3, S, S) → (B, tiles, N, D)."""
    states = base_model(model).get_encoder(modality="image")(pixel_values=pixels.flatten(0, 1)).last_hidden_state
    return states.unflatten(0, pixels.shape[:2])


def pretrain_vision(
    model: nn.Module, processor: Any, draw: RenderedECG, plan: VisionPretraining, *, log_every: int = 50
) -> dict[str, float]:
    """Train the vision tower of a model, in place.

    Args:
        model: A model whose vision tower reads square tiles: LlavaNext, Idefics3 and their kin.
        processor: Its processor.
        draw: How ECGs are drawn.
        plan: How long and on what.
        log_every: Steps between printed lines.

    Returns:
        On 40 further simulated ECGs per class: ``accuracy`` of the class, mean absolute error of each measurement, ``chance``
        (1 / number of classes) and ``seconds``.

    Raises:
        ValueError: Fewer than one step.
    """
    check_at_least("steps", plan.steps, 1)
    started = time.monotonic()
    torch.manual_seed(plan.seed)
    tower = base_model(model).get_encoder(modality="image")
    pages = SimulatedPages(plan.steps * plan.batch_size, plan, processor, draw)
    with torch.no_grad():
        tiles, width = (example := tower_patches(model, pages[0][0].unsqueeze(0))).shape[1], example.shape[-1]
    heads = VisionHeads(tiles, width, len(plan.classes)).to(example.device)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=plan.steps)
    model.train()
    for step, (pixels, label, values) in enumerate(DataLoader(pages, plan.batch_size, num_workers=plan.num_workers), 1):
        label, values = label.to(example.device), values.to(example.device)
        with torch.autocast(example.device.type, torch.bfloat16, enabled=plan.bf16):
            patches = tower_patches(model, pixels.to(example.device))
        logits, predicted = heads(patches.float())
        known = values.isfinite()
        error = F.smooth_l1_loss(predicted[known], values[known])
        loss = F.cross_entropy(logits, label) + error
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % log_every == 0 or step == plan.steps:
            hit = (logits.argmax(1) == label).float().mean()
            print(f"vision step {step}/{plan.steps}: loss {loss:.3f}, accuracy {hit:.2f}", flush=True)
    scores = _score(model, heads, SimulatedPages(40 * len(plan.classes), plan, processor, draw, offset=1 << 31), plan)
    return {**scores, "seconds": time.monotonic() - started}


@torch.no_grad()
def _score(model: nn.Module, heads: VisionHeads, pages: SimulatedPages, plan: VisionPretraining) -> dict[str, float]:
    model.eval()
    labels, logits, values, predicted = [], [], [], []
    for pixels, label, value in DataLoader(pages, plan.batch_size, num_workers=plan.num_workers):
        one, other = heads(tower_patches(model, pixels.to(next(heads.parameters()).device)))
        labels.append(label)
        logits.append(one.cpu())
        values.append(value)
        predicted.append(other.cpu())
    hits = torch.cat(logits).argmax(1) == torch.cat(labels)
    error = (torch.cat(predicted) - torch.cat(values)).abs()
    scores = {"accuracy": float(hits.float().mean()), "chance": 1 / len(plan.classes)}
    spreads: Sequence[float] = [spread for _, spread in MEASURED.values()]
    for i, (name, spread) in enumerate(zip(MEASURED, spreads, strict=True)):
        scores[f"{name}_error"] = float(error[:, i].nanmean() * spread)
    return scores


@dataclass
class VisionArguments:
    """Which model, how long."""

    model: str = field(metadata={"help": "Model whose vision tower is taught: a folder or a name on the Hub."})
    output_dir: str = field(metadata={"help": "Where the model goes, with its processor."})
    steps: int = field(default=1000, metadata={"help": "Optimizer steps; each takes new simulated ECGs."})
    batch_size: int = field(default=32, metadata={"help": "ECGs per step."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak of a one-cycle schedule."})
    classes: list[str] = field(
        default_factory=lambda: list(CPSC_CLASSES), metadata={"help": "Classes to simulate, of the nine of CPSC-2018."}
    )
    num_workers: int = field(default=0, metadata={"help": "Processes that simulate and draw."})
    bf16: bool = field(default=False, metadata={"help": "Run the tower in bfloat16 (autocast)."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda …"})
    seed: int = field(default=0, metadata={"help": "Seed of heads and ECGs."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, VisionArguments, ImageOptions, description=__doc__, prog=prog))


def main(args: VisionArguments, images: ImageOptions) -> dict[str, float]:
    """Teach the tower and save the model.

    Returns:
        Its scores on further simulated ECGs.
    """
    model, processor = load_model(args.model, "float32")
    plan = VisionPretraining(
        **{name: value for name, value in asdict(args).items() if name in VisionPretraining.__dataclass_fields__}
    )
    scores = pretrain_vision(model.to(args.device), processor, images.renderer(), plan)
    print("vision tower on simulated ECGs:", {name: round(value, 3) for name, value in scores.items()})
    model.save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)
    return scores


if __name__ == "__main__":
    command()
