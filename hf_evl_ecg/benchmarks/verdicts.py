"""What a judge says of reports and of answers in the arena: prompts, raw verdicts on disk, marks read from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_evl_ecg.inference.answer_file import AnswerFile
from hf_evl_ecg.qa.bootstrap import Estimate
from hf_evl_ecg.qa.groups import Answer

from .answering import BenchmarkAnswer
from .judge import Judge
from .strict import check_size, resample_ecgs, share
from .tasks import BenchmarkTask

__all__ = ["INSTRUCTIONS", "Verdict", "ask_judge", "compat_marks", "judge_prompt", "read_marks", "verdict_scores"]

HIGHEST = 10.0
_ASPECTS = {  # the aspects of the released judges, in other words
    "diagnosis": "whether the diagnoses of the reference (conduction, ischaemia, hypertrophy and so on) are named, and no others",
    "form": "whether the findings on waves, complexes, segments and intervals (P, QRS, ST, T, PR, QT) are those of the reference",
    "rhythm": "whether the rhythm is that of the reference",
    "accuracy": "whether the findings and diagnoses stated are right, by the reference",
    "completeness": "whether what matters in the reference (rhythm, axis, waves, causes) is covered",
    "instruction_adherence": "whether the answer does what the question asks for, right or wrong",
}
_HEAD = (
    "You grade a text about an electrocardiogram against a reference written by experts. Give each aspect a mark from 0 (all wrong "
    "or missing) over 5 (partly right, with clear errors or gaps) to 10 (fully right). Longer texts are not better. What the "
    "reference does not mention is neither rewarded nor punished, unless it contradicts the reference."
)
_ALIASES = {"waveform": "form", "instructionadherence": "instruction_adherence", "instruction": "instruction_adherence"}
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


def _instructions(aspects: Sequence[str]) -> str:
    lines = "\n".join(f"- {aspect}: {_ASPECTS[aspect]}" for aspect in aspects)
    form = ", ".join(f'"{aspect}": {{"score": 0 to 10, "explanation": "…"}}' for aspect in aspects)
    return f"{_HEAD}\n\nAspects:\n{lines}\n\nReply with one JSON object and nothing else: {{{form}}}"


INSTRUCTIONS: dict[str, str] = {
    "ptb-test-report": _instructions(("diagnosis", "form", "rhythm")),
    "arena": _instructions(("accuracy", "completeness", "instruction_adherence")),
}
"""What the judge is told, by task. The released prompts are worded otherwise; give them to `ask_judge` to repeat a published row."""


@dataclass(frozen=True)
class Verdict:
    """What the judge wrote about one turn of one record.

    Attributes:
        answer: The record with the model's answers.
        turn: Which of them it is about.
        text: The raw verdict; None where the answer was empty, which needs no judge.
    """

    answer: BenchmarkAnswer
    turn: int
    text: str | None


def judge_prompt(instructions: str, question: str | None, reference: str, answer: str) -> str:
    """The prompt for one verdict: instructions, the question where it matters, reference, answer.

    Example:
        >>> judge_prompt("Grade.", None, "AF.", "Sinus rhythm.").splitlines()
        ['Grade.', '', '[Reference]', 'AF.', '', '[Text to grade]', 'Sinus rhythm.']
    """
    parts = [instructions, *([f"[Question]\n{question}"] if question else [])]
    return "\n\n".join([*parts, f"[Reference]\n{reference}", f"[Text to grade]\n{answer}"])


def ask_judge(
    judge: Judge,
    task: BenchmarkTask,
    answers: Sequence[BenchmarkAnswer],
    *,
    path: str | Path | None = None,
    instructions: str | None = None,
    workers: int = 4,
    progress_bar: bool = True,
) -> list[Verdict]:
    """Let a judge read every answer; an empty one is wrong without asking.

    Args:
        judge: Who judges.
        task: "ptb-test-report" or "arena".
        answers: Answers of one model.
        path: A jsonl file that raw verdicts are added to as they come; those that stand there already are not asked for again.
        instructions: What the judge is told instead of `INSTRUCTIONS`.
        workers: Requests at once.
        progress_bar: Show progress.

    Raises:
        JudgeError: The judge refused or failed for good; the verdicts that came before are in the file.
        AnswerFileError: The file holds verdicts of another judge.
    """
    told = instructions or INSTRUCTIONS[task.name]
    # A verdict is kept as a judge's answer to a prompt: the file survives being killed, and refuses another judge.
    store = AnswerFile(
        path, {"judge": judge.url, "model": judge.model, "temperature": judge.temperature, "task": task.name}
    )
    with_question = task.name == "arena"
    prompts: dict[str, tuple[str, str]] = {}
    places: list[tuple[BenchmarkAnswer, int, str | None]] = []
    for answer in answers:
        for number, (turn, text) in enumerate(zip(answer.question.turns, answer.texts, strict=True)):
            if not text.strip():
                places.append((answer, number, None))
                continue
            prompt = judge_prompt(told, turn.question if with_question else None, turn.answer, text)
            key = hashlib.sha256(prompt.encode()).hexdigest()[:32]
            prompts[key] = answer.question.record, prompt
            places.append((answer, number, key))
    todo = {key: pair for key, pair in prompts.items() if key not in store.answers}
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(judge.ask, prompt): key for key, (_, prompt) in todo.items()}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="verdicts", disable=not progress_bar):
                key = futures[future]
                store.add({key: Answer(todo[key][0], future.result())}, {key: key})
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # a refused key would be refused hundreds of times
            raise
    return [Verdict(a, number, None if key is None else store.answers[key].text) for a, number, key in places]


def read_marks(text: str, aspects: Sequence[str]) -> dict[str, float] | None:
    """Marks of a verdict: a JSON object that gives each aspect a number from 0 to 10, alone or as its "score".

    Returns:
        Aspect → mark; None if an aspect is missing, or has no such mark.

    Example:
        >>> aspects = ("diagnosis", "form", "rhythm")
        >>> read_marks('Here: {"Diagnosis": {"Score": 8}, "Waveform": {"Score": 5}, "Rhythm": 10}', aspects)
        {'diagnosis': 8.0, 'form': 5.0, 'rhythm': 10.0}
        >>> read_marks('{"diagnosis": 11, "form": 5, "rhythm": 10}', aspects) is None
        True
    """
    found: dict[str, float] = {}
    for name, value in _json_object(text).items():
        plain = re.sub(r"[^a-z]", "", name.lower())
        aspect = _ALIASES.get(plain, plain)
        mark = _mark(value)
        if aspect in aspects and mark is not None and 0 <= mark <= HIGHEST:
            found[aspect] = mark
    return {aspect: found[aspect] for aspect in aspects} if set(found) == set(aspects) else None


def compat_marks(text: str) -> float | None:
    """The mean of all marks in a verdict, whatever they are called, as the released scorer takes it; None without one."""
    marks = [mark for value in _json_object(text).values() if (mark := _mark(value)) is not None]
    return float(np.mean(marks)) if marks else None


def verdict_scores(
    task: BenchmarkTask,
    verdicts: Sequence[Verdict],
    *,
    allow_partial: bool = False,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Estimate | None], dict[str, float]]:
    """Scores of a judged task, as fractions of the highest mark: of each aspect and as ``judge_score``, their mean.

    ``unparsed`` is the share of empty answers, which get no mark at all, and ``unparsed_verdicts`` that of verdicts that cannot be read:
    the judge's fault, so they are left out.

    Returns:
        Strict scores, and as released (``judge_score``: mean over the verdicts with any marks; empty answers are not among them).

    Raises:
        ValueError: Another number of records than the test set has, or no verdict that can be read.
    """
    answers = list({verdict.answer.question.record: verdict.answer for verdict in verdicts}.values())
    check_size(task, answers, allow_partial)
    marks = [
        dict.fromkeys(task.aspects, 0.0) if verdict.text is None else read_marks(verdict.text, task.aspects)
        for verdict in verdicts
    ]
    read = [(verdict, mark) for verdict, mark in zip(verdicts, marks, strict=True) if mark is not None]
    if not read:
        raise ValueError(f"{task.name}: none of {len(verdicts)} verdicts can be read (look at the file of verdicts)")
    weights = resample_ecgs([verdict.answer for verdict, _ in read], n_bootstrap, seed)
    scores = {aspect: share([mark[aspect] / HIGHEST for _, mark in read], weights) for aspect in task.aspects}
    scores = {"judge_score": share([sum(m.values()) / len(m) / HIGHEST for _, m in read], weights), **scores}
    scores["unparsed"] = share([verdict.text is None for verdict in verdicts], None)
    scores["unparsed_verdicts"] = share([mark is None for mark in marks], None)
    released = [mean for v in verdicts if v.text is not None and (mean := compat_marks(v.text)) is not None]
    return scores, {"judge_score": float(np.mean(released)) / HIGHEST} if released else {}


def _json_object(text: str) -> Mapping[str, Any]:
    """The object between the first and the last brace, behind a model's thoughts; empty if there is none."""
    text = _THOUGHTS.sub("", text)
    try:
        found = json.loads(text[text.find("{") : text.rfind("}") + 1])
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _mark(value: Any) -> float | None:
    """A number, alone or under "score" in any case; true and false are none."""
    if isinstance(value, Mapping):
        value = next((inner for name, inner in value.items() if name.lower() == "score"), None)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(?:\.\d+)?\s*(?:/\s*10)?\s*", value):
        value = float(value.split("/")[0])
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
