"""A chain of questions as ECG-Reasoning-Benchmark asks them (Oh et al., arXiv 2603.14326), whoever knows the answers.

First the diagnosis is asked outright. Then come loops, one for each criterion: which criterion to look for, whether it is found, where
it is seen (leads, a time range, a range of values), and what follows for the diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_evl_ecg.qa.prompts import CHOICE_LETTERS

__all__ = ["FURTHER", "GROUNDING", "STAGES", "Chain", "Step", "question_text", "yes_no"]

GROUNDING = ("lead", "wave", "measurement")
STAGES = ("initial", "criterion", "finding", *GROUNDING, "decision")
"""What a step asks for, in the order of a loop; "initial" stands before all loops."""
FURTHER = "Further findings are required to confirm the diagnosis"
"""Third answer to a decision."""


@dataclass(frozen=True)
class Step:
    """One question with its options.

    Attributes:
        stage: One of `STAGES`.
        question: The question, without its options.
        options: Texts of the options.
        answer: Indices of the right ones; several for "lead" only.
        loop: Which criterion it belongs to, from 0; -1 for "initial".

    Raises:
        ValueError: An unknown stage, too many options, or an answer that is none of them.
    """

    stage: str
    question: str
    options: tuple[str, ...]
    answer: frozenset[int]
    loop: int = -1

    def __post_init__(self) -> None:
        if self.stage not in STAGES or not 2 <= len(self.options) <= len(CHOICE_LETTERS):
            raise ValueError(
                f"stage={self.stage!r}, {len(self.options)} options: allowed are {STAGES} and 2 to {len(CHOICE_LETTERS)}"
            )
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"options={self.options}: each must be another one")
        wrong = not self.answer <= set(range(len(self.options)))
        if wrong or not self.answer or (len(self.answer) > 1 and self.stage != "lead"):
            raise ValueError(
                f"answer={sorted(self.answer)}: one of {len(self.options)} options (of leads: some) is needed"
            )

    @property
    def answer_text(self) -> str:
        """Texts of the right options.

        Example:
            >>> Step("lead", "Which leads?", ("V1", "V2", "V3"), frozenset({0, 2})).answer_text
            'V1, V3'
        """
        return ", ".join(self.options[index] for index in sorted(self.answer))

    @property
    def chance(self) -> float:
        """Probability that an answer drawn evenly is right; of leads each is named with probability 1/2, as the benchmark guesses."""
        return 0.5 ** len(self.options) if self.stage == "lead" else 1 / len(self.options)


@dataclass(frozen=True)
class Chain:
    """All questions about one diagnosis of one record.

    Attributes:
        record: Name of the record.
        diagnosis: Name of the diagnosis, such as "first_degree_av_block".
        present: Whether it is there.
        initial: The diagnosis, asked outright.
        steps: The loops, one step after the other.
        place: What ``load_image`` needs to draw the record.

    Raises:
        ValueError: There are no steps, or the last one does not decide.
    """

    record: str
    diagnosis: str
    present: bool
    initial: Step
    steps: tuple[Step, ...]
    place: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.initial.stage != "initial" or not self.steps or self.steps[-1].stage != "decision":
            raise ValueError(
                f"{self.record}, {self.diagnosis}: a chain begins with the diagnosis and ends with a decision"
            )

    @property
    def loops(self) -> list[list[int]]:
        """Indices of the steps of each loop."""
        names = list(dict.fromkeys(step.loop for step in self.steps))
        return [[i for i, step in enumerate(self.steps) if step.loop == name] for name in names]


def yes_no(stage: str, question: str, right: bool | None, loop: int = -1) -> Step:
    """A step that asks for yes or no; None is the right answer of a decision that must wait for further findings.

    Example:
        >>> yes_no("decision", "Is it AF?", None).answer_text == FURTHER
        True
    """
    options = ("Yes", "No", FURTHER) if stage == "decision" else ("Yes", "No")
    return Step(stage, question, options, frozenset({2 if right is None else 0 if right else 1}), loop)


def question_text(step: Step) -> str:
    """The question with lettered options and how to answer.

    Example:
        >>> print(question_text(yes_no("finding", "Is the PR interval prolonged?", True)))
        Is the PR interval prolonged?
        A. Yes
        B. No
        Answer with the letter of the right option.
    """
    listed = [f"{letter}. {text}" for letter, text in zip(CHOICE_LETTERS, step.options, strict=False)]
    how = "the letters of all right options" if step.stage == "lead" else "the letter of the right option"
    return "\n".join([step.question, *listed, f"Answer with {how}."])
