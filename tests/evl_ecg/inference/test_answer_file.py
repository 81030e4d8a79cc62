"""Answers are used again for the same model, pictures and settings only."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.inference.answer_file import AnswerFile, AnswerFileError, read_answers
from hf_evl_ecg.inference.digests import changed_picture, picture_digest
from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.qa.items import closed_question
from hf_evl_ecg.sources.simulated import load_simulated

PAGE = RenderConfig(width_px=224, height_px=112, grid="thick")


@pytest.fixture(scope="module")
def questions():
    rows, _ = load_simulated(2, classes=["NORM", "AF"], split="test")
    return question_dataset(rows, tasks=["rhythm"], formats=["closed"])


@pytest.fixture
def ask(tiny_vlm, tmp_path, questions):
    """Answer the questions into one file; keyword arguments replace options."""
    tiny = tiny_vlm("idefics3")
    options = {"load_image": RenderedECG(PAGE), "max_new_tokens": 2, "path": tmp_path / "answers.jsonl"}
    options |= {"progress_bar": False}

    def answers(items=questions, **changed):
        return answer_items(tiny.load(), tiny.processor, items, **{**options, **changed}).answers

    return answers


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"load_image": RenderedECG(replace(PAGE, layout="6x2"))}, "other images"),
        ({"load_image": RenderedECG(replace(PAGE, footer=False))}, "other images"),
        ({"load_image": RenderedECG(PAGE, AugmentConfig(probability=1.0))}, "other images"),
        ({"system_prompt": "You read ECGs."}, "other system_prompt"),
        ({"max_length": 500}, "other max_length"),
        ({"likelihoods": False}, "other likelihoods"),
    ],
)
def test_answers_to_something_else_are_refused(ask, tmp_path, changed, message):
    first = ask()
    before = (tmp_path / "answers.jsonl").read_bytes()
    with pytest.raises(AnswerFileError, match=message):
        ask(**changed)
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    assert ask() == first


def test_pictures_are_compared_where_the_loader_has_no_fingerprint(ask, questions):
    def plain(config):
        draw = RenderedECG(config)
        return lambda item: draw(item)

    assert ask(load_image=plain(PAGE)) == ask(load_image=plain(PAGE))
    with pytest.raises(AnswerFileError, match=r"answers about another picture of simulated:\w+/\d+"):
        ask(load_image=plain(replace(PAGE, palette="blue")))


def test_a_signal_that_was_changed_under_the_same_name_is_noticed(ask):
    """The same record, question, answer and page, with another gain of its signal."""
    draw = RenderedECG(PAGE)

    class Louder(RenderedECG):
        def __call__(self, example):
            return super().__call__({**example, "record": "LBBB/7"})

    ask(load_image=draw)
    assert Louder(PAGE).fingerprint() == draw.fingerprint()
    with pytest.raises(AnswerFileError, match="another picture"):
        ask(load_image=Louder(PAGE))


def test_a_file_that_names_no_pictures_is_refused_and_still_read(ask, tmp_path):
    first = ask()
    path = tmp_path / "answers.jsonl"
    header, *lines = map(json.loads, path.read_text().splitlines())
    for line in lines:
        del line["picture"]
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    with pytest.raises(AnswerFileError, match="does not say which pictures"):
        ask()
    assert list(read_answers(path).answers.values()) == first


def test_scores_of_other_options_are_refused(ask, questions):
    item = {**closed_question("r", "rhythm", "AF", True, random.Random(0)), "source": "own"}
    item = {**item, "format": "choice", "options": ["a", "b", "c"], "answer": "A. a"}
    page = Image.new("RGB", (56, 28), "white")
    ask([item], load_image=lambda _: page)
    with pytest.raises(AnswerFileError, match="scores other options for own:r"):
        ask([{**item, "options": ["a", "b"]}], load_image=lambda _: page)


def test_a_few_pictures_stand_for_all():
    items = [{"record": f"r{i}", "question": "?", "answer": "yes"} for i in range(100)]
    drawn = []

    def draw(item):
        drawn.append(item["record"])
        return Image.fromarray(np.full((2, 2), int(item["record"][1:]), np.uint8))

    from hf_evl_ecg.chat.examples import example_key

    digests = {example_key(item): picture_digest(draw(item)) for item in items}
    drawn.clear()
    assert changed_picture(digests, items, draw, at_most=10) is None
    assert drawn == [f"r{i}" for i in range(0, 100, 10)]
    digests[example_key(items[50])] = "0" * 16
    assert changed_picture(digests, items, draw, at_most=10) == "r50"

    def gone(item):
        raise OSError

    assert changed_picture(digests, items, gone) is None
    assert changed_picture({}, items, draw) is None


def test_a_digest_tells_sizes_modes_and_pixels_apart():
    pictures = [Image.new("L", (2, 3)), Image.new("L", (3, 2)), Image.new("L", (2, 3), 1), Image.new("P", (2, 3))]
    assert len({picture_digest(picture) for picture in pictures}) == 4


def test_a_half_written_line_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    AnswerFile(path, {"a": 1}).add({"k": Answer("r", "yes", (-0.5,))}, {"k": "00"})
    path.write_text(path.read_text() + '{"key": "half')
    again = AnswerFile(path, {"a": 1})
    assert again.answers == {"k": Answer("r", "yes", (-0.5,))}
    assert again.pictures == {"k": "00"}
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\r", "\n"])
def test_marks_that_python_takes_for_line_ends_stay_in_an_answer(tmp_path, mark):
    """json leaves U+2028 and U+0085 in a text as they are, and str.splitlines cut such a line in two: the file was lost."""
    path, given = tmp_path / "answers.jsonl", Answer("r", f"sinus{mark}rhythm", (-0.5,))
    AnswerFile(path, {"model": "m"}).add({"k": given}, {"k": "digest"})
    assert AnswerFile(path, {"model": "m"}).answers == {"k": given}


HEADER = '{"settings": {"model": "m"}}'
LINE = {"key": "k", "record": "r", "text": "AF", "scores": [-0.5], "picture": "p"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 3000, "line 1 is no answer: .*line 1: is no json .maximum recursion"),
        (b'{"settings": []}', "line 1 is no answer: settings is a list"),
        (b"7", "line 1 is no answer"),
        (HEADER.encode() + b"\n" + b'{"key": "\xe9"}', "line 2 is no answer: .*decode"),
        *(
            (f"{HEADER}\n{json.dumps({**LINE, name: value})}\n".encode(), f"line 2 is no answer: {name}")
            for name, value in (
                ("key", 1),
                ("record", None),
                ("text", ["AF"]),
                ("scores", [None]),
                ("scores", "12"),
                ("picture", 5),
            )
        ),
    ],
)
def test_damaged_lines_are_named(tmp_path, text, message):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(text)
    with pytest.raises(AnswerFileError, match=rf"^{path}, {message}"):
        read_answers(path)
