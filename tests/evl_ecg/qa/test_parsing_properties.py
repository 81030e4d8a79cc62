"""Answers of any text are read without an error, and what the questions' own answers say comes back; examples by hypothesis."""

import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_evl_ecg.benchmarks.reading import choice_options, option_texts, read_choice, read_labels, read_options
from hf_evl_ecg.benchmarks.verdicts import read_marks
from hf_evl_ecg.qa.ecgbench import compat_scores
from hf_evl_ecg.qa.grading import FAMILIES
from hf_evl_ecg.qa.items import choice_question, class_list_question, closed_question, fill_question, open_question
from hf_evl_ecg.qa.labels import LABELS, label_text
from hf_evl_ecg.qa.parsing import parse_labels, parse_number, parse_option, parse_options, parse_yes_no
from hf_evl_ecg.qa.prompts import MEASUREMENTS

CODES = sorted(LABELS)
ASKED = ("axis", "diagnosis", "rhythm")
UNITS = sorted({kind.unit for kind in MEASUREMENTS.values()})
OPTIONS = ["sinus rhythm", "atrial fibrillation", "left axis deviation (LAD)", "2:1 block", "C"]
# Letters of the grammar that answers are read with, between any others: what hypothesis draws from all of Unicode hardly ever meets.
PIECES = st.sampled_from(
    ["no", "without", "not", "yes", "AF", "LBBB", "ABNORMAL", "NORM", "A", "B.", "(C)", "or", "nor", ",", ";", ".", ":", "-", "–", "/", "ms",
     "bpm", " s", "1.2.3", "1,000", "0.16", "-5", "−7", "²", "٣", "9" * 400, "1e999", "{", "}", "[", "\n", "\u2028", "\0", "\ud800", "atrial fibrillation",
     "is absent", "Options:", "lead II"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=14).map(" ".join)


@given(TEXTS)
@example("9" * 400 + " ms")
@example("1.2.3 ms")
def test_any_text_is_read(text):
    for unit in UNITS:
        value = parse_number(text, unit)
        assert value is None or math.isfinite(value), "a number that there is, or none"
    assert parse_yes_no(text) in (True, False, None)
    assert parse_yes_no(text, "AF") in (True, False, None)
    assert set(parse_labels(text, CODES).labels) <= set(CODES)
    assert parse_option(text, OPTIONS) in (*range(len(OPTIONS)), None)
    assert set(parse_options(text, OPTIONS)) <= set(range(len(OPTIONS)))
    assert (read_labels(text, ("NORM", "ABNORMAL", "AF")) or frozenset()) <= {"NORM", "ABNORMAL", "AF"}
    marks = read_marks(text, ("accuracy", "clarity"))
    assert marks is None or all(math.isfinite(mark) for mark in marks.values())


@given(TEXTS, TEXTS)
def test_any_question_has_options_or_none(text, question):
    assert read_choice(text, question) in (None, *"ABCDEFGH")
    assert len(choice_options(question)) != 1
    found = read_options(text, question)
    assert found is None or not option_texts(question) or found <= set(option_texts(question))


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_released_scorers_take_any_answer(texts):
    found = compat_scores("ptb-test", ["?"] * len(texts), texts, ["NORM"] * len(texts), allow_partial=True)
    assert all(isinstance(value, float) for value in found.values())


@given(st.sampled_from(ASKED), st.data())
def test_answers_of_the_questions_name_their_labels(task, data):
    labels = data.draw(
        st.lists(st.sampled_from(FAMILIES[task]), min_size=1, max_size=1 if task != "diagnosis" else 4, unique=True)
    )
    rng = random.Random(data.draw(st.integers(0, 99)))
    for make in (open_question, fill_question):
        read = parse_labels(make("r", task, labels, rng)["answer"], FAMILIES[task])
        assert read.parsed
        assert set(labels) <= set(read.labels), "a broad class may be read beside its kind"


@given(st.lists(st.sampled_from(CODES), min_size=1, max_size=8, unique=True), st.data())
def test_answers_to_a_list_of_classes_come_back(classes, data):
    present = data.draw(st.lists(st.sampled_from(classes), unique=True))
    read = parse_labels(class_list_question("r", classes, present)["answer"], classes)
    assert read.parsed
    assert set(present) <= set(read.labels)


@given(st.sampled_from(ASKED), st.booleans(), st.integers(0, 99), st.data())
def test_yes_and_no_come_back(task, present, seed, data):
    label = data.draw(st.sampled_from(FAMILIES[task]))
    answer = closed_question("r", task, label, present, random.Random(seed))["answer"]
    assert parse_yes_no(answer, label) is present
    assert parse_yes_no(answer.upper() + ".") is present


@given(st.sampled_from(ASKED), st.integers(0, 99), st.data())
def test_a_choice_comes_back_by_letter_text_and_both(task, seed, data):
    family = FAMILIES[task]
    chosen = data.draw(st.lists(st.sampled_from(family), min_size=2, max_size=4, unique=True))
    item = choice_question("r", task, chosen[0], chosen[1:], random.Random(seed))
    right = item["options"].index(label_text(chosen[0]))
    letter = "ABCDEFGH"[right]
    for answer in (
        item["answer"],
        letter,
        f"({letter})",
        f"{letter}. {item['options'][right]}",
        item["options"][right],
    ):
        assert parse_option(answer, item["options"]) == right, answer


@given(st.sampled_from(sorted(MEASUREMENTS)), st.integers(1, 999))
def test_whole_numbers_come_back_in_every_wording(name, value):
    unit = MEASUREMENTS[name].unit
    wordings = {
        "milliseconds": ["milliseconds", "ms", "msec"],
        "beats per minute": ["beats per minute", "bpm", "/min"],
    }[unit]
    for wording in wordings:
        for text in (f"{value} {wording}", f"It is about {value} {wording}.", f"{value}{wording}"):
            assert parse_number(text, unit) == value, text
    if unit == "milliseconds":
        assert parse_number(f"{value / 1000:.3f} s", unit) == pytest.approx(value)
