"""Questions and answers → chat text with the characters to learn, for any processor's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from hf_evl_ecg.qa.prompts import without_image_token

__all__ = [
    "ChatTemplateError",
    "ChatText",
    "ExampleError",
    "MissingAnswerError",
    "Turn",
    "TurnRanges",
    "chat_messages",
    "read_turns",
    "render_chat",
    "special_tokens",
]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_SLOTS = {
    "user": "QUESTION{}SLOT",
    "assistant": "ANSWER{}SLOT",
}  # templates trim, escape or split at anything but these
_STAND_IN = {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}  # for an answer that is cut off again


class ExampleError(ValueError):
    """An example that cannot be learnt from; the text names the record and says what is wrong.

    Args:
        record: Name of the record.
        reason: What is wrong, and what to do.
        row: Which example of a batch it is; several may be about one record.
    """

    def __init__(self, record: str, reason: str, row: int | None = None) -> None:
        super().__init__(f"record {record!r:.200}: {reason}")
        self.record = record
        self.row = row


class MissingAnswerError(ExampleError):
    """A question without an answer, or an example without a question."""


class ChatTemplateError(ValueError):
    """A chat template in which the answers cannot be found."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer, without image tags; the answer is empty where nobody knows one (see `read_turns`)."""

    question: str
    answer: str


@dataclass(frozen=True)
class TurnRanges:
    """Character ranges ``[start, end)`` of a turn's texts in a rendered chat, without white space around them.

    Attributes:
        question: Where the question stands; None if the template alters it.
        answer: Where the answer stands.
        question_bytes: Length of the question in UTF-8, whatever a template makes of it.
    """

    question: tuple[int, int] | None
    answer: tuple[int, int]
    question_bytes: int

    def moved(self, by: int) -> TurnRanges:
        """The same ranges ``by`` characters later."""
        question = self.question and (self.question[0] + by, self.question[1] + by)
        return TurnRanges(question, (self.answer[0] + by, self.answer[1] + by), self.question_bytes)


@dataclass(frozen=True)
class ChatText:
    """A rendered conversation, the character ranges ``[start, end)`` of what the model has to produce, and its turns."""

    text: str
    spans: tuple[tuple[int, int], ...]
    turns: tuple[TurnRanges, ...]

    @property
    def prompt_end(self) -> int:
        """Where the first answer begins; the end of a text without any."""
        return self.spans[0][0] if self.spans else len(self.text)


def read_turns(example: Mapping[str, Any], record: str, *, unanswered: str = "refuse") -> tuple[Turn, ...]:
    """The turns of an example in any of three forms.

    - ``question`` and ``answer`` strings,
    - ``conversations``: ``[{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]`` (ECGInstruct, LLaVA),
    - ``messages``: ``[{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]``.

    Args:
        example: The example.
        record: Its name for messages.
        unanswered: ``"use"`` lets the last question be without an answer: None, empty, or not there at all.

    Raises:
        MissingAnswerError: If a question or answer is missing or empty, or roles do not alternate.
    """
    column = next((name for name in ("conversations", "messages") if example.get(name) is not None), None)
    said = example[column] if column else ()
    if not isinstance(said, list | tuple) or not all(isinstance(message, Mapping) for message in said):
        raise MissingAnswerError(record, f"{column} must be a list of messages, each with its role and text.")
    if column == "conversations":
        pairs = [(str(m.get("from")), str(m.get("value") or "")) for m in said]
    elif column == "messages":
        pairs = [(str(m.get("role")), _plain(m.get("content"))) for m in said]
    else:
        pairs = [("user", _plain(example.get("question"))), ("assistant", _plain(example.get("answer")))]
    spoken = [(_ROLES.get(role, role), without_image_token(text)) for role, text in pairs if role != "system"]
    if unanswered == "use" and len(spoken) % 2 and spoken[-1][0] == "user":
        spoken.append(("assistant", ""))
    if not spoken or len(spoken) % 2 or [role for role, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        must = "questions (user, human) and answers (assistant, gpt) must alternate, beginning with a question and ending with an answer."
        raise MissingAnswerError(record, f"the roles are {[role[:40] for role, _ in spoken]}; {must}")
    turns = tuple(Turn(q, a) for (_, q), (_, a) in zip(spoken[::2], spoken[1::2], strict=True))
    for number, turn in enumerate(turns, 1):
        for what, text in (("question", turn.question), ("answer", turn.answer)):
            open_end = unanswered == "use" and what == "answer" and number == len(turns)
            if not text and not open_end:
                raise MissingAnswerError(record, f"turn {number} has an empty {what}; remove the turn or fill it in.")
    return turns


def chat_messages(turns: Sequence[Turn], *, system: str | None = None, images: int = 1) -> list[dict[str, Any]]:
    """Messages in the form every processor's chat template takes; the images come before the first question.

    They end with the question of a last turn without answer.
    """
    messages: list[dict[str, Any]] = []
    if system is not None:
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    for number, turn in enumerate(turns):
        pictures = [{"type": "image"}] * (images if number == 0 else 0)
        messages.append({"role": "user", "content": [*pictures, {"type": "text", "text": turn.question}]})
        if turn.answer:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages


def render_chat(processor: Any, messages: list[dict[str, Any]]) -> ChatText:
    """Apply a processor's chat template and find the answers in the result.

    The template is rendered a second time with a marker in place of every answer, so that nothing has to be known
    about it: it may have ``{% generation %}`` tags or not, trim its input, or open the assistant's turn in any way.
    Each span begins where the generation prompt ends (a space before the answer, say, is learnt with it) and includes
    the end-of-turn token that follows the answer. Where a template has none (LLaVA-1.6-Vicuna), the tokenizer's
    end-of-sequence token is put after every answer, so that the model learns to stop; the text ends with it.

    A chat whose last question has no answer ends where the answer would begin, behind the generation prompt: its text and
    tokens are those of the same chat with an answer up to there.

    Raises:
        ChatTemplateError: If the processor has no chat template, or one that alters the answers.
    """
    if messages[-1]["role"] == "user":
        return _without_last_answer(render_chat(processor, [*messages, _STAND_IN]))
    try:
        text = processor.apply_chat_template(messages, tokenize=False)
        questions, answers = (
            [m["content"][-1]["text"] for m in messages if m["role"] == role] for role in ("user", "assistant")
        )
        pieces = _fixed_pieces(processor, messages, ("assistant",))
        around = _fixed_pieces(processor, messages, ("user", "assistant"))
        first = next(i for i, m in enumerate(messages) if m["role"] == "assistant")
        prompt = processor.apply_chat_template(messages[:first], tokenize=False, add_generation_prompt=True)
    except (ValueError, TypeError, KeyError, TemplateError) as error:
        raise ChatTemplateError(f"the chat template of {type(processor).__name__} failed: {error}") from error
    if len(pieces) != len(answers) + 1:
        raise ChatTemplateError(
            f"the chat template of {type(processor).__name__} shows {len(pieces) - 1} of {len(answers)} answers; "
            "it must render every assistant turn once."
        )
    starts, ends = _locate(text, pieces, answers, type(processor).__name__)
    turns = _turn_ranges(text, around, questions, starts, ends)
    opening = pieces[0][len(prompt) :] if pieces[0].startswith(prompt) else ""
    starts = [s - len(opening) if text.endswith(opening, 0, s) else s for s in starts]
    return _close_turns(text, pieces, starts, ends, turns, processor.tokenizer)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Tokens that stand for no text, such as the end of a turn, padding and the image placeholder."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def _without_last_answer(chat: ChatText) -> ChatText:
    """A chat up to where its last answer begins."""
    end, last = chat.spans[-1][0], chat.turns[-1]
    turns = (*chat.turns[:-1], TurnRanges(last.question, (end, end), last.question_bytes))
    return ChatText(chat.text[:end], chat.spans[:-1], turns)


def _fixed_pieces(processor: Any, messages: list[dict[str, Any]], roles: Sequence[str]) -> list[str]:
    """What a chat template writes around the texts of some roles."""
    marked, slots = [], []
    for number, message in enumerate(messages):
        if message["role"] in roles:
            slots.append(_SLOTS[message["role"]].format(number))
            message = {**message, "content": [*message["content"][:-1], {"type": "text", "text": slots[-1]}]}
        marked.append(message)
    return re.split("|".join(slots), processor.apply_chat_template(marked, tokenize=False))


def _locate(text: str, pieces: list[str], answers: list[str], name: str) -> tuple[list[int], list[int]]:
    """Where each answer, as it is or trimmed, stands between the fixed pieces of a rendered chat."""
    starts, ends, at = [], [], len(pieces[0])
    fits = text.startswith(pieces[0])
    for answer, after in zip(answers, pieces[1:], strict=True):
        # with what follows it, as one answer may be the beginning of another text
        shown = next((a for a in (answer, answer.strip()) if text.startswith(a + after, at)), None)
        if shown is None or not fits:
            raise ChatTemplateError(
                f"the chat template of {name} does not show the answer {answer[:60]!r} unchanged; use a template that "
                "renders the assistant's text as it is (trimming white space is fine)."
            )
        starts.append(at)
        ends.append(at + len(shown))
        at = ends[-1] + len(after)
    return starts, ends


def _turn_ranges(
    text: str, around: list[str], questions: list[str], starts: list[int], ends: list[int]
) -> tuple[TurnRanges, ...]:
    """Where each turn's texts stand; the fixed pieces alternate before questions and before answers."""
    ranges = []
    complete = len(around) == 2 * len(questions) + 1  # a template may show a question twice or not at all
    for number, (question, last, start, end) in enumerate(zip(questions, [0, *ends], starts, ends, strict=False)):
        located = None
        if complete:
            before, behind = around[2 * number : 2 * number + 2]
            found = _stripped(text, last + len(before), start - len(behind))
            fits = text.startswith(before, last) and text.endswith(behind, last, start)
            located = found if fits and text[found[0] : found[1]] == question.strip() else None
        ranges.append(TurnRanges(located, _stripped(text, start, end), len(question.strip().encode())))
    return tuple(ranges)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """A range without the white space at its ends."""
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    return start, start + len(inside.strip())


def _close_turns(
    text: str,
    pieces: list[str],
    starts: list[int],
    ends: list[int],
    turns: tuple[TurnRanges, ...],
    tokenizer: PreTrainedTokenizerBase,
) -> ChatText:
    """Extend the spans by the end-of-turn token: the special token that follows the last answer."""
    # the longest first, as one token's text may begin another's
    special = sorted(map(re.escape, special_tokens(tokenizer)), key=len, reverse=True)
    closing = re.match(rf"\s*({'|'.join(special)})", pieces[-1]) if special else None
    if closing is not None:
        mark = closing.group(0)
        closed = [e + (len(mark) if after.startswith(mark) else 0) for e, after in zip(ends, pieces[1:], strict=True)]
        return ChatText(text, tuple(zip(starts, closed, strict=True)), turns)
    if tokenizer.eos_token is None:
        raise ChatTemplateError(
            "neither the chat template nor the tokenizer has a token that ends an answer, so a model could never "
            "learn to stop; set tokenizer.eos_token."
        )
    closed_text, spans = "", []
    for start, end, before in zip(starts, ends, [0, *ends], strict=False):
        opening = len(closed_text) + start - before
        closed_text += text[before:end] + tokenizer.eos_token
        spans.append((opening, len(closed_text)))
    moved = tuple(turn.moved(number * len(tokenizer.eos_token)) for number, turn in enumerate(turns))
    return ChatText(closed_text, tuple(spans), moved)


def _plain(content: Any) -> str:
    """Text of a message: a string, or the text parts of a content list."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list | tuple) else []
    return "".join(str(part.get("text") or "") for part in parts if part.get("type") == "text")
