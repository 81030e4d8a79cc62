"""Questions and answers: hand-made items, determinism, options and thresholds that leave one right answer."""

import random
import re
from collections import Counter
from itertools import pairwise

import pytest

from hf_evl_ecg.qa import labels, prompts
from hf_evl_ecg.qa.items import (
    QA_KEYS,
    choice_question,
    class_list_question,
    closed_question,
    fill_question,
    label_report,
    measurement_question,
    open_question,
    qa_item,
    report_question,
)
from hf_evl_ecg.qa.labels import AXIS_LABELS, CPSC_CLASSES, LABELS, RHYTHM_LABELS, label_names, label_text, main_rhythm
from hf_evl_ecg.qa.prompts import CHOICE_LETTERS, MEASUREMENTS, NOTHING_FOUND, QUESTIONS, pulse_prompt


def test_all_names_exist():
    for module in (labels, prompts):
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_wordings_are_unambiguous():
    """No wording may belong to two labels, or an answer could not be graded."""
    wordings = Counter(name.lower() for code in LABELS for name in {n.lower() for n in label_names(code)})
    assert [name for name, n in wordings.items() if n > 1] == []
    assert set(CPSC_CLASSES) <= set(LABELS)
    assert set(RHYTHM_LABELS) & set(AXIS_LABELS) == set()
    with pytest.raises(ValueError, match="unknown label 'XYZ'"):
        label_text("XYZ")


def test_main_rhythm():
    assert main_rhythm(["LVH"]) is None
    assert main_rhythm(["SR"]) == "SR"
    assert main_rhythm(["SR", "SBRAD", "SBRAD"]) == "SBRAD"
    assert main_rhythm(["AF", "AFLT"]) is None


def test_items_have_all_keys_and_are_checked():
    item = qa_item("r", "q?", "a", "open", "rhythm", labels=["AF"])
    assert tuple(item) == QA_KEYS
    assert item["value"] is None
    for bad in (
        ("r", "q?", "a", "essay", "rhythm"),
        ("r", "q?", "a", "open", "mood"),
        ("r", "q?", " ", "open", "rhythm"),
    ):
        with pytest.raises(ValueError, match=r"allowed are|neither may be empty"):
            qa_item(*bad)
    with pytest.raises(ValueError, match="allowed"):
        qa_item("r", "q?", "a", "open", "rhythm", colour="red")


def test_every_template_can_be_filled():
    names = {"label": "x", "name": "x", "unit": "x", "side": "x", "threshold": "x"}
    for templates in QUESTIONS.values():
        for template in templates:
            filled = template.format(**names)
            assert "{" not in filled
            assert filled[0].isupper()
            assert filled[-1] in "?."


def test_label_questions():
    rng = random.Random(0)
    item = open_question("r", "diagnosis", ["RBBB", "PVC"], rng)
    assert item["answer"] == "right bundle branch block, premature ventricular contraction"
    assert item["labels"] == ["RBBB", "PVC"]
    assert fill_question("r", "axis", ["LAD"], rng)["answer"] == "left axis deviation"
    for label in LABELS:
        item = closed_question("r", "diagnosis", label, True, rng)
        assert label_text(label) in item["question"]
        assert item["answer"] == "yes"
    assert "a premature atrial contraction" in closed_question("r", "diagnosis", "PAC", False, rng)["question"]
    assert "Is there atrial fibrillation" in {
        closed_question("r", "diagnosis", "AF", True, rng)["question"][:28] for _ in range(20)
    }


def test_choice_puts_the_right_option_anywhere():
    places = Counter()
    for seed in range(400):
        item = choice_question("r", "rhythm", "AF", ["SR", "SBRAD", "STACH"], random.Random(seed))
        letter, text = item["answer"].split(". ")
        assert text == "atrial fibrillation" == item["options"][CHOICE_LETTERS.index(letter)]
        assert f"{letter}. {text}" in item["question"]
        assert len(set(item["options"])) == 4
        places[letter] += 1
    assert set(places) == set("ABCD")
    assert min(places.values()) > 70
    with pytest.raises(ValueError, match="distractor"):
        choice_question("r", "rhythm", "AF", ["AF"], random.Random(0))
    with pytest.raises(ValueError, match="number of options=1: allowed are 2 to 8"):
        choice_question("r", "rhythm", "AF", [], random.Random(0))


def test_class_list():
    item = class_list_question("r", CPSC_CLASSES, ["STE", "AF"])
    assert item["answer"] == "atrial fibrillation, ST elevation"
    assert all(label_text(c) in item["question"] for c in CPSC_CLASSES)
    assert class_list_question("r", CPSC_CLASSES, [])["answer"] == NOTHING_FOUND
    with pytest.raises(ValueError, match="LVH"):
        class_list_question("r", CPSC_CLASSES, ["LVH"])


@pytest.mark.parametrize("task", MEASUREMENTS)
def test_measurements_leave_one_right_answer(task):
    kind = MEASUREMENTS[task]
    population_rng = random.Random(1)
    middle = {"heart_rate": 70, "pr_interval": 160, "qrs_duration": 95, "qt_interval": 395}[task]
    population = [population_rng.gauss(middle, 1.2 * kind.spacing) for _ in range(400)]
    population = [value for value in population if kind.plausible[0] <= value <= kind.plausible[1]]
    answers, ranks = Counter(), Counter()
    for seed, value in enumerate(population):
        rng = random.Random(seed)
        fill = measurement_question("r", task, value, "fill", rng)
        assert abs(float(fill["answer"].split()[0]) - value) <= 0.5
        assert (fill["value"], fill["tolerance"], fill["unit"]) == (value, kind.tolerance, kind.unit)

        choice = measurement_question("r", task, value, "choice", rng, population)
        numbers = sorted(float(option.split()[0]) for option in choice["options"])
        assert kind.plausible[0] - 0.5 <= numbers[0]
        assert min(b - a for a, b in pairwise(numbers)) >= kind.spacing - 1
        right = float(choice["answer"].split(". ")[1].split()[0])
        assert min(numbers, key=lambda number: abs(number - value)) == right
        ranks[numbers.index(right)] += 1

        closed = measurement_question("r", task, value, "closed", rng)
        if closed is None:
            assert min(abs(value - limit) for limit in kind.limits) <= kind.tolerance
            continue
        side, threshold = re.search(r"(above|below) ([\d.]+)", closed["question"]).groups()
        truth = value > float(threshold) if side == "above" else value < float(threshold)
        assert abs(value - float(threshold)) > kind.tolerance
        assert closed["answer"] == ("yes" if truth else "no")
        answers[closed["answer"]] += 1
    assert min(answers.values()) > 0.35 * sum(answers.values())
    share = [ranks[i] / len(population) for i in range(4)]
    assert max(share) < 0.4, f"the right option stands out by its rank: {share}"
    assert min(share) > 0.05, share


def test_measurements_are_checked():
    rng = random.Random(0)
    for task, value, format in [("heart_rate", 5, "fill"), ("mood", 70, "fill"), ("heart_rate", 70, "report")]:
        with pytest.raises(ValueError, match="allowed"):
            measurement_question("r", task, value, format, rng)


def test_reports():
    text = label_report("SBRAD", "LAD", ["LVH", "STE"], {"qt_interval": 483.2, "heart_rate": 45.4})
    assert text == (
        "Rhythm: sinus bradycardia. Heart rate: 45 beats per minute. QT interval: 483 milliseconds. "
        "Axis: left axis deviation. Findings: left ventricular hypertrophy, ST elevation."
    )
    assert label_report(None, None, [], {}) == ""
    item = report_question("r", text, random.Random(0), ["LVH"])
    assert (item["answer"], item["format"], item["labels"]) == (text, "report", ["LVH"])


def test_same_seed_same_items():
    def make(seed):
        rng = random.Random(seed)
        return [measurement_question("r", "pr_interval", 160.0, f, rng) for f in ("open", "closed", "choice", "fill")]

    assert make(3) == make(3)
    assert any(make(3) != make(seed) for seed in range(4, 8))


def test_pulse_prompt_is_vicunas():
    assert pulse_prompt("Q?") == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
        "and polite answers to the human's questions. USER: <image>\nQ? ASSISTANT:"
    )
