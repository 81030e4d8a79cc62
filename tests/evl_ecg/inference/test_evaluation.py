"""One evaluator for every model: likelihoods against a slow loop, resuming, skipping, and scores that mean what they say."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError
from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.inference.answer_file import AnswerFileError
from hf_evl_ecg.inference.evaluation import answer_items, evaluate_model
from hf_evl_ecg.inference.generation import generate_answers
from hf_evl_ecg.inference.likelihood import answer_token_ids, label_likelihoods
from hf_evl_ecg.qa.evaluate_metric import ECGAnswerMetric
from hf_evl_ecg.qa.grading import candidate_answers, grade, task_name
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.items import (
    class_list_question,
    closed_question,
    measurement_question,
    open_question,
    qa_item,
    report_question,
)
from hf_evl_ecg.qa.scoring import fit_temperatures, score_answers
from hf_evl_ecg.results import read_results, write_results

CLASSES = ("NORM", "AF", "LBBB")


def draw(item):
    """An image that differs from record to record; none for records whose name says so."""
    if item["record"].startswith("bad"):
        raise OSError("damaged")
    seed = sum(map(ord, item["record"]))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 56, 3), dtype=np.uint8))


def choice(record, options, right):
    letters = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=False)]
    question = f"Which rhythm? {' '.join(letters)}"
    return qa_item(record, question, letters[right], "choice", "rhythm", options=options, labels=None)


@pytest.fixture
def items():
    import random

    rng = random.Random(0)
    return [
        closed_question("r1", "rhythm", "AF", True, rng),
        closed_question("r2", "rhythm", "AF", False, rng),
        choice("r1", ["sinus rhythm", "atrial fibrillation", "paced rhythm"], 1),
        choice("r3", ["atrial flutter", "sinus rhythm"], 1),
        class_list_question("r2", CLASSES, ["AF", "LBBB"]),
        measurement_question("r3", "heart_rate", 70.0, "fill", rng),
        open_question("r1", "rhythm", ["AF"], rng),
        report_question("r2", "Rhythm: sinus rhythm.", rng),
    ]


@pytest.mark.parametrize("name", ["llava_next", "idefics3"])
def test_answers_are_the_models_own(name, tiny_vlm, items):
    tiny = tiny_vlm(name)
    model = tiny.load()
    done = answer_items(
        model, tiny.processor, items, load_image=draw, batch_size=3, max_new_tokens=5, progress_bar=False
    )
    assert [item["question"] for item in done.items] == [item["question"] for item in items]
    for item, answer in zip(done.items, done.answers, strict=True):
        batch = EVLECGCollator(tiny.processor, load_image=draw)([item])
        assert answer.text == generate_answers(model, batch, tiny.processor.tokenizer, max_new_tokens=5)[0]
        assert answer.record == item["record"]
        options = candidate_answers(item)
        assert len(answer.scores) == len(options)
        if options:
            ids = answer_token_ids(tiny.processor, options)
            slow = label_likelihoods(model, batch, ids, tiny.processor.tokenizer.pad_token_id)
            assert answer.scores == pytest.approx(slow[0].tolist(), abs=1e-4)
    assert {len(candidate_answers(item)) for item in items} >= {0, 2, 3}


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    options = {"load_image": draw, "batch_size": 2, "max_new_tokens": 4, "progress_bar": False}
    whole = answer_items(tiny.load(), tiny.processor, items, **options)
    path = tmp_path / "answers" / "student.jsonl"
    answer_items(tiny.load(), tiny.processor, items[:5], path=path, **options)
    kept = path.read_text().splitlines()
    path.write_text("\n".join(kept[:4]) + '\n{"key": "half a li')  # killed while writing
    asked = []

    def counting(item):
        asked.append(item["record"])
        return draw(item)

    again = answer_items(tiny.load(), tiny.processor, items, path=path, **{**options, "load_image": counting})
    done = {json.loads(line)["key"] for line in kept[1:4]}
    looked = {json.loads(line)["record"] for line in kept[1:4]}
    rest = {item["record"] for item in items if example_key(item) not in done}
    assert sorted(asked) == sorted([*looked, *rest]), "each is looked at once more, then what is left is drawn once"
    assert len(done) == 3
    for a, b in zip(whole.answers, again.answers, strict=True):
        assert (a.record, a.text) == (b.record, b.text)
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
    assert len(path.read_text().splitlines()) == len(items) + 1
    with pytest.raises(AnswerFileError, match="other max_new_tokens"):
        answer_items(tiny.load(), tiny.processor, items, path=path, **{**options, "max_new_tokens": 5})
    other = tiny.load()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(AnswerFileError, match="other model"):
        answer_items(other, tiny.processor, items, path=path, **options)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", *lines[1:]]) + "\n")
    with pytest.raises(AnswerFileError, match="line 2 is no answer"):
        answer_items(tiny.load(), tiny.processor, items, path=path, **options)


def test_bad_records_are_skipped_counted_and_named_or_stop(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    bad = [{**items[0], "record": "bad1"}, {**items[1], "record": "bad2"}]
    options = {"load_image": draw, "batch_size": 2, "max_new_tokens": 2, "progress_bar": False, "likelihoods": False}
    done = answer_items(tiny.load(), tiny.processor, [*bad, *items[:3], bad[0]], **options)
    assert len(done.answers) == len(done.items) == 3
    assert "bad1" in " ".join(done.skipped)
    assert "bad2" in " ".join(done.skipped)
    assert all(answer.scores == () for answer in done.answers)
    with pytest.raises(ExampleError, match="bad1"):
        answer_items(tiny.load(), tiny.processor, [*items[:1], bad[0]], on_bad_example="stop", **options)
    with pytest.raises(ValueError, match="nothing to do"):
        answer_items(tiny.load(), tiny.processor, items, generate=False, **options)
    with pytest.raises(ValueError, match="an answer of 'yes' or 'no'"):
        answer_items(tiny.load(), tiny.processor, [{**items[0], "answer": "perhaps"}], **options)


def by_name(rows):
    return {(row["task"], row["metric"]): row for row in rows}


def test_rows_against_scikit_learn_and_by_hand():
    import random

    rng, noise = random.Random(1), np.random.default_rng(1)
    items, answers = [], []
    for i in range(60):
        present = rng.random() < 0.4
        items.append(closed_question(f"r{i}", "diagnosis", "LBBB", present, rng))
        says = rng.choice(["yes", "no", "perhaps"])
        score = float(present + noise.normal())
        answers.append(Answer(f"r{i}", says, (score, 0.0)))
    rows = by_name(score_answers(items, answers, method="sft", seed=3, n_bootstrap=200))
    truth = [item["answer"] for item in items]
    texts = [answer.text for answer in answers]
    name = "diagnosis_closed"
    assert rows[name, "accuracy"]["value"] == pytest.approx(
        np.mean([a == b for a, b in zip(truth, texts, strict=True)])
    )
    assert rows[name, "unparsed"]["value"] == pytest.approx(texts.count("perhaps") / 60)
    said = [
        text if text != "perhaps" else ("no" if t == "yes" else "yes") for t, text in zip(truth, texts, strict=True)
    ]
    assert rows[name, "balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert rows[f"{name}/LBBB", "balanced_accuracy"]["value"] == rows[name, "balanced_accuracy"]["value"]
    margins = [answer.scores[0] for answer in answers]
    assert rows[name, "auc"]["value"] == pytest.approx(roc_auc_score([t == "yes" for t in truth], margins))
    assert rows[name, "auc"]["above_chance"] is True
    assert rows[name, "accuracy"]["above_chance"] is False
    assert rows[name, "accuracy"]["chance"] == pytest.approx(max(truth.count("yes"), truth.count("no")) / 60)
    for row in rows.values():
        assert row["method"] == "sft"
        assert row["seed"] == 3
        assert row["dim"] is None
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    temperature = fit_temperatures(items, answers)[name]
    cooled = by_name(score_answers(items, answers, method="sft", temperatures={name: temperature}, n_bootstrap=0))
    assert cooled[name, "calibration_error"]["value"] != rows[name, "calibration_error"]["value"]
    assert cooled[name, "accuracy"]["ci_low"] is None


def test_right_answers_score_perfectly_and_constant_ones_at_chance(items):
    import random

    rng = random.Random(5)
    more = list(items)
    for i in range(40):
        present = [c for c in CLASSES if rng.random() < 0.5]
        more.append(class_list_question(f"c{i}", CLASSES, present))
        more.append(measurement_question(f"c{i}", "heart_rate", rng.uniform(40, 140), "open", rng))
        more.append(open_question(f"c{i}", "axis", [rng.choice(["AXN", "LAD", "RAD"])], rng))
        more.append(choice(f"c{i}", ["sinus rhythm", "paced rhythm"], rng.randrange(2)))
    right = by_name(score_answers(more, [Answer(i["record"], i["answer"]) for i in more], method="x", n_bootstrap=200))
    for (task, metric), row in right.items():
        if metric in ("unparsed", "hamming_loss"):
            assert row["value"] == 0
        elif metric == "mean_absolute_error":
            assert row["value"] <= 0.5  # answers are rounded
        else:
            assert row["value"] == 1, (task, metric)
        if metric in ("accuracy", "macro_f1", "hamming_loss", "within_tolerance") and row["n"] >= 40:
            assert row["above_chance"] is True, (task, metric)
    constant = {
        "diagnosis_classes": "normal ECG, atrial fibrillation, left bundle branch block",
        "axis_open": "normal axis",
    }
    flat = [Answer(i["record"], constant.get(task_name(i), "90 bpm")) for i in more]
    for row in by_name(score_answers(more, flat, method="x", n_bootstrap=200)).values():
        assert not row["above_chance"], row


def test_reports_texts_and_mistakes(items):
    report = items[-1]
    rate = items[5]
    assert (grade(rate, "74 bpm").predicted, grade(rate, "74 bpm").correct) == (74, 1)
    assert (grade(rate, "300 bpm").predicted, grade(rate, "300 bpm").correct) == (300, 0)
    assert grade(rate, "7222222222 bpm").predicted is None  # no heart rate; as an error it would drown all others
    assert grade({**rate, "task": "potassium"}, "7222222222 bpm").predicted == 7222222222
    assert grade(report, "Sinus rhythm.").correct == 1
    assert grade(report, "Sinus rhythm, atrial flutter").correct == pytest.approx(2 / 3)
    text = {"record": "t", "question": "Why?", "answer": "Because.", "source": "arena"}
    assert task_name(text) == "arena"
    assert grade(text, "  because") == grade(text, "Because.")
    with pytest.raises(ValueError, match="needs unit and tolerance"):
        grade({**items[5], "unit": None}, "70")
    with pytest.raises(ValueError, match="format='essay': allowed are"):
        grade({**items[5], "format": "essay"}, "70")
    two = [class_list_question("a", CLASSES, []), class_list_question("b", CLASSES[:2], [])]
    lists = {row["task"] for row in score_answers(two, [Answer("a", ""), Answer("b", "")], method="x")}
    assert lists == {f"diagnosis_classes({' '.join(own)})" for own in (CLASSES, CLASSES[:2])}, "a task for each list"
    with pytest.raises(ValueError, match="one answer is needed for each"):
        score_answers(items, [], method="x")


def test_from_model_to_results_json(tmp_path, tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    done = evaluate_model(
        tiny.load(), tiny.processor, items, method="evl_ecg", load_image=draw, n_bootstrap=50, max_new_tokens=3,
        batch_size=4, progress_bar=False,
    )  # fmt: skip
    path = tmp_path / "results" / "ecg_tiny.json"
    written = write_results(path, "ecg_tiny", {"folder": tmp_path}, done.rows)
    assert read_results(path) == json.loads(path.read_text()) == {**written, "config": {"folder": str(tmp_path)}}
    assert list(path.parent.iterdir()) == [path]
    assert {row["task"] for row in done.rows} >= {"rhythm_closed", "rhythm_choice", "diagnosis_classes", "report"}
    with pytest.raises(ValueError, match="value is nan"):
        write_results(path, "ecg_tiny", {}, [{**done.rows[0], "value": math.nan}])
    with pytest.raises(ValueError, match="missing"):
        write_results(path, "ecg_tiny", {}, [{"method": "x"}])
    with pytest.raises(ValueError, match="no rows"):
        write_results(path, "ecg_tiny", {}, [])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="no results json"):
        read_results(tmp_path / "x.json")
    assert read_results(path)["rows"] == written["rows"]


def test_the_evaluate_metric_says_the_same(items):
    answers = ["yes", "no", "B", "A", "atrial fibrillation", "72", "AF", "sinus rhythm"]
    scores = ECGAnswerMetric().compute(predictions=answers, references=items)
    expected = score_answers(items, [Answer(i["record"], a) for i, a in zip(items, answers, strict=True)], method="x")
    assert scores == {f"{row['task']}_{row['metric']}": row["value"] for row in expected}
    assert scores["rhythm_closed_accuracy"] == 1
    assert scores["rhythm_choice_accuracy"] == 0.5
