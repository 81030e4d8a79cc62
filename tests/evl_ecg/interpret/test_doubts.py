"""An answer that contradicts its own scores is flagged, and one to a question that was never learnt or measured is marked."""

import pytest
from PIL import Image

from hf_evl_ecg.app.parts import answer_card
from hf_evl_ecg.cards.card import render_card
from hf_evl_ecg.cards.spec import CardSpec
from hf_evl_ecg.chat.question_kinds import write_kinds
from hf_evl_ecg.interpret.doubts import KnownKinds, answer_conflicts, read_measured
from hf_evl_ecg.interpret.interpreter import ECGInterpreter, Interpretation
from hf_evl_ecg.interpret.page import report_page
from hf_evl_ecg.interpret.report import ECGReport, Opinion
from hf_evl_ecg.results import write_results
from hf_evl_ecg.signals.simulation import simulate

LOW = {"AF": 0.001, "SR": 0.002, "LBBB": 0.004}


@pytest.mark.parametrize(
    ("question", "answer", "scores", "conflicts"),
    [
        (
            "What does this ECG show?",
            "left bundle branch block",
            LOW,
            ["names left bundle branch block, whose own score is 0.00"],
        ),
        ("What does this ECG show?", "left bundle branch block", {"LBBB": 0.9}, []),
        ("What does this ECG show?", "right bundle branch block", LOW, []),  # not scored
        ("What does this ECG show?", "no left bundle branch block", LOW, []),
        (
            "What does this ECG show?",
            "SR, no LBBB",
            {"LBBB": 0.8},
            ["denies left bundle branch block, whose own score is 0.80"],
        ),
        ("Does this ECG show LBBB?", "yes", LOW, ["names left bundle branch block, whose own score is 0.00"]),
        (
            "Does this ECG show LBBB?",
            "No.",
            {"LBBB": 0.7},
            ["denies left bundle branch block, whose own score is 0.70"],
        ),
        ("Does this ECG show LBBB?", "No.", LOW, []),
        (
            "What does this ECG show?",
            "A normal ECG.",
            {"AF": 0.9, "SR": 0.8},
            ["normal ECG, but atrial fibrillation scores 0.90"],
        ),
        (
            "What is the rhythm?",
            "atrial flutter",
            {"SR": 0.9, "LBBB": 0.9},
            ["atrial flutter, but sinus rhythm scores 0.90"],
        ),
        ("What is the heart rate?", "72 beats per minute", {"AF": 0.9}, []),
        ("What does this ECG show?", "left bundle branch block", {}, []),
    ],
)
def test_conflicts(question, answer, scores, conflicts):
    found = answer_conflicts(question, answer, scores)
    assert len(found) == len(conflicts)
    assert all(text in line for text, line in zip(conflicts, found, strict=True))


def test_kinds_that_were_never_learnt_or_measured_are_marked():
    known = KnownKinds(
        {"rhythm_closed": 9, "diagnosis_open": 4}, {"rhythm (yes/no)": ["balanced accuracy 0.81 (ludb)"]}
    )
    assert known.doubts("Does this ECG show atrial fibrillation?") == []
    assert known.results("Does this ECG show atrial fibrillation?") == ["balanced accuracy 0.81 (ludb)"]
    assert known.doubts("What does this ECG show?") == ["this kind of question (diagnosis (open)) was not measured"]
    first, second = known.doubts("Will it rain?")
    assert (
        first
        == "this kind of question (of other words) was not in the training, which had rhythm (yes/no), diagnosis (open)"
    )
    assert second == "and was not measured"
    assert KnownKinds({}, {}).doubts("Will it rain?") == []
    assert KnownKinds({"other": 3}, {}).doubts("Will it rain?") == []


@pytest.fixture
def folder(tmp_path):
    """What a trained model's folder says beside its weights: kinds of questions and a card."""
    write_kinds(tmp_path, {"rhythm_open": 5})
    row = {"method": "evl_ecg", "seed": 0, "task": "real:rhythm_open", "dim": None, "metric": "balanced_accuracy"}
    row |= {"value": 0.8125, "n": 200, "ci_low": 0.75, "ci_high": 0.87}
    results = write_results(tmp_path / "r.json", "ecg_small", {}, [row])
    text = render_card(results, CardSpec("ECG-small", "evl_ecg", license="apache-2.0"))
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_card_is_read_as_it_is_written(folder, tmp_path_factory):
    assert read_measured(folder) == {"rhythm (open)": ["balanced accuracy 0.81 (all real records, test records)"]}
    empty = tmp_path_factory.mktemp("empty")
    assert read_measured(empty) == {}
    (empty / "README.md").write_text("no metadata")
    assert read_measured(empty) == {}
    assert read_measured("no-such/model") == {}


def test_a_model_s_folder_is_asked(folder, tiny_vlm):
    made = tiny_vlm("idefics3")
    made.load().save_pretrained(folder)
    made.processor.save_pretrained(folder)
    interpreter = ECGInterpreter.from_pretrained(folder, device="cpu")
    ecg = simulate("AF", seed=0)
    done = interpreter(ecg, "What is the rhythm of this ECG?", labels=[], max_new_tokens=2)
    assert done.measured == ("balanced accuracy 0.81 (all real records, test records)",)
    assert done.doubts == ()
    other = interpreter(ecg, "Will it rain?", labels=[], max_new_tokens=2)
    assert len(other.doubts) == 2
    page = report_page(
        ECGReport("r", [Opinion({"name": "m", "dtype": "", "architecture": "", "parameters": 1, "device": ""}, other)])
    )
    assert "Doubtful: this kind of question (of other words) was not in the training" in page


def test_what_is_doubtful_stands_beside_the_answer_and_is_escaped():
    evil = "<script>"
    said = Interpretation("Q?", "A", {}, Image.new("RGB", (40, 40)), {}, doubts=(evil,), measured=(evil,))
    model = {"name": "m", "dtype": "", "architecture": "", "parameters": 1, "device": ""}
    report = ECGReport("r", [Opinion(model, said)])
    assert report.to_dict()["opinions"][0]["doubts"] == [evil]
    for page in (report_page(report), answer_card("m", "m", answer="A", seconds=1.0, doubts=[evil], measured=[evil])):
        assert page.count("&lt;script&gt;") == 2
        assert evil not in page
