r"""Give a model with random weights a general start: it reads, then looks at pages of coloured shapes, and answers questions.

    python studies/evl_ecg/general_start.py --model outputs/student_init --output_dir outputs/student_general \
        --image_width 448 --image_height 224 --learning_rate 1e-3

The papers' students are general models that have never seen an ECG. A model with random weights is none: when it begins to listen to a
question is a matter of chance, and hides what a method is worth. So the decoder first learns to answer questions about pages that are
told in words, which binds what is asked to what is there within a few hundred steps; then the vision tower learns to name what lies where
in the decoder's own words; then the whole model answers questions about pages, from one shape to several. Each stage ends when yes/no
questions about further pages are answered at --target, or after its steps. No page holds an ECG. Resumable. CPU smoke run, under a
minute: --reading_steps 2 --tower_steps 2 --stages 1:2
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from general_pages import COLOURS, SHAPES, GeneralPages, closed_dataset, described, page_dataset, things_of
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import chat_messages, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.distillation.cross_entropy import answer_cross_entropy
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
    reading_steps: int = field(default=1200, metadata={"help": "Most steps of the decoder alone, on words."})
    tower_steps: int = field(default=200, metadata={"help": "Steps of the vision tower, on words for what lies where."})
    stages: list[str] = field(
        default_factory=lambda: ["1:300", "2:300", "4:600"],
        metadata={"help": "Stages of the whole model, MOST SHAPES:MOST STEPS each."},
    )
    target: float = field(default=0.97, metadata={"help": "Share of right yes/no answers at which a stage ends."})
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


def teach_reading(model: nn.Module, processor: Any, args: StartArguments) -> dict[str, float]:
    """Train a model, in place, to answer questions about pages that are told in words, of one shape, then of up to three.

    Returns:
        Share of right yes/no answers about held-out pages of up to three shapes, and the steps taken.
    """
    torch.manual_seed(args.seed)
    size = 2 * args.batch_size
    words = [processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1] for word in (YES, NO)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2 * args.learning_rate, weight_decay=0.01)

    def answers(first: int, count: int, most: int) -> tuple[Tensor, float]:
        """Loss, and the share of right answers among those that are yes or no."""
        chats = [render_chat(processor, chat_messages(turns, images=0)) for turns in described(first, count, most, 8)]
        batch = encode_chats(processor, chats, None, records=["told"] * count)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            found = extract_features(model, model_inputs(batch), batch["labels"], FeatureRequest(visual=False))
        assert found.answer_logits is not None
        assert found.answer_ids is not None
        yes, no = (found.answer_logits[..., word].float() for word in words)
        said = torch.where(yes > no, words[0], words[1])
        asked = torch.isin(found.answer_ids, torch.tensor(words))
        return answer_cross_entropy(found), float((said[asked] == found.answer_ids[asked]).float().mean())

    most, right = 1, 0.0
    model.train()
    for step in range(1, args.reading_steps + 1):
        for group in optimizer.param_groups:  # warmed up, then constant: when the answers bind is not known
            group["lr"] = 2 * args.learning_rate * min(1.0, step / 50)
        loss, _ = answers((args.seed << 32) + step * size, size, most)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == args.reading_steps:
            with torch.no_grad():
                right = answers(HELD_OUT, 64, most)[1]
            print(f"reading step {step}, up to {most}: loss {float(loss):.3f}, yes/no {right:.3f}", flush=True)
            if right >= args.target and most == 3:
                break
            most = 3 if right >= args.target else most
    return {"yes_no": right if most == 3 else 0.0, "steps": step}


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
    words_and_decoder = {id(p) for p in (*base_model(model).get_decoder().parameters(), *head.embeddings.parameters())}
    parameters = [p for p in model.parameters() if id(p) not in words_and_decoder] + [head.scale, head.bias]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=args.tower_steps)
    request = FeatureRequest(tokens="visual", logits=False, positions=True)

    def logits_and_words(pages: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        batch = collator(pages)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            found = extract_features(model, model_inputs(batch), batch["labels"], request)
        assert found.visual_positions is not None
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


class StopAtTarget(TrainerCallback):
    """Ends a stage when its yes/no questions are answered.

    Args:
        target: Share of right answers.
    """

    def __init__(self, target: float) -> None:
        self.target = target

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the share of right answers while training."""
        right = kwargs["metrics"]["eval_exact_match"]
        print(f"step {state.global_step}: yes/no {right:.3f}", flush=True)
        control.should_training_stop |= right >= self.target


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
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=20,
        logging_steps=50,
        eval_strategy="steps",
        eval_steps=50,
        save_steps=100,
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
        eval_dataset=closed_dataset(HELD_OUT + 1_000_000, 128, most),
        compute_metrics=answer_metrics(processor, training),
        callbacks=[StopAtTarget(args.target)],
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
    parts: dict[str, Callable[[Any, Any], dict[str, float]]] = {
        "reading": lambda model, processor: teach_reading(model, processor, args),
        "tower": lambda model, processor: teach_tower(model, processor, draw, args),
    }
    for stage, (most, _) in enumerate(args.plan):
        parts[f"up_to_{most}"] = partial(
            teach_questions, draw=draw, args=args, stage=stage, folder=output / f"stage_{stage}"
        )
    scores: dict[str, Any] = {}
    start = args.model
    for name, teach in parts.items():
        done = output / name / "scores.json"
        if not done.is_file():  # each part is kept whole, so that an interrupted start goes on with the next
            model, processor = load_model(start, "float32")
            found = teach(model, processor)
            model.save_pretrained(done.parent)
            processor.save_pretrained(done.parent)
            write_json(done, found)
        scores[name], start = json.loads(done.read_text(encoding="utf-8")), str(done.parent)
        print(f"{name}: {scores[name]}", flush=True)
    model, processor = load_model(start, "float32")
    model.save_pretrained(output)
    processor.save_pretrained(output)
    write_json(output / "scores.json", {**scores, "seconds": time.monotonic() - started, "arguments": asdict(args)})
    return scores


if __name__ == "__main__":
    command()
