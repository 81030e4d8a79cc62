"""How probable a model finds each label in an ECG: the image is read once, each label's question only adds its words.

The probability of a label is that of "yes" against "no" as the answer to the closed question about it, in one fixed wording:
softmax over the log-likelihoods of the two whole answers, divided by the task's temperature. It is the quantity that
`hf_evl_ecg.inference.evaluation` scores closed questions by, so thresholds and temperatures fitted there hold here. Labels are asked one
by one: their probabilities do not sum to 1.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hf_evl_ecg.chat.conversations import ChatTemplateError, Turn
from hf_evl_ecg.qa.calibration import option_probabilities
from hf_evl_ecg.qa.grading import FAMILIES, candidate_answers, task_name
from hf_evl_ecg.qa.items import closed_question
from hf_evl_ecg.qa.labels import label_text

from .after_image import ImageQuestion, WordsAfterImage, question_follows_image, scores_after_images
from .likelihood import answer_token_ids

__all__ = ["LabelScorer", "check_labels", "label_question"]


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without duplicates.

    Raises:
        ValueError: A single text, or a code that is not in `hf_evl_ecg.qa.labels.LABELS`.

    Example:
        >>> check_labels(["AF", "LBBB", "AF"])
        ('AF', 'LBBB')
    """
    if isinstance(labels, str):
        raise ValueError(f"labels={labels!r} is a text; give a list of codes such as ['AF', 'LBBB']")
    for label in labels:
        label_text(label)
    return tuple(dict.fromkeys(labels))


def label_question(label: str) -> dict[str, Any]:
    """The closed question about a label, as an item of `hf_evl_ecg.qa.items`, always in the same wording.

    Example:
        >>> label_question("AF")["question"], label_question("AF")["task"]
        ('Does this ECG show atrial fibrillation?', 'rhythm')
    """
    task = next(task for task, family in FAMILIES.items() if label in family)
    return closed_question("", task, label, True, random.Random(0))


class LabelScorer:
    """Probabilities of labels under one model.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        processor: Its processor.
        system_prompt: System message of the chat.
        temperatures: Task → temperature, from `hf_evl_ecg.qa.scoring.fit_temperatures`; 1 if absent.

    Raises:
        ValueError: A temperature that is not above 0.

    Example:
        >>> from PIL import Image
        >>> from hf_evl_ecg.chat.collator import EVLECGCollator
        >>> batch = EVLECGCollator(processor)([{**label_question("AF"), "image": Image.new("RGB", (56, 40))}])
        >>> (scores,) = LabelScorer(student, processor)(batch, ["AF", "LBBB"])
        >>> [0 < scores[label] < 1 for label in ("AF", "LBBB")]
        [True, True]
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        system_prompt: str | None = None,
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.system_prompt = system_prompt
        self.temperatures = dict(temperatures or {})
        if bad := {task: value for task, value in self.temperatures.items() if not value > 0}:
            raise ValueError(f"temperatures={bad}: must be above 0")
        self._encode = WordsAfterImage(processor, system_prompt)
        self._words: dict[str, tuple[list[int], list[list[int]]]] = {}

    def __call__(self, batch: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, float]]:
        """Score every label for every sample.

        Args:
            batch: From `hf_evl_ecg.chat.collator.EVLECGCollator`, on the model's device; which questions it asks does not matter.
            labels: Codes of `hf_evl_ecg.qa.labels.LABELS`.

        Returns:
            Per sample: label → probability, in the order of ``labels``.

        Raises:
            ChatTemplateError: The chat template shows a question before its image.
            ValueError: An unknown label.
        """
        labels = check_labels(labels)
        size = batch["input_ids"].shape[0]
        if not labels:
            return [{} for _ in range(size)]
        asked = [ImageQuestion(row, *self._after_image(label)) for label in labels for row in range(size)]
        likelihoods = scores_after_images(self.model, batch, asked, self.processor.tokenizer.pad_token_id, rows=size)
        scores: list[dict[str, float]] = [{} for _ in range(size)]
        for column, label in enumerate(labels):
            temperature = self.temperatures.get(task_name(label_question(label)), 1.0)
            present = option_probabilities(likelihoods[column * size : (column + 1) * size], temperature)[:, 0]
            for row, probability in zip(scores, present, strict=True):
                row[label] = float(probability)
        return scores

    def _after_image(self, label: str) -> tuple[list[int], list[list[int]]]:
        """Tokens from the image to the answer, and of each answer."""
        if label not in self._words:
            if not question_follows_image(self.processor, self.system_prompt):
                raise ChatTemplateError(
                    f"the chat template of {type(self.processor).__name__} shows the question before its image, so labels "
                    "cannot share one reading of the image; give labels=() and ask closed questions"
                )
            item = label_question(label)
            turns = [Turn(item["question"], item["answer"])]
            question = self._encode(turns)
            answers = answer_token_ids(self.processor, candidate_answers(item), system=self.system_prompt)
            self._words[label] = question, answers
        return self._words[label]
