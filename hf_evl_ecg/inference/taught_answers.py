"""Answers of a teacher in the place of those given, for training a student on them (sequence-level distillation).

Kim and Rush, "Sequence-level knowledge distillation", arXiv 1606.07947, with greedy decoding instead of beam search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from PIL import Image
from torch import nn

from hf_evl_ecg.chat.conversations import read_turns
from hf_evl_ecg.chat.examples import example_key, record_name

from .evaluation import answer_items

__all__ = [
    "GIVEN_COLUMNS",
    "TaughtQuestions",
    "has_taught_answers",
    "replace_answers",
    "single_questions",
    "teach_answers",
]

GIVEN_COLUMNS = {"answer": "given_answer", "conversations": "given_conversations"}
"""Column with answers → column that keeps those of before; where there is one of the latter, the former is a teacher's."""

_NO_ANSWER = "?"  # a question has to have one to be asked; what it says is not read


@dataclass
class TaughtQuestions:
    """Questions with a teacher's answers.

    Attributes:
        questions: The rows, with the answers of before in a column of `GIVEN_COLUMNS`.
        written: Answers that were replaced.
        same: Of these, answers that read as before.
        left_out: Questions that have no answer of the teacher, or an empty one.
    """

    questions: Dataset
    written: int = 0
    same: int = 0
    left_out: list[str] = field(default_factory=list)


def has_taught_answers(questions: Dataset) -> bool:
    """Whether a teacher wrote the answers of these questions."""
    return bool(set(GIVEN_COLUMNS.values()) & set(questions.column_names))


def single_questions(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each question of a row by itself, with what names its ECG: a conversation is asked question by question.

    So an answer does not rest on answers of before, as when a model is evaluated. It is free text, whatever its format was. A last
    question may have no answer yet.

    Example:
        >>> said = [{"from": "human", "value": "Rhythm?"}, {"from": "gpt", "value": "sinus"}]
        >>> single_questions({"record": "r1", "conversations": said})
        [{'record': 'r1', 'question': 'Rhythm?', 'answer': 'sinus'}]
    """
    place = {name: value for name, value in row.items() if name not in ("conversations", "messages", "format")}
    turns = read_turns(row, record_name(row), unanswered="use")
    return [{**place, "question": turn.question, "answer": turn.answer or _NO_ANSWER} for turn in turns]


def teach_answers(
    model: nn.Module,
    processor: Any,
    questions: Dataset,
    *,
    load_image: Callable[[Mapping[str, Any]], Image.Image],
    **options: Any,
) -> TaughtQuestions:
    """Let a teacher answer every question, greedily, and put its answers in the place of those given.

    Args:
        model: The teacher, on the device it runs on.
        processor: Its processor.
        questions: From `hf_evl_ecg.data.questions`: single questions or conversations.
        load_image: Row → PIL image.
        options: Further options of `hf_evl_ecg.inference.evaluation.answer_items`, such as ``path`` to go on where it stopped.

    Raises:
        AnswerFileError: The file of ``path`` was written with another teacher, processor, setting or other pictures.
        ValueError: A teacher wrote these answers already.

    Example:
        >>> asked = Dataset.from_list([{"id": "a", "question": "Rhythm?", "answer": "sinus"}])
        >>> def blank(item):
        ...     return Image.new("RGB", (56, 40), "white")
        >>> taught = teach_answers(student, processor, asked, load_image=blank, max_new_tokens=4)
        >>> taught.questions.column_names
        ['id', 'question', 'answer', 'given_answer']
    """
    if has_taught_answers(questions):
        raise ValueError("questions: a teacher wrote their answers already (give those of hf-evl-ecg prepare)")
    asked = [item for row in questions for item in single_questions(row)]
    done = answer_items(model, processor, asked, load_image=load_image, likelihoods=False, **options)
    answers = {example_key(item): answer.text or "" for item, answer in zip(done.items, done.answers, strict=True)}
    return replace_answers(questions, answers)


def replace_answers(questions: Dataset, answers: Mapping[str, str]) -> TaughtQuestions:
    """Put answers in the place of those given; a question without one, or with an empty one, is left out.

    Args:
        questions: Single questions or conversations.
        answers: `hf_evl_ecg.chat.examples.example_key` of a single question → its new answer.

    Returns:
        The rows; one whose every question is left out is left out itself.

    Example:
        >>> one = Dataset.from_list([{"id": "a", "question": "Rhythm?", "answer": "sinus"}])
        >>> replace_answers(one, {example_key(one[0]): "AF"}).questions[0]
        {'id': 'a', 'question': 'Rhythm?', 'answer': 'AF', 'given_answer': 'sinus'}
    """
    result = TaughtQuestions(questions)
    column = "conversations" if "conversations" in questions.column_names else "answer"
    kept: list[int] = []
    taught: list[Any] = []
    for number, row in enumerate(questions):
        new = list(_answered(single_questions(row), answers, result))
        if new:
            kept.append(number)
            taught.append(_said(new) if column == "conversations" else new[0]["answer"])
    rows = questions.select(kept).rename_column(column, GIVEN_COLUMNS[column])
    feature = questions.features[column]
    result.questions = rows.add_column(column, taught, feature=feature).select_columns(
        [*questions.column_names, GIVEN_COLUMNS[column]]
    )
    return result


def _answered(
    items: Sequence[dict[str, Any]], answers: Mapping[str, str], result: TaughtQuestions
) -> Iterable[dict[str, Any]]:
    """The questions that have an answer, with it; counts them."""
    for item in items:
        text = answers.get(example_key(item), "").strip()
        if not text:
            result.left_out.append(f"{record_name(item)}: no answer to {item['question']!r}")
            continue
        result.written += 1
        result.same += text.lower() == item["answer"].lower()
        yield {**item, "answer": text}


def _said(items: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Questions and answers as a conversation in LLaVA's form."""
    pairs = (("human", "question"), ("gpt", "answer"))
    return [{"from": role, "value": item[key]} for item in items for role, key in pairs]
