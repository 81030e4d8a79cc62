r"""Give a model with random weights a general start: it looks at pages of coloured shapes and answers questions about them.

    python studies/evl_ecg/general_start.py --model outputs/student_init --output_dir outputs/student_general \
        --image_width 448 --image_height 224 --learning_rate 1e-3

The papers' students are general models that have never seen an ECG. A model with random weights is none: when it begins to listen to a
question is a matter of chance, and hides what a method is worth. So the vision tower first learns what is on a page as a classifier, then
the whole model learns questions, from one shape on a page to several, stage by stage, until it answers yes/no questions about pages that it
has not seen. No page holds an ECG. Resumable. CPU smoke run, under a minute: --tower_steps 2 --stages 1:2
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from general_pages import COLOURS, SHAPES, GeneralPages, closed_dataset, page_dataset, things_of
from torch import Tensor, nn

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.commands.parser import parse_arguments
from hf_evl_ecg.distillation.runs import TeacherConfig, answer_metrics
from hf_evl_ecg.distillation.trainer import EVLECGTrainer
from hf_evl_ecg.files import write_json
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.loading import load_model
from hf_evl_ecg.models.native import base_model
from hf_evl_ecg.qa.prompts import NO, YES

HELD_OUT = 1 << 40
"""Number of the first page that no model learns from."""
WORDS = (*SHAPES, *COLOURS)
"""What the vision tower is asked about where each of its tokens lies."""


@dataclass
class StartArguments:
    """Which model, how long."""

    model: str = field(metadata={"help": "Model with random weights, from small_models.py."})
    output_dir: str = field(metadata={"help": "Where the model goes, with its processor and scores.json."})
    tower_steps: int = field(default=300, metadata={"help": "Steps of the vision tower alone."})
    stages: list[str] = field(
        default_factory=lambda: ["1:300", "2:300", "4:600"],
        metadata={"help": "Stages of the whole model, MOST SHAPES:STEPS each."},
    )
    image_width: int = field(default=448, metadata={"help": "Width of a page (px)."})
    image_height: int = field(default=224, metadata={"help": "Height of a page (px)."})
    batch_size: int = field(default=16, metadata={"help": "Pages per step of the whole model."})
    turns: int = field(default=12, metadata={"help": "Questions a page."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    num_workers: int = field(default=0, metadata={"help": "Processes that draw."})
    bf16: bool = field(default=False, metadata={"help": "Train in bfloat16 (autocast)."})
    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU, even if there is a GPU."})
    eval_pages: int = field(default=400, metadata={"help": "Held-out pages with one yes/no question each."})
    seed: int = field(default=0, metadata={"help": "Seed of the order and of the pages."})

    def __post_init__(self) -> None:
        try:
            self.plan = [(int(most), int(steps)) for most, _, steps in (stage.partition(":") for stage in self.stages)]
        except ValueError:
            raise ValueError(f"stages={self.stages}: each is MOST SHAPES:STEPS, such as 4:600") from None


class WordHead(nn.Module):
    """How alike a visual token, as the decoder reads it, and the decoder's own embedding of a word are.

    A model that has learnt this finds what a question names where it lies: the word and the place have the same direction.

    Args:
        model: The model.
        processor: Its processor.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.embeddings = base_model(model).get_input_embeddings()
        encode = processor.tokenizer
        self.ids = [torch.tensor(encode(f" {word}", add_special_tokens=False)["input_ids"]) for word in WORDS]
        self.scale, self.bias = nn.Parameter(torch.tensor(8.0)), nn.Parameter(torch.tensor(-3.0))

    def forward(self, visual: Tensor) -> Tensor:
        """Shape: (B, N, D) → (B, N, words)."""
        words = torch.stack([self.embeddings(ids).mean(0) for ids in self.ids])
        return self.scale * F.normalize(visual.float(), dim=-1) @ F.normalize(words.float(), dim=-1).T + self.bias


def words_at(pages: Sequence[Mapping[str, Any]], centres: Tensor, draw: GeneralPages) -> Tensor:
    """Which of `WORDS` hold for what lies at each place.

    Args:
        pages: Rows of `page_dataset`.
        centres: Places (x, y) as fractions of the page. Shape: (B, N, 2).
        draw: Draws the pages.

    Returns:
        Shape: (B, N, words), 0 or 1.
    """
    target = torch.zeros(*centres.shape[:2], len(WORDS))
    for row, page in enumerate(pages):
        for thing in things_of(page["seed"], page["most"]):
            left, top, right, bottom = draw.box(thing)
            x, y = centres[row, :, 0] * draw.width, centres[row, :, 1] * draw.height
            inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
            target[row, inside, WORDS.index(thing.shape)] = 1
            target[row, inside, WORDS.index(thing.colour)] = 1
    return target


def teach_tower(model: nn.Module, processor: Any, draw: GeneralPages, args: StartArguments) -> dict[str, float]:
    """Train vision tower and projector of a model, in place, to name what lies where.

    Returns:
        ``recall`` and ``precision`` of the words, over the visual tokens of held-out pages.
    """
    torch.manual_seed(args.seed)
    collator = EVLECGCollator(processor, load_image=draw)
    head = WordHead(model, processor)
    parameters = [*base_model(model).parameters(), head.scale, head.bias]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=args.tower_steps)
    request = FeatureRequest(tokens="visual", logits=False, positions=True)

    def logits_and_words(pages: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        batch = collator(pages)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            found = extract_features(model, model_inputs(batch), batch["labels"], request)
        logits = head(found.visual)[found.visual_mask]
        return logits, words_at(pages, found.visual_positions, draw)[found.visual_mask]

    size = 2 * args.batch_size
    pages = page_dataset(args.seed << 32, args.tower_steps * size, 4, turns=1)
    model.train()
    for step in range(1, args.tower_steps + 1):
        logits, words = logits_and_words(list(pages.select(range((step - 1) * size, step * size))))
        loss = F.binary_cross_entropy_with_logits(logits, words)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 25 == 0 or step == args.tower_steps:
            print(f"tower step {step}/{args.tower_steps}: loss {loss:.3f}", flush=True)
    model.eval()
    with torch.no_grad():
        logits, words = logits_and_words(list(page_dataset(HELD_OUT, 8 * size, 4, turns=1)))
    hits = ((logits > 0) & (words > 0)).sum()
    return {"recall": float(hits / words.sum()), "precision": float(hits / (logits > 0).sum().clamp(min=1))}


def teach_questions(
    model: Any, processor: Any, draw: GeneralPages, args: StartArguments, stage: int, folder: Path
) -> dict[str, float]:
    """Train a model, in place, on pages of one stage.

    Returns:
        Share of right answers to yes/no questions about held-out pages, over all and for each kind of question.
    """
    most, steps = args.plan[stage]
    training = TeacherConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=32,
        learning_rate=args.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        logging_steps=50,
        save_steps=200,
        save_total_limit=1,
        disable_tqdm=True,
        report_to="none",
        dataloader_num_workers=args.num_workers,
        dataloader_pin_memory=False,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
        seed=args.seed,
        eval_predictions="likelihood",
        candidate_answers=[YES, NO],
        resume_from_checkpoint="last",
    )
    first = (args.seed << 32) + (stage + 1) * 10_000_000
    trainer = EVLECGTrainer(
        model,
        training,
        processing_class=processor,
        load_image=draw,
        train_dataset=page_dataset(first, steps * args.batch_size, most, turns=args.turns),
        compute_metrics=answer_metrics(processor, training),
    )
    trainer.train(training.resume_from_checkpoint)
    asked = closed_dataset(HELD_OUT, args.eval_pages, most)
    scores = {}
    for kind in (*sorted(set(asked["kind"])), "all"):
        own = asked if kind == "all" else asked.filter(lambda row, kind=kind: row["kind"] == kind)
        scores[kind] = float(trainer.evaluate(own)["eval_exact_match"])
    return scores


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, StartArguments, description=__doc__, prog=prog))


def main(args: StartArguments) -> dict[str, Any]:
    """Teach and save the model.

    Returns:
        Scores of each stage on held-out pages.
    """
    started, output = time.monotonic(), Path(args.output_dir)
    draw = GeneralPages(args.image_width, args.image_height)
    model, processor = load_model(args.model, "float32")
    scores: dict[str, Any] = {"tower": teach_tower(model, processor, draw, args)}
    print("tower on held-out pages:", scores["tower"], flush=True)
    for stage, (most, _) in enumerate(args.plan):
        scores[f"up to {most}"] = teach_questions(model, processor, draw, args, stage, output / f"stage_{stage}")
        print(f"yes/no on held-out pages of up to {most} shapes:", scores[f"up to {most}"], flush=True)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    write_json(output / "scores.json", {**scores, "seconds": time.monotonic() - started, "arguments": asdict(args)})
    return scores


if __name__ == "__main__":
    command()
