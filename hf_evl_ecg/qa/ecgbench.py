"""The released ECGBench scorers, their defects included, so that published rows can be compared (PULSE, arXiv 2410.19008).

Nothing here should be used for new results. What the released scorers do: a label counts where its name is a substring
of the answer, so "NORM" is found in "ABNORMAL" and "ST" in "STTC"; "AUC" is taken over these hard answers and so equals
balanced accuracy; ECG-QA answers are compared as sets of characters; a multiple-choice answer without a letter gets a
random one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_evl_ecg.arguments import check_choice

from .metrics import class_f1, hamming_loss, roc_auc

__all__ = [
    "SUBSETS",
    "Subset",
    "compat_choice",
    "compat_labels",
    "compat_option_set",
    "compat_scores",
]

LETTERS = "ABCDEFGH"
_QA_SUFFIX = "Only answer based on the given Options without any explanation."


@dataclass(frozen=True)
class Subset:
    """One test set of ECGBench.

    Attributes:
        kind: "labels" (several of a few), "choice" (a letter) or "options" (a set of given texts).
        size: Number of questions.
        labels: Names that the answer is searched for.
        letters: Letters that an answer without one is replaced by.
    """

    kind: str
    size: int
    labels: tuple[str, ...] = ()
    letters: str = ""


SUBSETS = {
    "ptb-test": Subset("labels", 2082, ("NORM", "MI", "STTC", "CD", "HYP")),
    "cpsc-test": Subset("labels", 2061, ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")),
    "code15-test": Subset("labels", 1400, ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")),
    "ecgqa-test": Subset("options", 1317),
    "csn-test-no-cot": Subset("choice", 1611, letters=LETTERS),
    "g12-test-no-cot": Subset("choice", 2026, letters=LETTERS),
    "mmmu-ecg": Subset("choice", 200, letters=LETTERS[:4]),
}


def compat_labels(text: str, subset: str, *, reference: bool = False) -> tuple[str, ...]:
    """Labels whose names are substrings of an answer.

    CODE-15 adds "NORM" or "ABNORMAL", reads only what follows "Answer:", and takes these two from a reference only where
    it is nothing else.

    Example:
        >>> compat_labels("ABNORMAL: STTC", "ptb-test")
        ('NORM', 'STTC')
    """
    spec = _subset(subset, "labels")
    if subset != "code15-test":
        return tuple(label for label in spec.labels if label in text)
    if reference:
        return (text,) if text in ("NORM", "ABNORMAL") else tuple(label for label in spec.labels if label in text)
    text = text.split("Answer:")[-1]
    state = ("ABNORMAL",) if "ABNORMAL" in text else ("NORM",) if "NORM" in text else ()
    return state + tuple(label for label in spec.labels if label in text)


def compat_choice(text: str) -> str | None:
    """The letter that the released scorer reads: the first of "A." … "H." found anywhere in the answer, in this order.

    Example:
        >>> compat_choice("Not B. but A."), compat_choice("option B")
        ('A', None)
    """
    if len(text) == 1 and text in LETTERS:
        return text
    for letter in LETTERS:
        if f"{letter}." in text:
            return letter
    if "The correct option is " in text:
        letter = text.split("The correct option is ")[-1][:1]
        return letter if letter and letter in LETTERS else None
    if "Answer:" in text:
        answer = text.split("Answer:")[-1]
        return next((letter for letter in LETTERS if letter in answer), None)
    return None


def compat_option_set(text: str, question: str) -> str:
    """Options of an ECG-QA question that are substrings of the answer, run together; compared as a set of characters."""
    options = question.split("Options:")[-1].replace(_QA_SUFFIX, "").split(",")
    return "".join(option.strip() for option in options if option.strip().lower() in text.lower())


def compat_scores(
    subset: str,
    questions: Sequence[str],
    answers: Sequence[str],
    references: Sequence[str],
    *,
    seed: int = 42,
    allow_partial: bool = False,
) -> dict[str, float]:
    """Score one test set of ECGBench as its released scorer does.

    Args:
        subset: A name in `SUBSETS`.
        questions: The questions (read for ECG-QA only).
        answers: What the model generated.
        references: The right answers.
        seed: Seed of the random letters; 42 is the released one.
        allow_partial: Accept another number of answers than the test set has, which the released scorer skips silently.

    Returns:
        As fractions: "macro_f1", "macro_auc" (of hard answers; NaN if a class is in every reference, as released),
        "hamming_loss"; or "accuracy". For multiple choice also "random_letters", the number of letters drawn.

    Raises:
        ValueError: An unknown subset, lists of unequal length, or a wrong number of answers.
    """
    check_choice("subset", subset, SUBSETS)
    if not len(questions) == len(answers) == len(references) or not answers:
        raise ValueError(
            f"{len(questions)} questions, {len(answers)} answers, {len(references)} references: one of each is needed per question"
        )
    spec = SUBSETS[subset]
    if len(answers) != spec.size and not allow_partial:
        raise ValueError(
            f"{len(answers)} answers: {subset} has {spec.size} questions (set allow_partial to score a part)"
        )
    if spec.kind == "labels":
        return _label_scores(
            [compat_labels(text, subset) for text in answers],
            [compat_labels(text, subset, reference=True) for text in references],
        )
    if spec.kind == "options":
        same = [set(compat_option_set(a, q)) == set(r) for a, q, r in zip(answers, questions, references, strict=True)]
        return {"accuracy": float(np.mean(same))}
    rng = random.Random(seed)
    letters = [compat_choice(text) for text in answers]
    drawn = [letter or rng.choice(spec.letters) for letter in letters]
    correct = [letter == reference[:1] for letter, reference in zip(drawn, references, strict=True)]
    return {"accuracy": float(np.mean(correct)), "random_letters": float(letters.count(None))}


def _label_scores(predicted: Sequence[tuple[str, ...]], truth: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """Scores over the classes that occur in the references; other predicted labels are ignored."""
    classes = sorted({label for labels in truth for label in labels})
    if not classes:
        raise ValueError("references: none holds a label of this test set")
    y_true = np.array([[label in labels for label in classes] for labels in truth])
    y_pred = np.array([[label in labels for label in classes] for labels in predicted])
    aucs = [float(roc_auc(y_true[:, i], y_pred[:, i])) for i in range(len(classes))]
    return {
        "macro_f1": float(np.mean(class_f1(y_true, y_pred))),
        "macro_auc": float(np.mean(aucs)),
        "hamming_loss": float(hamming_loss(y_true, y_pred)),
    }


def _subset(name: str, kind: str) -> Subset:
    check_choice("subset", name, [known for known, spec in SUBSETS.items() if spec.kind == kind])
    return SUBSETS[name]
