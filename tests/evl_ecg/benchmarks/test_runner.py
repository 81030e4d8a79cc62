"""The whole way, as a user goes it: a folder of ECGBench and a model → answers, verdicts, a results json and a table."""

import json

import pytest
from PIL import Image

from hf_evl_ecg.__main__ import main as command
from hf_evl_ecg.benchmarks import Judge, runner
from hf_evl_ecg.commands.evaluate import BenchmarkArguments
from hf_evl_ecg.results import read_results

MARKS = '{"diagnosis": 6, "form": 3, "rhythm": 9}'


@pytest.fixture
def student_folder(tiny_vlm, tmp_path):
    tiny, folder = tiny_vlm("idefics3"), tmp_path / "student"
    tiny.load().save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def ecgbench(tmp_path):
    folder = tmp_path / "ECGBench"
    (folder / "images").mkdir(parents=True)
    for name, question, reference in [
        ("mmmu-ecg", "Which? A. AF B. LBBB C. RBBB D. paced", "A"),
        ("ptb-test-report", "Write a report.", "Sinus rhythm."),
    ]:
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": reference}]
        records = [{"id": f"{name}-{n}", "image": f"{n}.png", "conversations": turns} for n in range(2)]
        (folder / f"{name}.json").write_text(json.dumps(records))
    for number in range(2):
        Image.new("RGB", (56, 40), (200 * number, 255, 255)).save(folder / "images" / f"{number}.png")
    return folder


def benchmark(student, data, output, *options):
    words = ["--models", f"mine={student}", "--data", data, "--output_dir", output, "--max_new_tokens", 3, *options]
    return command(["evaluate", *map(str, words), "--n_bootstrap", "20"])


def test_a_folder_becomes_scores_and_what_is_skipped_is_said(student_folder, ecgbench, tmp_path, capsys):
    tasks = ["--benchmarks", "mmmu-ecg", "ptb-test-report"]
    assert benchmark(student_folder, ecgbench, tmp_path / "out", *tasks) == 2
    assert "2 answers: mmmu-ecg has 200 records" in capsys.readouterr().err
    assert benchmark(student_folder, ecgbench, tmp_path / "out", *tasks, "--allow_partial") == 0
    found = read_results(tmp_path / "out" / "ecgbench.json")
    assert {row["metric"] for row in found["rows"]} >= {
        "accuracy",
        "unparsed",
        "accuracy_compat",
        "random_letters_compat",
    }
    assert found["config"]["compat_seed"] == 42
    text = (tmp_path / "out" / "ecgbench.md").read_text()
    assert "- ptb-test-report, mine: answered, not scored (name a judge" in text
    assert "- mmmu-ecg, mine: 2 of 200 records" in text
    assert "| mmmu-ecg | unparsed | mine |" in text
    assert text in capsys.readouterr().out


def test_a_judge_scores_reports_and_its_verdicts_are_kept(student_folder, ecgbench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Judge, "ask", lambda judge, prompt: asked.append((judge.model, prompt)) or MARKS)
    monkeypatch.setattr(
        "hf_evl_ecg.inference.asking.generate_answers", lambda m, b, *r, **o: ["SR."] * len(b["input_ids"])
    )
    monkeypatch.setenv("JUDGE_API_KEY", "secret-key-of-the-tests")
    options = ["--benchmarks", "ptb-test-report", "--allow_partial"]
    options += ["--judge_url", "http://localhost:1/v1", "--judge_model", "wise"]
    for _ in range(2):
        assert benchmark(student_folder, ecgbench, tmp_path / "out", *options) == 0
        values = {row["metric"]: row["value"] for row in read_results(tmp_path / "out" / "ecgbench.json")["rows"]}
        assert values["judge_score"] == pytest.approx(0.6)
        assert values["unparsed"] == values["unparsed_verdicts"] == 0
    assert [model for model, _ in asked] == ["wise"]  # both records have one reference and one answer: one prompt
    assert (
        MARKS
        in json.loads((tmp_path / "out" / "verdicts_mine_ptb-test-report.jsonl").read_text().splitlines()[1])["text"]
    )
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "secret-key-of-the-tests" not in written


def test_options_that_would_have_no_effect_are_refused():
    with pytest.raises(ValueError, match="both or none are needed"):
        BenchmarkArguments(["arena"], judge_url="http://localhost/v1")
    with pytest.raises(ValueError, match="allow_partial: only for --benchmarks"):
        BenchmarkArguments(allow_partial=True)


def test_a_judge_or_a_folder_without_use_is_refused(student_folder, ecgbench, tmp_path, capsys):
    judge = ["--judge_url", "http://localhost:1/v1", "--judge_model", "wise"]
    assert benchmark(student_folder, ecgbench, tmp_path / "out", "--benchmarks", "mmmu-ecg", *judge) == 2
    assert "none of ['mmmu-ecg'] is judged (leave it out)" in capsys.readouterr().err
    assert benchmark(student_folder, ecgbench, tmp_path / "out", "--benchmarks", "mmmu-ecg", "--no_likelihoods") == 2
    assert "['mmmu-ecg'] have no labels to score" in capsys.readouterr().err
    folder = ["--benchmarks", "ptb-test", "--image_dir", ecgbench / "images"]
    assert benchmark(student_folder, "hub:PULSE-ECG/ECGBench", tmp_path / "out", *folder) == 2
    assert "holds the images of ptb-test itself" in capsys.readouterr().err


def test_likelihoods_can_be_left_out_and_the_results_named(student_folder, ecgbench, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "NORM"}]
    record = {"id": "p", "image": "0.png", "conversations": turns}
    (ecgbench / "ptb-test.json").write_text(json.dumps([record, {**record, "id": "q"}]))
    options = ["--benchmarks", "ptb-test", "--allow_partial", "--study", "hard"]
    for more, there in ([], True), (["--no_likelihoods"], False):
        out = tmp_path / f"out{len(more)}"
        assert benchmark(student_folder, ecgbench, out, *options, *more) == 0
        line = json.loads((out / "answers_mine_ptb-test.jsonl").read_text().splitlines()[1])
        assert bool(line["scores"]) == there
        assert read_results(out / "hard.json")["study"] == "hard"


def test_nothing_but_notes_is_written_too(tmp_path):
    text = runner.write_benchmarks(tmp_path, {}, [], ["arena, mine: answered, not scored."])
    assert text.rstrip().endswith("- arena, mine: answered, not scored.")
    assert [path.name for path in tmp_path.iterdir()] == ["ecgbench.md"]
