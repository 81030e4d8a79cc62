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

import torch
from PIL import Image
from torch import Tensor, nn

from hf_evl_ecg.chat.conversations import ChatTemplateError, Turn, chat_messages, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.qa.calibration import option_probabilities
from hf_evl_ecg.qa.grading import FAMILIES, candidate_answers, task_name
from hf_evl_ecg.qa.items import closed_question
from hf_evl_ecg.qa.labels import label_text
from hf_evl_ecg.tokens import IGNORE

from .likelihood import answer_token_ids, option_log_likelihoods

__all__ = ["LabelScorer", "answers_after_image", "check_labels", "label_question"]

_BLANK = Image.new("RGB", (224, 224), "white")  # the words after an image are the same for every image


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
        words = [self._after_image(label) for label in labels]
        likelihoods = answers_after_image(
            self.model,
            batch,
            self.processor.image_token_id,
            [question for question, _ in words],
            [answers for _, answers in words],
            self.processor.tokenizer.pad_token_id,
        ).cpu()
        scores: list[dict[str, float]] = [{} for _ in range(size)]
        for column, label in enumerate(labels):
            temperature = self.temperatures.get(task_name(label_question(label)), 1.0)
            present = option_probabilities(likelihoods[:, column].numpy(), temperature)[:, 0]
            for row, probability in zip(scores, present, strict=True):
                row[label] = float(probability)
        return scores

    def _after_image(self, label: str) -> tuple[list[int], list[list[int]]]:
        """Tokens from the image to the answer, and of each answer."""
        if label not in self._words:
            item = label_question(label)
            turns = [Turn(item["question"], item["answer"])]
            chat = render_chat(self.processor, chat_messages(turns, system=self.system_prompt))
            encoded = encode_chats(self.processor, [chat], [_BLANK], records=[label])
            ids, answer = encoded["input_ids"][0], encoded["labels"][0] != IGNORE
            image = (ids == self.processor.image_token_id).nonzero()[:, 0]
            question = ids[int(image[-1]) + 1 : int(answer.nonzero()[0, 0])].tolist()
            answers = answer_token_ids(self.processor, candidate_answers(item), system=self.system_prompt)
            if item["question"] not in self.processor.tokenizer.decode(question):
                raise ChatTemplateError(
                    f"the chat template of {type(self.processor).__name__} shows the question before its image, so labels "
                    "cannot share one reading of the image; give labels=() and ask closed questions"
                )
            self._words[label] = question, answers
        return self._words[label]


def answers_after_image(
    model: nn.Module,
    batch: Mapping[str, Any],
    image_token_id: int,
    questions: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
) -> Tensor:
    """Log-likelihood of answers to several questions about one image, which is read once.

    The image is read up to the first token behind it, so that positions go on from a token of text (they do not from an
    image's in M-RoPE); questions that begin otherwise, which no usual chat template makes, read it again.

    Args:
        model: A native vision-language model, or a PEFT model around one.
        batch: From `hf_evl_ecg.chat.collator.EVLECGCollator`; what stands behind its images does not matter.
        image_token_id: The model's image token.
        questions: Tokens of each question, from behind the image to where the answer begins; at least two each.
        answers: Tokens of the answers to each question, as many for each.
        pad_token_id: The padding token.

    Returns:
        In nats. Shape: (B, number of questions, number of answers), float64.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    behind = (ids == image_token_id).flip(1).cumsum(1).flip(1) == 0
    first = behind & (behind.cumsum(1) == 1)
    labels = torch.where(behind & ~first & mask, ids, IGNORE)
    likelihoods = ids.new_zeros((len(ids), len(questions), len(answers[0])), dtype=torch.float64)
    for token in dict.fromkeys(question[0] for question in questions):
        prompt = {**batch, "input_ids": torch.where(first, token, ids), "labels": labels}
        own = [number for number, question in enumerate(questions) if question[0] == token]
        # The question alone is an option as well: its likelihood is taken off those of question and answer together.
        options = [[*questions[i][1:], *answer] for i in own for answer in ((), *answers[i])]
        sums = option_log_likelihoods(model, prompt, [options] * len(ids), pad_token_id)
        grouped = sums.double().view(len(ids), len(own), -1)
        likelihoods[:, own] = grouped[..., 1:] - grouped[..., :1]
    return likelihoods
