"""Answers of a share of the training records."""

from collections import Counter

import pytest

from hf_evl_ecg.commands.prepare import PrepareArguments, main
from hf_evl_ecg.data.labelled import keep_answers, labelled_records, training_conversations
from hf_evl_ecg.data.questions import CONVERSATION_FEATURES, LOCATION, QUESTION_FEATURES, question_dataset
from hf_evl_ecg.sources.simulated import load_simulated


@pytest.fixture(scope="module")
def questions():
    rows, _ = load_simulated(20, classes=["NORM", "AF", "LBBB"])
    return question_dataset(rows, tasks=["diagnosis", "rhythm", "heart_rate"], formats=["closed", "fill", "choice"])


def places(questions):
    return list(dict.fromkeys(zip(*(questions[name] for name in LOCATION), strict=True)))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_every_class_keeps_its_share_of_the_records(questions, share):
    kept = labelled_records(questions, share, seed=3)
    assert len(kept) == pytest.approx(share * 60, abs=1)
    classes = Counter(place[0].split("/")[0] for place in kept)
    assert set(classes) == {"NORM", "AF", "LBBB"}
    assert all(count == pytest.approx(share * 20, abs=2) for count in classes.values())


def test_another_seed_keeps_others_and_the_same_seed_the_same(questions):
    first = labelled_records(questions, 0.2, seed=0)
    assert labelled_records(questions, 0.2, seed=0) == first
    assert labelled_records(questions.select(range(len(questions) - 1, -1, -1)), 0.2, seed=0) == first
    assert labelled_records(questions, 0.2, seed=1) != first
    assert len(labelled_records(questions, 1e-6)) == 1, "one at least"
    for share in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"labelled_share={share}: must be above 0 and at most 1"):
            keep_answers(questions, share)


def test_nothing_of_a_record_without_answers_tells_them(questions):
    kept = labelled_records(questions, 0.3)
    data = keep_answers(questions, 0.3)
    assert data.features == QUESTION_FEATURES
    assert len(data) == len(questions)
    for before, after in zip(questions, data, strict=True):
        if tuple(before[name] for name in LOCATION) in kept:
            assert after == before
        else:
            told = {"answer", "labels", "value", "tolerance"}
            assert all(after[name] is None for name in told)
            assert {n: v for n, v in after.items() if n not in told} == {
                n: v for n, v in before.items() if n not in told
            }


def test_a_conversation_without_answers_is_the_first_question(questions):
    data = keep_answers(questions, 0.3)
    rows = training_conversations(data, 4, seed=1)
    assert rows.features == CONVERSATION_FEATURES
    kept = labelled_records(questions, 0.3)
    first = {}
    for item in questions:
        first.setdefault(tuple(item[name] for name in LOCATION), item["question"])
    seen = Counter()
    for row in rows:
        place = tuple(row[name] for name in LOCATION)
        seen[place] += 1
        if place in kept:
            assert len(row["conversations"]) % 2 == 0
            assert all(message["value"] for message in row["conversations"])
        else:
            assert row["conversations"] == [{"from": "human", "value": first[place]}]
            assert seen[place] == 1
    assert list(map(set, (seen, places(questions)))) == [set(places(questions))] * 2


@pytest.mark.parametrize("turns", [1, 4])
def test_prepare_keeps_the_answers_of_a_share(tmp_path, turns):
    args = PrepareArguments(
        output_dir=str(tmp_path / "q"), simulated_train=10, simulated_test=2, simulated_classes=["NORM", "AF"],
        formats=["closed", "fill"], tasks=["rhythm", "axis"], labelled_share=0.2, turns=turns,
    )  # fmt: skip
    data = main(args)
    report = (tmp_path / "q" / "report.md").read_text()
    assert (
        "Answers are kept for 4 of 20 training records (simulated 4 of 20); the others have questions only." in report
    )
    assert None not in data["test"]["answer"]
    if turns == 1:
        answered = {row["record"] for row in data["train"] if row["answer"] is not None}
        assert len(answered) == 4
        assert len(set(data["train"]["record"])) == 20
    else:
        lengths = Counter(len(row["conversations"]) % 2 for row in data["train"])
        assert lengths[1] == 16
    whole = main(PrepareArguments(**{**vars(args), "labelled_share": 1.0, "output_dir": str(tmp_path / "all")}))
    assert whole["test"].to_list() == data["test"].to_list()
    assert "Answers are kept" not in (tmp_path / "all" / "report.md").read_text()
    with pytest.raises(ValueError, match="labelled_share=0"):
        main(PrepareArguments(output_dir=str(tmp_path / "x"), simulated_train=1, labelled_share=0.0))
