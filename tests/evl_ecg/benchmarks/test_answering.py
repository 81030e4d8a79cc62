"""A model answers each record once, in the order of the file, and the arena turn by turn."""

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.benchmarks import Benchmark, BenchmarkQuestion, answer_benchmark, benchmark_task
from hf_evl_ecg.benchmarks import answering as answering_module
from hf_evl_ecg.chat.conversations import Turn
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.inference.answer_file import read_answers


def benchmark(task, folder, turns, n=3):
    for number in range(n):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    questions = tuple(BenchmarkQuestion(f"r{n}", turns, {"image": f"{n}.png"}, f"{n}.png") for n in range(n))
    return Benchmark(benchmark_task(task), questions, ImageFile(folder))


def ask(tiny, bench, **options):
    return answer_benchmark(tiny.load(), tiny.processor, bench, max_new_tokens=4, progress_bar=False, **options)


def test_every_label_gets_a_likelihood_and_an_interrupted_run_goes_on(tiny_vlm, tmp_path, monkeypatch):
    tiny, bench = tiny_vlm("idefics3"), benchmark("ptb-test", tmp_path, (Turn("Which?", "NORM"),))
    path = tmp_path / "answers.jsonl"
    found = ask(tiny, bench, path=path)
    assert [answer.question.record for answer in found] == ["r0", "r1", "r2"]
    assert all(len(answer.scores) == 5 and max(answer.scores) < 0 for answer in found)
    assert len({answer.scores for answer in found}) == 3  # of three pictures
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    asked = []
    monkeypatch.setattr(
        "hf_evl_ecg.inference.asking.generate_answers",
        lambda model, batch, *rest, **options: (
            asked.append(len(batch["input_ids"])) or ["again"] * len(batch["input_ids"])
        ),
    )
    again = ask(tiny, bench, path=path)
    assert asked == [1]
    assert [a.texts for a in again[:2]] == [a.texts for a in found[:2]]
    assert again[2].texts == ("again",)


def test_records_without_a_picture_are_left_out_and_named(tiny_vlm, tmp_path, caplog):
    tiny, bench = tiny_vlm("idefics3"), benchmark("mmmu-ecg", tmp_path, (Turn("Which?", "A"),))
    (tmp_path / "1.png").write_bytes(b"damaged")
    found = ask(tiny, bench)
    assert [answer.question.record for answer in found] == ["r0", "r2"]
    assert "mmmu-ecg: 1 records without an answer: ['r1']" in caplog.text


def test_a_later_turn_of_the_arena_is_asked_with_the_models_own_answers(tiny_vlm, tmp_path, monkeypatch):
    tiny = tiny_vlm("idefics3")
    bench = benchmark("arena", tmp_path, (Turn("Rhythm?", "reference one"), Turn("Why?", "reference two")), n=2)
    asked = []
    original = answering_module.answer_items

    def listen(model, processor, items, **options):
        asked.extend(item["question"] for item in items)
        return original(model, processor, items, **options)

    monkeypatch.setattr(answering_module, "answer_items", listen)
    texts = iter(["AF.", "SR.", "Irregular.", "Regular."])
    monkeypatch.setattr(
        "hf_evl_ecg.inference.asking.generate_answers",
        lambda model, batch, *rest, **options: [next(texts) for _ in batch["input_ids"]],
    )
    path = tmp_path / "answers.jsonl"
    found = ask(tiny, bench, path=path)
    assert [answer.texts for answer in found] == [("AF.", "Irregular."), ("SR.", "Regular.")]
    assert asked == [
        *("Rhythm?", "Rhythm?"),
        "Question: Rhythm?\nAnswer: AF.\n\nQuestion: Why?",
        "Question: Rhythm?\nAnswer: SR.\n\nQuestion: Why?",
    ]
    assert "reference" not in "".join(asked)
    assert len(read_answers(path).answers) == 4
    assert ask(tiny, bench, path=path) == found  # no more texts to give: all are there


@pytest.mark.parametrize("task", ["csn-test-no-cot", "ecgqa-test", "ptb-test-report"])
def test_tasks_without_labels_need_no_likelihoods(tiny_vlm, tmp_path, task):
    found = ask(tiny_vlm("idefics3"), benchmark(task, tmp_path, (Turn("Which?", "A"),), n=1))
    assert found[0].scores == ()
