"""Files of a benchmark, in each of their forms, give the same questions and pictures."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

from hf_evl_ecg.benchmarks import ECGBENCH, load_benchmark
from hf_evl_ecg.benchmarks import questions as questions_module
from hf_evl_ecg.chat.conversations import ExampleError, Turn


def picture(number):
    return Pictures.fromarray(np.full((6, 8, 3), 40 * number, np.uint8))


def records(n=3):
    turns = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "NORM"}]
    return [{"id": f"r{number}", "image": f"ptb-xl/{number}.png", "conversations": turns} for number in range(n)]


def save_pictures(folder, n=3):
    for number in range(n):
        path = folder / "images" / "ptb-xl" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)


def check(benchmark):
    assert [question.record for question in benchmark.questions] == ["r0", "r1", "r2"]
    assert {question.turns for question in benchmark.questions} == {(Turn("Which?", "NORM"),)}
    assert [question.ecg for question in benchmark.questions] == [f"ptb-xl/{n}.png" for n in range(3)]
    for number, question in enumerate(benchmark.questions):
        image = benchmark.load_image(dict(question.place))
        assert image.mode == "RGB"
        assert np.array_equal(image, picture(number))


@pytest.mark.parametrize("form", ["list", "lines", "folder"])
def test_json_files_with_a_folder_of_images(tmp_path, form):
    save_pictures(tmp_path)
    lines = "\n".join(map(json.dumps, records()))
    if form == "folder":
        (tmp_path / "ptb-test").mkdir()
        (tmp_path / "ptb-test" / "ptb_test.jsonl").write_text(lines)
    elif form == "lines":
        (tmp_path / "ptb-test.jsonl").write_text(lines)
    else:
        (tmp_path / "ptb-test.json").write_text(json.dumps(records()))
    check(load_benchmark("ptb-test", tmp_path))
    check(load_benchmark("ptb-test", tmp_path, tmp_path / "images"))


def rows():
    features = {"id": Value("string"), "image_path": Value("string"), "image": Image()}
    found = records()
    data = {"id": [r["id"] for r in found], "image_path": [r["image"] for r in found]}
    data["image"] = [picture(number) for number in range(3)]
    table = Dataset.from_dict(data, features=Features(features))
    return table.add_column("conversations", [r["conversations"] for r in found])


def test_parquet_files_hold_their_images(tmp_path):
    (tmp_path / "ptb-test").mkdir()
    rows().to_parquet(tmp_path / "ptb-test" / "test-00000-of-00001.parquet")
    check(load_benchmark("ptb-test", tmp_path))


def test_a_name_on_the_hub_is_loaded_task_by_task(monkeypatch):
    asked = []

    def load(name, task, split):
        asked.append((name, task, split))
        return rows()

    monkeypatch.setattr(questions_module, "load_dataset", load)
    check(load_benchmark("ptb-test", "hub:PULSE-ECG/ECGBench"))
    assert asked == [("PULSE-ECG/ECGBench", "ptb-test", "test")]


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="benchmark='ptb': allowed are 'ptb-test'"):
        load_benchmark("ptb", tmp_path)
    with pytest.raises(ValueError, match=r"ptb-test.json, .jsonl or .parquet, or a folder ptb-test .* hub:OWNER/NAME"):
        load_benchmark("ptb-test", tmp_path)
    (tmp_path / "ptb-test.json").write_text("[]")
    with pytest.raises(ValueError, match="ptb-test: there are no records"):
        load_benchmark("ptb-test", tmp_path)
    (tmp_path / "ptb-test.json").write_text(json.dumps([{**records(1)[0], "conversations": []}]))
    with pytest.raises(ExampleError, match="ptb-test:r0"):
        load_benchmark("ptb-test", tmp_path)


def test_records_of_one_name_get_names_of_their_own(tmp_path):
    """The answers are kept by name; MMMU numbers its records under "No"."""
    turns = records(1)[0]["conversations"]
    numbered = [{"No": number, "image": "a.png", "conversations": turns} for number in (1, 2)]
    (tmp_path / "mmmu-ecg.json").write_text(json.dumps(numbered))
    assert [q.record for q in load_benchmark("mmmu-ecg", tmp_path).questions] == ["1", "2"]
    (tmp_path / "mmmu-ecg.json").write_text(json.dumps(records(1) * 2))
    assert [q.record for q in load_benchmark("mmmu-ecg", tmp_path).questions] == ["r0#0", "r0#1"]


def test_there_are_nine_tasks():
    assert {name: task.size for name, task in ECGBENCH.items()} == {
        "ptb-test": 2082,
        "cpsc-test": 2061,
        "code15-test": 1400,
        "ecgqa-test": 1317,
        "csn-test-no-cot": 1611,
        "g12-test-no-cot": 2026,
        "mmmu-ecg": 200,
        "ptb-test-report": 500,
        "arena": 50,
    }


@pytest.mark.parametrize("record", [7, None, "x", ["a"], True])
def test_records_that_are_no_objects_are_refused(tmp_path, record):
    path = tmp_path / "ptb-test.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(ValueError, match=rf"^{path}: holds a .*; records of ptb-test, json objects, are needed"):
        load_benchmark("ptb-test", tmp_path)


@pytest.mark.parametrize("said", ["x", 3, ["human", "gpt"], [None], {"from": "human"}])
def test_conversations_that_are_none_are_refused(tmp_path, said):
    (tmp_path / "ptb-test.json").write_text(json.dumps([{"id": "r", "image": "r.png", "conversations": said}]))
    with pytest.raises(ExampleError, match="record 'ptb-test:r': conversations must be a list of messages"):
        load_benchmark("ptb-test", tmp_path)


def test_damaged_parquet_is_one_error_with_its_name(tmp_path):
    path = tmp_path / "ptb-test.parquet"
    Dataset.from_dict({"id": ["r"]}).to_parquet(path)
    with pytest.raises(ValueError, match=rf"^{path}: has no column conversations, image; there are id"):
        load_benchmark("ptb-test", tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"^{path}: cannot be read as parquet"):
        load_benchmark("ptb-test", tmp_path)


@pytest.mark.parametrize("content", [3, ["x"], [None], {"text": "x"}, [{"type": "text", "text": None}]])
def test_contents_of_messages_that_are_none_are_refused(tmp_path, content):
    said = [{"role": "user", "content": content}, {"role": "assistant", "content": "AF"}]
    (tmp_path / "ptb-test.json").write_text(json.dumps([{"id": "r", "image": "r.png", "messages": said}]))
    with pytest.raises(ExampleError, match="record 'ptb-test:r': turn 1 has an empty question"):
        load_benchmark("ptb-test", tmp_path)


def test_a_name_of_any_length_is_not_quoted_whole(tmp_path):
    (tmp_path / "ptb-test.json").write_text(json.dumps([{"id": "x" * 5000, "image": "r.png", "conversations": []}]))
    with pytest.raises(ExampleError, match="record 'ptb-test:xxx") as caught:
        load_benchmark("ptb-test", tmp_path)
    assert len(str(caught.value)) < 500
