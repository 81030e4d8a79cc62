"""Pages that are no ECGs, with questions: what a general model has seen before anyone shows it an ECG.

A page holds a few coloured shapes on light paper. The questions have the forms of those about ECGs (yes or no, complete the sentence, name
every one that applies), so that a model which answers them can listen to a question and look at a picture, and knows nothing of
hearts. A page and its questions follow from a number; pages for training, validation and test take disjoint numbers.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from PIL import Image, ImageDraw

from hf_evl_ecg.chat.conversations import Turn

__all__ = [
    "COLOURS",
    "SHAPES",
    "GeneralPages",
    "Thing",
    "closed_dataset",
    "described",
    "page_dataset",
    "page_texts",
    "things_of",
]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLOURS = {
    "red": (214, 40, 40),
    "blue": (40, 80, 200),
    "green": (30, 140, 60),
    "black": (25, 25, 25),
    "yellow": (225, 180, 0),
    "violet": (140, 60, 170),
}
SIDES = ("left half", "right half")
PAPER = (250, 246, 240)
CELLS = (4, 2)
"""Columns and rows of the places where a shape may stand, one in each."""
CLOSED_KINDS = ("shape", "colour", "both", "side")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Thing:
    """A coloured shape: its place is a column and a row of `CELLS`, its size a share of the place."""

    shape: str
    colour: str
    column: int
    row: int
    size: float

    @property
    def side(self) -> str:
        """The half of the page that it stands in."""
        return SIDES[self.column >= CELLS[0] // 2]


def things_of(seed: int, most: int) -> list[Thing]:
    """The shapes of a page, one to ``most`` of them, in the order of their places.

    Example:
        >>> things_of(3, 2) == things_of(3, 2), len(things_of(3, 1))
        (True, 1)
    """
    rng = random.Random(f"page:{seed}:{most}")
    places = rng.sample(range(CELLS[0] * CELLS[1]), rng.randint(1, most))
    return [
        Thing(rng.choice(SHAPES), rng.choice(list(COLOURS)), place % CELLS[0], place // CELLS[0], rng.uniform(0.5, 0.9))
        for place in sorted(places)
    ]


@dataclass(frozen=True)
class GeneralPages:
    """Draws the page that a row of `page_dataset` names.

    Attributes:
        width: Width of the page (px).
        height: Height of the page (px).
    """

    width: int
    height: int

    def __call__(self, example: Mapping[str, Any]) -> Image.Image:
        """The page, in RGB."""
        image = Image.new("RGB", (self.width, self.height), PAPER)
        pen = ImageDraw.Draw(image)
        for thing in things_of(example["seed"], example["most"]):
            self._draw(pen, thing)
        return image

    def box(self, thing: Thing) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a shape (px)."""
        cell = (self.width / CELLS[0], self.height / CELLS[1])
        x, y = (thing.column + 0.5) * cell[0], (thing.row + 0.5) * cell[1]
        r = thing.size * min(cell) / 2
        return x - r, y - r, x + r, y + r

    def _draw(self, pen: ImageDraw.ImageDraw, thing: Thing) -> None:
        colour, box = COLOURS[thing.colour], self.box(thing)
        x, y, r = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2
        if thing.shape == "circle":
            pen.ellipse(box, fill=colour)
        elif thing.shape == "square":
            pen.rectangle(box, fill=colour)
        elif thing.shape == "triangle":
            pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=colour)
        elif thing.shape == "cross":
            pen.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=colour)
            pen.rectangle((x - r / 4, y - r, x + r / 4, y + r), fill=colour)
        elif thing.shape == "ring":
            pen.ellipse(box, outline=colour, width=max(2, round(r / 3)))
        else:
            pen.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=colour)


def page_dataset(first: int, size: int, most: int, *, turns: int = 8) -> Dataset:
    """Pages with conversations, in the form that `hf_evl_ecg.chat.conversations.read_turns` takes.

    Args:
        first: Number of the first page.
        size: How many pages.
        most: Most shapes on a page.
        turns: Questions a page.
    """
    rows = []
    for seed in range(first, first + size):
        things, rng = things_of(seed, most), random.Random(f"turns:{seed}:{most}")
        made = [closed_turn(things, kind, rng) for kind in CLOSED_KINDS for _ in range(3)] + open_turns(things, rng)
        chosen = rng.sample(made, min(turns, len(made)))
        conversation = [
            {"from": who, "value": text} for turn in chosen for who, text in zip(("human", "gpt"), turn, strict=True)
        ]
        rows.append({"id": f"page {seed}", "seed": seed, "most": most, "conversations": conversation})
    return Dataset.from_list(rows)


def closed_dataset(first: int, size: int, most: int) -> Dataset:
    """Pages with one yes/no question each, of all kinds in turn: what tells whether a model listens.

    Args:
        first: Number of the first page.
        size: How many pages.
        most: Most shapes on a page.
    """
    rows = []
    for seed in range(first, first + size):
        kind = CLOSED_KINDS[seed % len(CLOSED_KINDS)]
        question, answer = closed_turn(things_of(seed, most), kind, random.Random(f"closed:{seed}:{most}"))
        rows.append(
            {"id": f"page {seed}", "seed": seed, "most": most, "kind": kind, "question": question, "answer": answer}
        )
    return Dataset.from_list(rows)


def closed_turn(things: Sequence[Thing], kind: str, rng: random.Random) -> tuple[str, str]:
    """A yes/no question and its answer; both answers are as likely, where the page allows it."""
    truth = rng.random() < 0.5
    if kind == "shape":
        found = {thing.shape for thing in things}
        shape = _pick([s for s in SHAPES if (s in found) == truth] or SHAPES, rng)
        question = rng.choice(("Does this page show a {}?", "Is there a {} in this page?")).format(shape)
        return question, _answer(shape in found)
    if kind == "colour":
        colours = {thing.colour for thing in things}
        colour = _pick([c for c in COLOURS if (c in colours) == truth] or list(COLOURS), rng)
        return f"Is anything in this page {colour}?", _answer(colour in colours)
    if kind == "both":
        pairs = {(thing.colour, thing.shape) for thing in things}
        near = [
            (c, s)
            for c in COLOURS
            for s in SHAPES
            if (c, s) not in pairs and any(c == t.colour or s == t.shape for t in things)
        ]
        colour, shape = _pick(sorted(pairs) if truth else near, rng)
        return f"Does this page show a {colour} {shape}?", _answer((colour, shape) in pairs)
    thing = rng.choice(list(things))
    side = thing.side if truth else SIDES[thing.side == SIDES[0]]
    return f"Is there a {thing.shape} in the {side} of this page?", _answer(
        any(t.shape == thing.shape and t.side == side for t in things)
    )


def open_turns(things: Sequence[Thing], rng: random.Random) -> list[tuple[str, str]]:
    """Questions that are answered with words."""
    found = [shape for shape in SHAPES if any(t.shape == shape for t in things)]
    colours = [colour for colour in COLOURS if any(t.colour == colour for t in things)]
    turns = [
        ("Complete the sentence: The number of shapes is ____.", NUMBERS[len(things)]),
        ("Complete the sentence: This page shows ____.", ", ".join(found)),
        ("Complete the sentence: The colours are ____.", ", ".join(colours)),
    ]
    asked = sorted(rng.sample(SHAPES, 4), key=SHAPES.index)
    named = ", ".join(s for s in asked if s in found) or "none of these"
    turns.append(
        (
            f"Which of these shapes does this page show: {', '.join(asked)}? Name every one that applies, or answer 'none of these'.",
            named,
        )
    )
    for shape in found:
        alike = [t for t in things if t.shape == shape]
        if len(alike) == 1:
            turns.append((f"Complete the sentence: The {shape} is ____.", alike[0].colour))
            turns.append((f"Where is the {shape}?", alike[0].side))
    return turns


def described(first: int, size: int, most: int, turns: int) -> list[tuple[Turn, ...]]:
    """Conversations about pages that are told in words, not shown: reading, before looking.

    Args:
        first: Number of the first page.
        size: How many pages.
        most: Most shapes on a page.
        turns: Questions a page.
    """
    rows = []
    for seed in range(first, first + size):
        things, rng = things_of(seed, most), random.Random(f"told:{seed}:{most}")
        made = [closed_turn(things, kind, rng) for kind in CLOSED_KINDS for _ in range(6)] + open_turns(things, rng)
        (question, answer), *rest = rng.sample(made, min(turns, len(made)))
        told = " ".join(f"{thing.side.split()[0]} {thing.colour} {thing.shape}" for thing in things)
        rows.append((Turn(f"{told} . {question}", answer), *(Turn(*turn) for turn in rest)))
    return rows


def page_texts() -> Iterator[str]:
    """Every word of the questions and answers, for training a tokenizer."""
    for row in page_dataset(0, 300, 6):
        yield " ".join(turn["value"] for turn in row["conversations"])
    yield " ".join((*SHAPES, *COLOURS, *NUMBERS, *SIDES))


def _pick(options: Sequence[Any], rng: random.Random) -> Any:
    return rng.choice(list(options))


def _answer(truth: bool) -> str:
    return "yes" if truth else "no"
