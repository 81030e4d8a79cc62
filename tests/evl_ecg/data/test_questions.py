"""Questions and conversations: right, the same for a seed, and telling nothing of their answers."""

import random
from collections import Counter, defaultdict
from functools import partial

import datasets
import pytest

from hf_evl_ecg.chat.conversations import read_turns
from hf_evl_ecg.data import conversation_dataset, load_ecg, question_dataset
from hf_evl_ecg.qa.labels import CPSC_CLASSES, label_text
from hf_evl_ecg.sources import load_folder, load_simulated
from hf_evl_ecg.sources.table import collect_rows, make_row


def test_conversations_hold_each_question_once_in_any_order():
    rows = load_simulated(4)[0]
    questions = question_dataset(rows, balanced=True, formats=["closed", "fill"], tasks=["diagnosis", "rhythm", "axis"])
    joined = conversation_dataset(questions, 3, seed=1)
    turns = [(row["record"], read_turns(row, row["record"])) for row in joined]
    assert Counter((record, turn.question, turn.answer) for record, own in turns for turn in own) == Counter(
        (item["record"], item["question"], item["answer"]) for item in questions
    )
    asked = Counter(questions["record"])
    assert Counter(joined["record"]) == {record: -(-count // 3) for record, count in asked.items()}
    lengths = defaultdict(list)
    for record, own in turns:
        lengths[record].append(len(own))
    assert max(map(max, lengths.values())) == 3
    assert all(max(own) - min(own) <= 1 for own in lengths.values())
    first = {record: questions["question"][questions["record"].index(record)] for record in asked}
    assert 0 < sum(own[0].question == first[record] for record, own in turns) < len(asked)  # orders differ
    assert joined.to_list() == conversation_dataset(questions, 3, seed=1).to_list()
    assert joined.to_list() != conversation_dataset(questions, 3, seed=2).to_list()
    assert load_ecg(joined[0]).signal_mv.shape == load_ecg(questions[0]).signal_mv.shape
    with pytest.raises(ValueError, match="turns=0"):
        conversation_dataset(questions, 0)


def test_balanced_questions_do_not_give_their_answer_away():
    rows = datasets.concatenate_datasets([load_simulated(8, split=name)[0] for name in ("train", "test")])
    questions = question_dataset(rows, balanced=True, formats=["closed", "fill"], tasks=["diagnosis", "rhythm", "axis"])
    asked = Counter(
        (item["split"], item["labels"][0], item["answer"]) for item in questions if item["format"] == "closed"
    )
    labels = {key[:2] for key in asked}
    assert {("train", "AF"), ("test", "LBBB")} <= labels
    assert all(asked[*key, "yes"] == asked[*key, "no"] > 0 for key in labels)
    assert asked["train", "LBBB", "yes"] == 8  # all that there are
    truth = {row["record"]: row["labels"] for row in rows}
    assert all(
        (item["labels"][0] in truth[item["record"]]) == (item["answer"] == "yes")
        for item in questions
        if item["format"] == "closed"
    )
    fill = {"formats": ["fill"], "tasks": ["diagnosis", "rhythm", "axis"]}
    assert sum(item["format"] == "fill" for item in questions) == len(question_dataset(rows, **fill))
    with pytest.raises(ValueError, match="give one of them"):
        question_dataset(rows, balanced=True, per_record=2)


def test_questions(folder):
    rows, _ = load_folder(folder)
    questions = question_dataset(rows, seed=1)
    again = question_dataset(rows, seed=1)
    assert questions.to_list() == again.to_list()
    assert questions.to_list() != question_dataset(rows, seed=2).to_list()
    assert set(questions["format"]) == {"open", "closed", "choice", "fill", "report"}
    assert load_ecg(questions[0]).duration_s == 5.0
    truth = {row["record"]: row for row in rows}
    for item in questions:
        row = truth[item["record"]]
        assert item["split"] == row["split"]
        if item["format"] == "closed" and item["labels"]:
            assert item["answer"] == ("yes" if item["labels"][0] in row["labels"] else "no")
        if item["format"] == "choice" and item["labels"]:
            shown = [label_text(label) for label in row["labels"]]
            assert sum(option in shown for option in item["options"]) == 1
    reports = question_dataset(rows, tasks=["report"], report_text="original")
    assert reports["answer"][:2] == ["text 0", "text 1"]
    few = question_dataset(rows, per_record=2)
    assert set(Counter(few["record"]).values()) == {2}
    with pytest.raises(ValueError, match="mood"):
        question_dataset(rows, tasks=["mood"])
    with pytest.raises(ValueError, match="no such question can be made"):
        question_dataset(rows, tasks=["qt_interval"])


def test_the_label_asked_about_does_not_give_the_answer_away():
    """Yes and no are about as frequent for each common label, though most labels are absent from most records."""
    rng = random.Random(0)
    rates = {"RBBB": 0.3, "I-AVB": 0.2, "PVC": 0.1, "STD": 0.1, "LBBB": 0.05}
    table = []
    for i in range(1500):
        found = [label for label, p in rates.items() if rng.random() < p]
        row = make_row(f"r{i}", "s", "", "train", labels=found, known_labels=list(CPSC_CLASSES))
        table.append((f"r{i}", partial(dict, row)))
    rows, _ = collect_rows(table, "s")
    questions = question_dataset(rows, tasks=["diagnosis"], formats=["closed"])
    asked = Counter(
        (labels[0], answer) for labels, answer in zip(questions["labels"], questions["answer"], strict=True)
    )
    assert {label for label, _ in asked} == set(rates), "labels that never occur are not asked about"
    for label in rates:
        share = asked[label, "yes"] / (asked[label, "yes"] + asked[label, "no"])
        assert 0.2 < share < 0.7, (label, share)
