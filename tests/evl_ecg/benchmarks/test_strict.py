"""Strict scores beside the released ones: both are worked out by hand, and each fault of the released scorers shows."""

import numpy as np
import pytest

from hf_evl_ecg.benchmarks import benchmark_table, benchmark_task, score_benchmark, strict_scores
from hf_evl_ecg.benchmarks.reading import choice_options, option_texts, read_choice, read_labels, read_options
from hf_evl_ecg.benchmarks.strict import resample_ecgs

PTB = ("NORM", "MI", "STTC", "CD", "HYP")
CODE15 = ("NORM", "ABNORMAL", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
LEADS = "Which leads? Options: lead I, lead II, none. Only answer based on the given Options without any explanation."
CHOICES = "<image> What is it?\nA. sinus rhythm\nB. atrial fibrillation\nC. paced rhythm\nD. atrial flutter"


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def score(task, answers, **options):
    options = {"method": "m", "allow_partial": True, "n_bootstrap": 0, **options}
    return values(score_benchmark(benchmark_task(task), answers, **options))


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("ABNORMAL: STTC", PTB, {"STTC"}),  # released: NORM too
        ("STTC", CODE15, None),  # released: ST
        ("NORM", PTB, {"NORM"}),
        ("This is normal.", PTB, None),
        ("There is no myocardial infarction.", PTB, set()),
        ("MI, CD", PTB, {"MI", "CD"}),
        ("SB(sinus bradycardia); RBBB(right bundle branch block)", CODE15, {"SB", "RBBB"}),
        ("ST depression", CODE15, None),
        ("ST(sinus tachycardia)", CODE15, {"ST"}),
        ("1dAVb(1st degree av block)", CODE15, {"1dAVb"}),
        ("ABNORMAL", CODE15, {"ABNORMAL"}),
        ("I-AVB", ("NORM", "I-AVB"), {"I-AVB"}),
    ],
)
def test_labels_are_read_as_whole_words(text, labels, expected):
    assert read_labels(text, labels) == (None if expected is None else frozenset(expected))


def test_letters_and_options_of_a_question_are_found():
    assert choice_options(CHOICES) == ("sinus rhythm", "atrial fibrillation", "paced rhythm", "atrial flutter")
    assert choice_options("A. one C. three") == ()
    assert choice_options("no letters") == ()
    assert option_texts(LEADS) == ("lead I", "lead II", "none")
    assert option_texts("Is it AF?") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("B", "B"), ("B. atrial fibrillation", "B"), ("atrial fibrillation", "B"), ("The correct option is C", "C"),
     ("Answer: D", "D"), ("Not B. but A.", None), ("A or B", None), ("I cannot tell", None), ("", None)],
)  # fmt: skip
def test_a_letter_is_read_or_nothing(text, expected):
    assert read_choice(text, CHOICES) == expected


def test_a_question_without_options_still_has_letters():
    assert read_choice("C", "Which?") == "C"
    assert read_choice("sinus rhythm", "Which?") is None


def test_options_are_told_apart_by_their_words():
    assert read_options("lead II", LEADS) == {"lead II"}
    assert read_options("Lead I, lead II", LEADS) == {"lead I", "lead II"}
    assert read_options("V1", LEADS) is None
    assert read_options(" Yes. ", "Is it AF?") == {"yes"}


def test_label_scores_are_those_worked_out_by_hand(answered):
    """Classes are NORM, MI, STTC and CD; the third answer holds NORM inside ABNORMAL, the last says nothing."""
    answers = answered(
        ["NORM", "MI", "ABNORMAL: CD", "unclear"],
        ["NORM", "MI, STTC", "CD", "NORM"],
        scores=[[-1, -9, -5, -4, -7], [-3, -1, -9, -4, -2], [-2, -9, -5, -3, -1], [-4, -9, -5, -3, -5]],
    )
    found = score("ptb-test", answers)
    strict = {name: value for name, value in found.items() if not name.endswith("_compat")}
    assert strict == pytest.approx(
        {
            "accuracy": 2 / 4,
            "macro_f1": (2 / 3 + 1 + 0 + 1) / 4,
            "hamming_loss": 2 / 16,
            "balanced_accuracy": (0.75 + 1 + 0.5 + 1) / 4,
            "macro_auc": (2 / 4 + 1 + 0 + 2.5 / 3) / 4,  # of NORM two of four pairs, of CD one tie
            "unparsed": 1 / 4,
        }
    )
    released = {name: value for name, value in found.items() if name.endswith("_compat")}
    assert released == pytest.approx(
        {
            "macro_f1_compat": (1 / 2 + 1 + 0 + 1) / 4,
            "hamming_loss_compat": 3 / 16,
            "macro_auc_compat": (0.5 + 1 + 0.5 + 1) / 4,
        }
    )


def test_strict_ranks_by_likelihood_and_says_nothing_without(answered):
    answers = answered(["NORM", "MI"], ["NORM", "MI"])
    assert "macro_auc" not in score("ptb-test", answers)


def test_code15_counts_normal_and_abnormal_as_answers(answered):
    found = score("code15-test", answered(["NORM", "ABNORMAL", "AF", "ST"], ["NORM", "ABNORMAL", "AF", "AF"]))
    assert found["accuracy"] == 3 / 4
    assert found["unparsed"] == 0


def test_option_sets_are_no_sets_of_characters(answered):
    answers = answered(["lead II", "lead I", "lead I, lead II"], ["lead I", "lead I", "lead I, lead II"], [LEADS] * 3)
    found = score("ecgqa-test", answers)
    assert found["accuracy"] == pytest.approx(2 / 3)
    same = [
        set(a) == set(b)
        for a, b in [("lead Ilead II", "lead I"), ("lead I", "lead I"), ("lead Ilead II", "lead I, lead II")]
    ]
    assert same == [True, True, False]  # the comma is a character too
    assert found["accuracy_compat"] == pytest.approx(2 / 3)


def test_what_names_no_letter_is_wrong_and_gets_a_seeded_letter_only_as_released(answered):
    answers = answered(["?"] * 40, ["A"] * 40, [CHOICES] * 40)
    found = score("mmmu-ecg", answers)
    assert found["accuracy"] == 0
    assert found["unparsed"] == found["random_letters_compat"] == 1
    assert 0 < found["accuracy_compat"] < 1
    assert score("mmmu-ecg", answers) == found
    others = {score("mmmu-ecg", answers, compat_seed=seed)["accuracy_compat"] for seed in range(5)}
    assert len(others) > 1


def test_another_number_of_answers_is_refused(answered):
    answers = answered(["A"] * 3, ["A"] * 3, [CHOICES] * 3)
    with pytest.raises(ValueError, match=r"3 answers: mmmu-ecg has 200 records \(set allow_partial"):
        score("mmmu-ecg", answers, allow_partial=False)
    with pytest.raises(ValueError, match="0 answers"):
        score("mmmu-ecg", [])
    whole = answered(["A"] * 200, ["A"] * 199 + ["B"], [CHOICES] * 200)
    assert score("mmmu-ecg", whole, allow_partial=False)["accuracy"] == 199 / 200


def test_references_that_cannot_be_read_are_named(answered):
    with pytest.raises(ValueError, match=r"references of \['r0'\] cannot be read"):
        score("mmmu-ecg", answered(["A"], ["?"], [CHOICES]))
    with pytest.raises(ValueError, match="no reference holds one of its labels"):
        score("ptb-test", answered(["NORM"], ["nothing"]))


def test_questions_about_one_ecg_are_resampled_together(answered):
    answers = answered(["lead I"] * 4, ["lead I"] * 4, [LEADS] * 4)
    same = [type(a)(type(a.question)(a.question.record, a.question.turns, {}, "one"), a.texts) for a in answers[:2]]
    weights = resample_ecgs([*same, *answers[2:]], 200)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1] != weights[:, 2]).any()
    found = strict_scores(
        benchmark_task("ecgqa-test"),
        answered(["lead I", "lead II"] * 10, ["lead I"] * 20, [LEADS] * 20),
        allow_partial=True,
    )
    assert found["accuracy"].ci_low < 0.5 < found["accuracy"].ci_high


def test_the_table_shows_both_and_what_could_not_be_read(answered):
    answers = answered(["A", "?", "B"], ["A", "B", "B"], [CHOICES] * 3)
    rows = score_benchmark(benchmark_task("mmmu-ecg"), answers, method="mine", allow_partial=True, n_bootstrap=50)
    table = benchmark_table(rows, ["arena: skipped"])
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| mmmu-ecg")]
    shown = {line[1]: (line[4], line[5].rstrip(" |")) for line in lines}
    assert set(shown) == {"accuracy", "unparsed", "random_letters"}
    assert shown["accuracy"][0].startswith("66.7 [")
    assert shown["unparsed"][0].startswith("33.3")
    assert shown["random_letters"] == ("–", "33.3")
    assert float(shown["accuracy"][1]) == pytest.approx(100 * values(rows)["accuracy_compat"], abs=0.05)
    assert table.rstrip().endswith("arena: skipped")
    assert np.isfinite([row["value"] for row in rows]).all()
