"""How often each answer occurs, for every kind of question."""

from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.qa.answer_counts import count_answers, one_sided
from hf_evl_ecg.sources.simulated import load_simulated

CLOSED = {"format": "closed", "task": "rhythm"}


def test_yes_and_no_per_task_and_class():
    items = [{**CLOSED, "labels": [label], "answer": answer} for label, answer in
             [("AF", "yes"), ("AF", "no"), ("AF", "no"), ("SR", "yes"), ("SR", "Yes")]]  # fmt: skip
    counts = count_answers(items)
    classes = {"AF": {"yes": 1, "no": 2}, "SR": {"yes": 2, "no": 0}}
    assert counts == {"rhythm_closed": {"questions": 5, "answers": {"yes": 3, "no": 2}, "classes": classes}}
    assert one_sided(counts) == ["rhythm_closed SR: always yes"]


def test_numbers_labels_and_options():
    rate = {"format": "fill", "task": "heart_rate", "unit": "1/min", "tolerance": 5.0, "answer": "x"}
    counts = count_answers([{**rate, "value": value} for value in (60.0, 90.0, 70.0)])
    assert counts == {"heart_rate_fill": {"questions": 3, "range": [60.0, 70.0, 90.0], "unit": "1/min"}}
    choice = {"format": "choice", "task": "rhythm", "options": ["a", "b"]}
    counts = count_answers([{**choice, "answer": answer} for answer in ("B. b", "A. a", "B. b")])
    assert counts["rhythm_choice"]["answers"] == {"A": 1, "B": 2}
    opened = {"format": "open", "task": "diagnosis"}
    counts = count_answers([{**opened, "labels": ["AF", "LBBB"]}, {**opened, "labels": ["AF"]}])
    assert counts["diagnosis_open"]["answers"] == {"AF": 2, "LBBB": 1}
    assert one_sided(counts) == []


def test_every_question_of_a_dataset_is_counted_once():
    rows, _ = load_simulated(2, classes=["AF", "NORM"])
    questions = question_dataset(rows)
    counts = count_answers(questions)
    assert sum(count["questions"] for count in counts.values()) == len(questions)
    assert counts["report"]["answers"]["AF"] == 2
