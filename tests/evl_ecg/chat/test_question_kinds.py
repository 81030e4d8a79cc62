"""The kind of a question is told by its wording; every wording of the package's own questions is known."""

from collections import Counter

import pytest

from hf_evl_ecg.chat.question_kinds import OTHER, count_kinds, question_kind, read_kinds, write_kinds
from hf_evl_ecg.data.questions import conversation_dataset, question_dataset
from hf_evl_ecg.inference.label_scores import label_question
from hf_evl_ecg.qa.grading import task_name
from hf_evl_ecg.qa.labels import LABELS
from hf_evl_ecg.sources import load_simulated


def test_every_question_of_a_data_set_has_the_kind_it_is_scored_under():
    rows, _ = load_simulated(2, classes=["NORM", "AF", "LBBB"])
    questions = question_dataset(rows, classes=[["NORM", "AF"], ["NORM", "MI", "STTC", "CD", "HYP"]])
    assert len({task_name(item) for item in questions}) > 15
    for item in questions:
        assert question_kind(item["question"]) == task_name(item), item["question"]
    expected = Counter(map(task_name, questions))
    assert count_kinds(questions) == dict(expected)
    assert count_kinds(conversation_dataset(questions, 4)) == dict(expected)


def test_closed_questions_are_of_their_label_s_family():
    for code in LABELS:
        item = label_question(code)
        assert question_kind(item["question"]) == task_name(item)


def test_other_words_are_other():
    for text in (
        "",
        "Will it rain?",
        "Does this ECG show Brugada syndrome?",
        "What is the pulse in this ECG, in hertz?",
    ):
        assert question_kind(text) == OTHER
    assert question_kind("  what is THE rhythm of this   ecg ? ") == "rhythm_open"


def test_a_folder_without_counts_says_nothing(tmp_path):
    assert read_kinds(tmp_path) is None
    (tmp_path / "question_kinds.json").write_text("[1]")
    assert read_kinds(tmp_path) is None


@pytest.mark.parametrize("text", ["[" * 3000, '{"a": "x"}', '{"a": [1]}', '{"a": 1e999}', '{"a": null}', "[1]", "{"])
def test_a_damaged_count_is_none(tmp_path, text):
    """It is a remark beside a model: without it questions are asked all the same."""
    write_kinds(tmp_path, {"rhythm_open": 3})
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert read_kinds(tmp_path) is None
