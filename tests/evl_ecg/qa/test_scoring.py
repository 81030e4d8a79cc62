"""Rows of scores: the two rates of a class beside their mean, and how many records stand behind them."""

import warnings

import pytest

from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.scoring import score_answers
from hf_evl_ecg.scores.tables import few_records, markdown_table


def closed(record: str, label: str, answer: str) -> dict:
    return {
        "record": record,
        "format": "closed",
        "task": "diagnosis",
        "question": "?",
        "answer": answer,
        "labels": [label],
    }


def by_task(items, said, **options):
    answers = [Answer(item["record"], text) for item, text in zip(items, said, strict=True)]
    rows = score_answers(items, answers, method="m", n_bootstrap=20, **options)
    return {(row["task"], row["metric"]): row for row in rows}


def test_sensitivity_and_specificity_of_yes_no_questions_by_hand():
    """Of ten with the label eight are found, of twelve without nine are let go, one answer cannot be read; another label is apart."""
    items = [closed(f"r{i}", "LBBB", "yes" if i < 10 else "no") for i in range(22)]
    said = ["yes"] * 8 + ["no", "?"] + ["no"] * 9 + ["yes"] * 3
    items += [closed(f"r{i}", "AF", "yes") for i in range(12)]
    rows = by_task(items, said + ["no"] * 12)
    found = {
        metric: rows["diagnosis_closed/LBBB", metric] for metric in ("sensitivity", "specificity", "balanced_accuracy")
    }
    assert (found["sensitivity"]["value"], found["sensitivity"]["n"]) == (0.8, 10)
    assert (found["specificity"]["value"], found["specificity"]["n"]) == (0.75, 12)
    assert found["balanced_accuracy"]["value"] == pytest.approx((0.8 + 0.75) / 2)
    assert {row["records"] for row in rows.values()} == {22}
    assert ("diagnosis_closed/AF", "sensitivity") not in rows  # no negative question


def test_sensitivity_and_specificity_of_named_labels_by_hand():
    items = [
        {"record": f"r{i}", "format": "open", "task": "rhythm", "question": "?", "answer": "", "labels": [label]}
        for i, label in enumerate(["AF"] * 10 + ["SR"] * 10)
    ]
    said = ["atrial fibrillation"] * 7 + ["sinus rhythm"] * 3 + ["sinus rhythm"] * 9 + ["atrial fibrillation"]
    rows = by_task(items, said)
    for label, right in (("AF", (0.7, 0.9)), ("SR", (0.9, 0.7))):
        rates = [rows[f"rhythm_open/{label}", metric] for metric in ("sensitivity", "specificity")]
        assert [(row["value"], row["n"]) for row in rates] == [(right[0], 10), (right[1], 10)]


def test_resamples_without_a_class_are_left_out_in_silence():
    items = [closed(f"r{i // 12}", "LBBB", "yes" if i < 12 else "no") for i in range(48)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rows = by_task(items, ["yes"] * 48)
    found = rows["diagnosis_closed/LBBB", "sensitivity"]
    assert (found["value"], found["ci_low"], found["ci_high"]) == (1.0, 1.0, 1.0)


def test_a_table_of_four_records_says_so():
    items = [closed(f"r{i % 4}", "LBBB", "yes" if i % 2 else "no") for i in range(40)]
    rows = list(by_task(items, ["yes"] * 40).values())
    warning = "Few records: 4 (diagnosis_closed). Intervals of so few are too narrow, and tell no two models apart."
    assert few_records(rows) == warning
    assert markdown_table(rows).startswith(f"**{warning}**\n\n| task |")
    items = [closed(f"r{i}", "LBBB", "yes" if i % 2 else "no") for i in range(40)]
    rows = list(by_task(items, ["yes"] * 40).values())
    assert few_records(rows) == ""
    assert markdown_table(rows).startswith("| task |")
    assert few_records([{"task": "a", "value": 1.0}]) == ""  # rows of earlier versions do not say it
