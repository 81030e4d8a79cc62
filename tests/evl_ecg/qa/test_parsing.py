"""Answers are read as a person would read them, or not at all; the compat scorers make the released mistakes."""

import random

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from hf_evl_ecg.qa.ecgbench import SUBSETS, compat_choice, compat_labels, compat_option_set, compat_scores
from hf_evl_ecg.qa.items import choice_question, class_list_question, measurement_question
from hf_evl_ecg.qa.labels import CPSC_CLASSES, LABELS, PTBXL_SUPERCLASSES, label_names
from hf_evl_ecg.qa.parsing import LabelAnswer, convert_to_unit, parse_labels, parse_number, parse_option, parse_yes_no

ALL = tuple(LABELS)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Atrial fibrillation", ("AF",)),
        ("The rhythm is AFib with PVCs.", ("AF",)),
        ("AF, PVC and LBBB", ("AF", "LBBB", "PVC")),
        ("The ecg shows a normal ECG.", ("NORM",)),
        ("This is an ABNORMAL ECG", ()),
        ("STTC", ("STTC",)),
        ("first degree AV block; ST-segment depression", ("I-AVB", "STD")),
        ("1st-degree AV block and st depressions", ("I-AVB", "STD")),
        ("incomplete left bundle branch block", ("ILBBB",)),
        ("Incomplete left bundle branch block. Also left bundle branch block in V6", ("LBBB", "ILBBB")),
        ("normal sinus rhythm", ("SR",)),
        ("irregular sinus rhythm", ("SARRH",)),
        ("normal axis, sinus rhythm", ("SR", "AXN")),
        ("lad stenosis", ()),
        ("left ventricular hypertrophy", ("HYP", "LVH")),
        ("No atrial fibrillation.", ()),
        ("No AF, LBBB or RBBB, but left axis deviation.", ("LAD",)),
        ("no AF, LBBB, or RBBB", ()),
        ("No AF, sinus rhythm.", ("SR",)),
        ("Without ST elevation. ST depression.", ("STD",)),
        ("Sinus rhythm without AF and LBBB", ("SR",)),
        ("LBBB is not seen, RBBB is.", ("RBBB",)),
        ("AF was ruled out; PACs are absent but PVC", ("PVC",)),
        ("Not a normal ECG", ()),
        ("PVC, otherwise normal ECG", ("PVC",)),
        ("no AF earlier. AF now", ("AF",)),
        ("MI at 0.5 mV. No LBBB", ("MI",)),
    ],
)
def test_labels_are_whole_words_unless_denied(text, labels):
    assert parse_labels(text, ALL).labels == labels


def test_only_labels_asked_about_count_and_silence_is_not_an_answer():
    assert parse_labels("atrial fibrillation", ["AF"]) == LabelAnswer(("AF",), True)
    assert parse_labels("atrial fibrillation", ["MI"]) == LabelAnswer((), False)
    assert parse_labels("no infarction", ["MI"]) == LabelAnswer((), True)
    assert parse_labels("None of these.", ["MI"]) == LabelAnswer((), True)
    assert parse_labels("", ["MI"]) == LabelAnswer((), False)
    with pytest.raises(ValueError, match="unknown label 'XYZ'"):
        parse_labels("x", ["XYZ"])


def test_every_wording_of_every_label_is_read_as_that_label():
    for code in LABELS:
        for name in label_names(code):
            assert code in parse_labels(f"It shows {name}.", ALL).labels, (code, name)
            assert code not in parse_labels(f"There is no {name}.", ALL).labels, (code, name)
            others = {found for found in parse_labels(f"It shows {name}.", ALL).labels if found != code}
            assert others <= {"HYP", "CD"}, (code, name)  # "ventricular hypertrophy" names its class too


def test_answers_to_class_lists_give_their_labels_back():
    rng = random.Random(0)
    for classes in (PTBXL_SUPERCLASSES, CPSC_CLASSES):
        for _ in range(40):
            present = rng.sample(classes, rng.randrange(len(classes)))
            item = class_list_question("r", classes, present)
            parsed = parse_labels(item["answer"], classes)
            assert parsed == LabelAnswer(tuple(c for c in classes if c in present), True)


@pytest.mark.parametrize(
    ("text", "label", "says"),
    [
        ("yes", None, True),
        ("No.", None, False),
        ("**Yes**, there is", None, True),
        ("The answer is no", None, False),
        ("There is no AF", "AF", False),
        ("Atrial fibrillation is present", "AF", True),
        ("Atrial fibrillation is present", "MI", None),
        ("Nothing", None, None),
        ("either yes or no", None, None),
        ("", None, None),
        ("yesterday", None, None),
    ],
)
def test_yes_and_no(text, label, says):
    assert parse_yes_no(text, label) is says


OPTIONS = ["sinus rhythm", "atrial fibrillation", "left bundle branch block", "incomplete left bundle branch block"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        ("B.", 1),
        ("(C)", 2),
        ("The correct option is D", 3),
        ("B. atrial fibrillation", 1),
        ("B atrial fibrillation", 1),
        ("Atrial fibrillation", 1),
        ("incomplete left bundle branch block", 3),
        ("It is a left bundle branch block.", 2),
        ("A normal ECG", None),
        ("A. atrial fibrillation", None),
        ("A or B", None),
        ("E.", None),
        ("b", None),
        ("sinus rhythm or atrial fibrillation", None),
        ("Not sinus rhythm, atrial fibrillation", 1),
        ("", None),
        ("ECGA.", None),
    ],
)
def test_options_by_letter_or_text(text, index):
    assert parse_option(text, OPTIONS) == index


def test_own_choice_answers_are_read_back():
    rng = random.Random(1)
    for _ in range(40):
        item = choice_question("r", "rhythm", "AF", ["SR", "SBRAD", "PACE"], rng)
        index = parse_option(item["answer"], item["options"])
        assert item["options"][index] == "atrial fibrillation"
        item = measurement_question("r", "heart_rate", rng.uniform(40, 150), "choice", rng)
        assert item["answer"].endswith(item["options"][parse_option(item["answer"], item["options"])])


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("72 beats per minute", "beats per minute", 72),
        ("72 bpm", "beats per minute", 72),
        ("72", "beats per minute", 72),
        ("The heart rate is 72/min.", "beats per minute", 72),
        ("PR interval 160 ms", "milliseconds", 160),
        ("PR 0.16 s", "milliseconds", 160),
        ("0,16 s", "milliseconds", 160),
        ("0.16 s (160 ms)", "milliseconds", 160),
        ("in lead 2 it is 160 ms", "milliseconds", 160),
        ("160 or 180 ms", "milliseconds", None),
        ("120 ms, then 160 ms", "milliseconds", None),
        ("60-70 bpm", "beats per minute", None),
        ("between 60 and 70 bpm", "beats per minute", None),
        ("1.5 mV", "milliseconds", None),
        ("none", "milliseconds", None),
        ("1,200 ms", "milliseconds", 1200),
    ],
)
def test_numbers_with_their_units(text, unit, value):
    found = parse_number(text, unit)
    assert found == pytest.approx(value) if value is not None else found is None


def test_units_convert_or_are_refused():
    assert convert_to_unit(0.2, "s", "milliseconds") == pytest.approx(200)
    with pytest.raises(ValueError, match="cannot be converted"):
        convert_to_unit(1, "bpm", "milliseconds")
    with pytest.raises(ValueError, match="unknown unit"):
        parse_number("1", "furlong")


def test_compat_makes_the_released_mistakes():
    assert compat_labels("ABNORMAL ECG: STTC", "ptb-test") == ("NORM", "STTC")
    assert compat_labels("Answer: ABNORMAL, STTC", "code15-test") == ("ABNORMAL", "ST")
    assert compat_labels("SB Answer: NORM", "code15-test") == ("NORM",)
    assert compat_labels("ABNORMAL", "code15-test", reference=True) == ("ABNORMAL",)
    assert compat_choice("Not B. but A.") == "A"
    assert compat_choice("The correct option is C") == "C"
    assert compat_choice("Answer: surely D") == "D"
    assert compat_choice("I think option B") is None
    question = (
        "Which lead? Options: lead I, lead II, none Only answer based on the given Options without any explanation."
    )
    assert set(compat_option_set("lead II", question)) == set("lead Ilead II")
    scores = compat_scores("ecgqa-test", [question], ["lead II"], ["lead I"], allow_partial=True)
    assert scores["accuracy"] == 1.0


def test_compat_auc_is_balanced_accuracy():
    rng = np.random.default_rng(0)
    labels = np.array(SUBSETS["ptb-test"].labels)
    draw = [", ".join(labels[rng.random(5) < 0.4]) for _ in range(200)]
    references, answers = draw[:100], draw[100:]
    scores = compat_scores("ptb-test", [""] * 100, answers, references, allow_partial=True)
    truth = np.array([[label in text for label in labels] for text in references])
    predicted = np.array([[label in text for label in labels] for text in answers])
    balanced = [balanced_accuracy_score(truth[:, i], predicted[:, i]) for i in range(5)]
    assert scores["macro_auc"] == pytest.approx(np.mean(balanced))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert scores["hamming_loss"] == pytest.approx((truth != predicted).mean())


def test_compat_draws_the_released_letters_and_refuses_half_a_test_set():
    rng = random.Random(42)
    drawn = [rng.choice("ABCDEFGH") for _ in range(20)]
    scores = compat_scores("csn-test-no-cot", [""] * 20, ["?"] * 20, drawn, allow_partial=True)
    assert scores == {"accuracy": 1.0, "random_letters": 20.0}
    with pytest.raises(ValueError, match="1 answers: csn-test-no-cot has 1611 questions"):
        compat_scores("csn-test-no-cot", [""], ["A"], ["A"])
    with pytest.raises(ValueError, match="subset='ptb': allowed are"):
        compat_scores("ptb", [""], ["A"], ["A"])


@pytest.mark.parametrize("text", ["1.2.3 ms", "9" * 400 + " ms", "9" * 400])
def test_what_looks_like_a_number_and_is_none(text):
    assert parse_number(text, "milliseconds") is None
