"""A teacher's answers in the place of those given: conversations, what is left out, going on, what the data sets keep."""

import json

import pytest
from datasets import Dataset, load_from_disk

from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.data.questions import CONVERSATION_FEATURES
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.inference.answer_file import AnswerFileError
from hf_evl_ecg.inference.asking import Asker
from hf_evl_ecg.inference.taught_answers import (
    has_taught_answers,
    replace_answers,
    single_questions,
    teach_answers,
)


def said(*pairs):
    return [{"from": role, "value": text} for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=True)]


@pytest.fixture
def conversations():
    """Two records; both are asked about the rhythm."""
    place = {"source": "s", "storage": "wfdb", "root": "r", "gain_per_mv": None, "split": "train", "patient": None}
    rows = [
        {"record": "a", **place, "conversations": said(("Rhythm?", "sinus"), ("Axis?", "left"))},
        {"record": "b", **place, "conversations": said(("Rhythm?", "AF"))},
    ]
    return Dataset.from_list(rows, CONVERSATION_FEATURES)


@pytest.fixture
def singles(ecg_examples):
    rows = [{**row, "format": "closed" if row["answer"] in ("yes", "no") else "fill"} for row in ecg_examples]
    return Dataset.from_list(rows)


def key(row, number=0):
    return example_key(single_questions(row)[number])


def test_every_turn_of_a_conversation_gets_its_own_answer(conversations):
    new = {key(conversations[0], 0): "flutter", key(conversations[0], 1): " left ", key(conversations[1]): "AF"}
    found = replace_answers(conversations, new)
    assert found.questions["conversations"][:] == [
        said(("Rhythm?", "flutter"), ("Axis?", "left")),
        said(("Rhythm?", "AF")),
    ]
    assert found.questions["given_conversations"][:] == conversations["conversations"][:]
    assert found.questions.remove_columns("given_conversations").features == conversations.features
    assert (found.written, found.same, found.left_out) == (3, 2, [])
    assert has_taught_answers(found.questions)
    assert not has_taught_answers(conversations)


def test_what_has_no_answer_is_left_out_and_named(conversations):
    found = replace_answers(conversations, {key(conversations[0], 1): "left", key(conversations[1]): "  "})
    assert found.questions["record"][:] == ["a"]
    assert found.questions[0]["conversations"] == said(("Axis?", "left"))
    assert found.left_out == ["s:a: no answer to 'Rhythm?'", "s:b: no answer to 'Rhythm?'"]


def test_single_questions_keep_their_columns(singles):
    found = replace_answers(singles, {key(row): f"new {row['answer']}" for row in singles})
    assert found.questions.column_names == [*singles.column_names, "given_answer"]
    assert found.questions["answer"][:] == [f"new {answer}" for answer in singles["answer"]]
    assert found.questions["given_answer"][:] == singles["answer"][:]
    assert found.questions["format"][:] == singles["format"][:]


def test_a_teacher_answers_greedily_and_is_not_asked_twice(tiny_vlm, singles, tmp_path, monkeypatch):
    tiny = tiny_vlm("idefics3")
    model, path = tiny.load(), tmp_path / "answers.jsonl"
    options = {"load_image": ImageFile(), "max_new_tokens": 4, "path": path, "progress_bar": False}
    with monkeypatch.context() as patch:  # killed after the first batch
        ask, calls = Asker.__call__, []

        def once(self, *given):
            calls.append(1)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return ask(self, *given)

        patch.setattr(Asker, "__call__", once)
        with pytest.raises(KeyboardInterrupt):
            teach_answers(model, tiny.processor, singles, batch_size=2, **options)
    kept = path.read_text()
    assert 1 < len(kept.splitlines()) < 7
    found = teach_answers(model, tiny.processor, singles, batch_size=2, **options)
    assert path.read_text().startswith(kept)
    whole = teach_answers(model, tiny.processor, singles, batch_size=3, **{**options, "path": None})
    assert found.questions["answer"][:] == whole.questions["answer"][:]
    assert found.written == len(found.questions) > 3
    monkeypatch.setattr(Asker, "__call__", None)
    again = teach_answers(model, tiny.processor, singles, **options)
    assert again.questions["answer"][:] == found.questions["answer"][:]
    with pytest.raises(AnswerFileError, match="max_new_tokens"):
        teach_answers(model, tiny.processor, singles, **{**options, "max_new_tokens": 5})
    with pytest.raises(ValueError, match="wrote their answers already"):
        teach_answers(model, tiny.processor, found.questions, **options)
    assert json.loads(kept.splitlines()[0])["settings"]["likelihoods"] is False


def test_the_rows_survive_the_disk(conversations, tmp_path):
    new = {key(row, n): "x" for row in conversations for n in range(len(single_questions(row)))}
    replace_answers(conversations, new).questions.save_to_disk(str(tmp_path / "d"))
    assert load_from_disk(str(tmp_path / "d"))[1]["conversations"] == said(("Rhythm?", "x"))


def test_a_teacher_answers_what_nobody_has_answered(conversations, singles):
    rows = conversations.to_list()
    rows[1]["conversations"] = [{"from": "human", "value": "Rhythm?"}]
    pages = Dataset.from_list(rows, CONVERSATION_FEATURES)
    found = replace_answers(pages, {key(pages[1]): "AF"})
    assert found.questions["conversations"][:] == [said(("Rhythm?", "AF"))]
    assert found.questions["given_conversations"][:] == [rows[1]["conversations"]]
    assert (found.written, found.same) == (1, 0)
    asked = singles.map(lambda row: {"answer": None}, features=singles.features)
    found = replace_answers(asked, {key(asked[0]): "AF"})
    assert (found.questions["answer"][:], found.questions["given_answer"][:]) == (["AF"], [None])
