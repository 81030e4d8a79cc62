"""The wording of every question and prompt, and the quantities that are asked about.

Formats: `open` (name what is there), `closed` (yes/no), `choice` (lettered options), `fill` (complete the sentence),
`report` (describe the ECG).
"""

import re
import string
from dataclasses import dataclass

__all__ = [
    "CHOICE_LETTERS",
    "FORMATS",
    "IMAGE_TOKEN",
    "MEASUREMENTS",
    "NO",
    "NOTHING_FOUND",
    "PULSE_SYSTEM",
    "QUESTIONS",
    "REPORT_QUESTION",
    "RHYTHM_QUESTION",
    "TASKS",
    "YES",
    "Measurement",
    "pulse_prompt",
    "without_image_token",
]

FORMATS = ("open", "closed", "choice", "fill", "report")
TASKS = ("diagnosis", "rhythm", "axis", "heart_rate", "pr_interval", "qrs_duration", "qt_interval", "report")
IMAGE_TOKEN = "<image>"
YES, NO = "yes", "no"
NOTHING_FOUND = "none of these"
CHOICE_LETTERS = string.ascii_uppercase[:8]

# LLaVA's Vicuna prompt, which PULSE (arXiv 2410.19008) was trained with.
PULSE_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

QUESTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("open", "diagnosis"): (
        "What does this ECG show?",
        "Which abnormalities can be seen in this ECG?",
        "Name the findings in this ECG.",
    ),
    ("open", "rhythm"): ("What is the rhythm of this ECG?", "Which rhythm does this ECG show?"),
    ("open", "axis"): (
        "What is the electrical axis in this ECG?",
        "How is the electrical axis of the heart in this ECG?",
    ),
    ("closed", "diagnosis"): ("Does this ECG show {label}?", "Is there {label} in this ECG?"),
    ("closed", "rhythm"): ("Is the rhythm of this ECG {label}?", "Does this ECG show {label}?"),
    ("closed", "axis"): ("Does this ECG show {label}?",),
    ("choice", "diagnosis"): ("Which of these findings does this ECG show?", "Which finding is present in this ECG?"),
    ("choice", "rhythm"): ("Which rhythm does this ECG show?", "What is the rhythm of this ECG?"),
    ("choice", "axis"): ("What is the electrical axis in this ECG?",),
    ("fill", "diagnosis"): ("Complete the sentence: This ECG shows ____.",),
    ("fill", "rhythm"): ("Complete the sentence: The rhythm is ____.",),
    ("fill", "axis"): ("Complete the sentence: The electrical axis shows ____.",),
    ("open", "measurement"): (
        "What is the {name} in this ECG, in {unit}?",
        "Measure the {name} of this ECG in {unit}.",
    ),
    ("closed", "measurement"): ("Is the {name} in this ECG {side} {threshold} {unit}?",),
    ("choice", "measurement"): ("Which value is closest to the {name} in this ECG?",),
    ("fill", "measurement"): ("Complete the sentence: The {name} is ____ {unit}.",),
    ("report", "report"): ("Write a report on this ECG.", "Interpret this ECG and write a short report."),
}
RHYTHM_QUESTION = QUESTIONS["open", "rhythm"][0]
"""What is asked where any question will do: checks of exported models, counts of tokens."""
REPORT_QUESTION = QUESTIONS["report", "report"][0]
"""What is asked of an ECG when the user asks nothing in particular."""
CLASS_LIST = (
    "Which of these findings does this ECG show: {classes}? Name every one that applies, or answer '{nothing}'."
)
CHOICE = "{question} {options} Answer with the letter and the text of one option."


@dataclass(frozen=True)
class Measurement:
    """A quantity read off the paper.

    Attributes:
        name: Wording.
        unit: Unit, in words that stand in questions and answers.
        tolerance: An answer within ± this is right: one small square (40 ms) for PR and QT, half of it for QRS.
        spacing: Smallest distance between two options of a multiple-choice question.
        limits: Thresholds for yes/no questions, the usual borders of normal.
        plausible: Values outside are taken for annotation faults and not asked about.
    """

    name: str
    unit: str
    tolerance: float
    spacing: float
    limits: tuple[float, ...]
    plausible: tuple[float, float]


MEASUREMENTS = {
    "heart_rate": Measurement("heart rate", "beats per minute", 5.0, 12.0, (60.0, 100.0), (20.0, 300.0)),
    "pr_interval": Measurement("PR interval", "milliseconds", 40.0, 30.0, (120.0, 200.0), (60.0, 500.0)),
    "qrs_duration": Measurement("QRS duration", "milliseconds", 20.0, 20.0, (100.0, 120.0), (30.0, 300.0)),
    "qt_interval": Measurement("QT interval", "milliseconds", 40.0, 40.0, (350.0, 440.0), (200.0, 700.0)),
}

# A mark that stands for a noun: behind one of these it is "the image", behind an article "image", else it is left out.
_BEFORE = ("about", "at", "from", "in", "of", "on", "see", "to", "with")
_ARTICLES = ("a", "an", "each", "every", "that", "the", "this")
_INSIDE = re.compile(rf"(\w+)[ \t]+{IMAGE_TOKEN}(?=[ \t]+\w|[ \t]*[,.;:?!])")
_AROUND = re.compile(rf"\n?[ \t]*{IMAGE_TOKEN}[ \t]*\n?")


def without_image_token(text: str) -> str:
    r"""A message without the mark of its image, which a chat template puts in by itself; a sentence around it stays one.

    Example:
        >>> without_image_token("<image>\nLook at <image> and say."), without_image_token("The ECG <image> shows")
        ('Look at the image and say.', 'The ECG shows')
    """

    def noun(match: re.Match[str]) -> str:
        word = match[1].lower()
        return match[1] + (" the image" if word in _BEFORE else " image" if word in _ARTICLES else "")

    return _AROUND.sub(_gap, _INSIDE.sub(noun, text)).strip()


def _gap(match: re.Match[str]) -> str:
    """What stays between the texts beside a mark."""
    if "\n" in match[0]:
        return "\n"
    return " " if match[0][0].isspace() and match[0][-1].isspace() else ""


def pulse_prompt(question: str) -> str:
    r"""Return the whole text prompt that PULSE-7B expects, up to where it starts to answer.

    Example:
        >>> pulse_prompt("What is the rhythm?")[-44:]
        'USER: <image>\nWhat is the rhythm? ASSISTANT:'
    """
    return f"{PULSE_SYSTEM} USER: {IMAGE_TOKEN}\n{question} ASSISTANT:"
