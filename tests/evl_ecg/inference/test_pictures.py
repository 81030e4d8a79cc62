"""Questions that share a picture: read once, with the answers of a picture read for each of them."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from hf_evl_ecg.chat.batches import prompt_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ExampleError, Turn, chat_messages, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.chat.examples import example_key
from hf_evl_ecg.inference.after_image import (
    ImageQuestion,
    WordsAfterImage,
    question_follows_image,
    scores_after_images,
    tokens_after_image,
)
from hf_evl_ecg.inference.digests import picture_digest
from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.inference.generation import generate_answers
from hf_evl_ecg.inference.likelihood import answer_token_ids, label_likelihoods
from hf_evl_ecg.inference.pictures import OncePerPicture, PictureCollator, gather_by_picture, picture_key
from hf_evl_ecg.inference.reading import option_scores, read_on, read_prompt
from hf_evl_ecg.qa.grading import candidate_answers
from hf_evl_ecg.qa.items import closed_question, fill_question, measurement_question, open_question

WITH_PROCESSOR = ["llava_next", "idefics3", "gemma3"]
SIZES = {"r1": (40, 56), "r2": (56, 40), "r3": (24, 64)}  # so that prompts of one batch differ in length
QUESTION_FIRST = (
    "{% for m in messages %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>' }}{% endfor %}<end_of_utterance>\n{% endfor %}"
)


def draw(item):
    if item["record"].startswith("bad"):
        raise OSError("damaged")
    height, width = SIZES[item["record"]]
    pixels = np.random.default_rng(sum(map(ord, item["record"]))).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def items():
    """Eleven questions about three pictures, with 0, 2 and many candidate answers, in mixed order."""
    rng = random.Random(0)
    made = []
    for record in SIZES:
        made += [closed_question(record, "rhythm", label, True, rng) for label in ("AF", "SR")]
        made.append(fill_question(record, "axis", ["LAD"], rng))
    made.append(measurement_question("r2", "heart_rate", 70.0, "fill", rng))
    made.append(open_question("r3", "diagnosis", ["LBBB"], rng))
    rng.shuffle(made)
    return [{**item, "source": "made"} for item in made]


def alone(model, processor, item, system=None):
    """Likelihoods by one forward pass per candidate over its own picture and question."""
    batch = EVLECGCollator(processor, load_image=draw, system_prompt=system)([item])
    ids = answer_token_ids(processor, candidate_answers(item), system=system)
    return label_likelihoods(model, batch, ids, processor.tokenizer.pad_token_id)[0].tolist()


@pytest.mark.parametrize("system", [None, "You read ECGs."])
@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_likelihoods_are_those_of_each_question_alone(name, system, tiny_vlm, items):
    tiny = tiny_vlm(name)
    model = tiny.load()
    drawn = []

    def counting(item):
        drawn.append(item["record"])
        return draw(item)

    done = answer_items(
        model, tiny.processor, items, load_image=counting, generate=False, batch_size=2, system_prompt=system,
        progress_bar=False,
    )  # fmt: skip
    assert sorted(drawn) == ["r1", "r2", "r3"]
    assert done.items == items
    spread = []
    for item, answer in zip(done.items, done.answers, strict=True):
        assert answer.text is None
        if candidate_answers(item):
            assert answer.scores == pytest.approx(alone(model, tiny.processor, item, system), abs=1e-4)
            spread += answer.scores
        else:
            assert answer.scores == ()
    assert np.std(spread) > 0.1
    assert len({answer.scores[0] for item, answer in zip(done.items, done.answers, strict=True) if answer.scores}) == 9


def test_the_vision_tower_sees_each_picture_once(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    model = tiny.load()
    options = {"load_image": draw, "generate": False, "progress_bar": False}
    read = []
    model.get_encoder(modality="image").register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    answer_items(model, tiny.processor, [next(i for i in items if i["record"] == r) for r in SIZES], **options)
    once = sum(read)
    read.clear()
    answer_items(model, tiny.processor, items, **options)
    assert sum(read) == once > 0


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_either_side_changes_nothing(side, tiny_vlm, items):
    tiny = tiny_vlm("llava_next")
    model, processor = tiny.load(), tiny.processor
    pictures = [next(i for i in items if i["record"] == record) for record in SIZES]
    batch = EVLECGCollator(processor, load_image=draw, padding_side=side)(pictures)
    assert len(set(batch["attention_mask"].sum(1).tolist())) > 1, "samples must differ in length"
    words = WordsAfterImage(processor)
    asked = [item for item in items if candidate_answers(item)]
    questions = [
        ImageQuestion(
            list(SIZES).index(item["record"]),
            words([Turn(item["question"], item["answer"])]),
            answer_token_ids(processor, candidate_answers(item)),
        )
        for item in asked
    ]
    expected = [alone(model, processor, item) for item in asked]
    for rows in (1, 4, 100):
        found = scores_after_images(model, batch, questions, 3, rows)
        for scores, own in zip(found, expected, strict=True):
            assert scores == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_words_after_an_image_are_those_of_the_whole_chat(name, tiny_vlm):
    processor = tiny_vlm(name).processor
    words = WordsAfterImage(processor, "You read ECGs.")
    for question, answer in (("What is the rhythm?", "sinus rhythm"), ("  72 µV?\n\nΔ", "yes"), ("yes", "- 5")):
        turns = [Turn(question.strip(), answer)]
        chat = render_chat(processor, chat_messages(turns, system="You read ECGs."))
        encoded = encode_chats(processor, [chat], [draw({"record": "r2"})], records=["r2"])
        whole = tokens_after_image(encoded["input_ids"][0], encoded["labels"][0], processor)
        assert words(turns) == whole
        assert len(whole) > 2


def test_a_template_with_the_question_first_asks_each_question_with_its_picture(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    processor = type(tiny.processor).from_pretrained(tiny.path)
    assert question_follows_image(processor, "You read ECGs.")
    processor.chat_template = QUESTION_FIRST
    assert not question_follows_image(processor)
    model = tiny.load()
    done = answer_items(model, processor, items, load_image=draw, generate=False, batch_size=3, progress_bar=False)
    for item, answer in zip(done.items, done.answers, strict=True):
        if answer.scores:
            assert answer.scores == pytest.approx(alone(model, processor, item), abs=1e-4)


def test_texts_are_the_same_and_likelihoods_still_share_a_picture(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    model, processor = tiny.load(), tiny.processor
    done = answer_items(model, processor, items, load_image=draw, batch_size=4, max_new_tokens=4, progress_bar=False)
    for item, answer in zip(done.items, done.answers, strict=True):
        batch = EVLECGCollator(processor, load_image=draw)([item])
        assert answer.text == generate_answers(model, batch, processor.tokenizer, max_new_tokens=4)[0]
        if answer.scores:
            assert answer.scores == pytest.approx(alone(model, processor, item), abs=1e-4)


def test_bad_examples_are_left_out_one_by_one(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    model, processor = tiny.load(), tiny.processor
    bad = [{**item, "record": "bad"} for item in items[:3]]
    tag = {**items[0], "question": "Is <fake_token_around_image><image> there?"}  # <image> alone is LLaVA's tag
    token = {**items[1], "question": "Why?", "answer": "yes"}
    asked = [bad[0], items[0], tag, bad[1], *items[1:], bad[2], token]
    options = {"load_image": draw, "generate": False, "batch_size": 2, "progress_bar": False}
    done = answer_items(model, processor, asked, **options)
    assert [i["question"] for i in done.items] == [i["question"] for i in (items[0], tag, *items[1:], token)]
    assert sum("'made:bad'" in line for line in done.skipped) >= 1
    reference = answer_items(model, processor, items, **options)
    kept = {json.dumps(i, default=str): a.scores for i, a in zip(done.items, done.answers, strict=True)}
    for item, answer in zip(reference.items, reference.answers, strict=True):
        assert kept[json.dumps(item, default=str)] == pytest.approx(answer.scores, abs=1e-5)
    with pytest.raises(ExampleError, match="bad"):
        answer_items(model, processor, asked, on_bad_example="stop", **options)


def test_questions_too_long_for_the_limit_are_left_out_as_they_are_alone(tiny_vlm, items):
    tiny = tiny_vlm("idefics3")
    model, processor = tiny.load(), tiny.processor
    lengths = {}
    for item in items:
        batch = EVLECGCollator(processor, load_image=draw)([item])
        answer = int((batch["labels"] != -100).nonzero()[0, 1])
        lengths[item["record"], item["question"]] = answer
    limit = sorted(lengths.values())[len(lengths) // 2]
    done = answer_items(
        model, processor, items, load_image=draw, generate=False, max_length=limit, batch_size=2, progress_bar=False
    )
    fits = [item for item in items if lengths[item["record"], item["question"]] < limit]
    assert done.items == fits
    assert 0 < len(fits) < len(items)
    assert all("leaves nothing of the answer" in line for line in done.skipped)


def test_what_shares_a_picture():
    item = {"record": "r1", "source": "a", "root": "/x", "question": "q", "answer": "yes", "task": "rhythm"}
    assert picture_key(item) == picture_key({**item, "question": "other", "answer": "no", "task": "axis", "value": 3.0})
    for field in ("record", "source", "root"):
        assert picture_key(item) != picture_key({**item, field: "z"})
    image, other = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))
    assert picture_key({**item, "image": image}) == picture_key({**item, "question": "o", "image": image})
    assert picture_key({**item, "image": image}) != picture_key({**item, "image": other})
    groups = gather_by_picture([item, {**item, "record": "r2"}, {**item, "question": "p"}])
    assert [[i["question"] for i in group] for group in groups] == [["q", "p"], ["q"]]


def test_an_image_is_kept_no_longer_than_said():
    loads = []
    load = OncePerPicture(lambda item: loads.append(item["record"]) or Image.new("RGB", (4, 4)), keep=2)
    for record in ("a", "b", "a", "b", "c", "b", "a"):
        load({"record": record})
    assert loads == ["a", "b", "c", "a"]


def test_what_a_processor_puts_behind_the_image_decides(tiny_vlm, items, monkeypatch):
    """Where a picture's own prompt goes on otherwise than expected, its questions are asked alone."""
    tiny = tiny_vlm("idefics3")
    images = OncePerPicture(draw, keep=3)
    collator = EVLECGCollator(tiny.processor, load_image=images)
    groups = gather_by_picture(items)
    batch = PictureCollator(collator, images, share=True, alone=False, batch_size=4)(groups)
    assert batch.digests == {example_key(item): picture_digest(draw(item)) for item in items}
    assert len(batch.words) == batch.asked == len(items)
    assert not batch.questions
    monkeypatch.setattr(WordsAfterImage, "__call__", lambda self, turns: [1, 2, 3])
    batch = PictureCollator(collator, images, share=True, alone=False, batch_size=4)(groups)
    assert batch.pictures is None
    assert [len(part["keys"]) for part in batch.questions] == [4, 4, 3]


def test_a_reading_that_goes_on_in_one_way_still_goes_on_in_another(tiny_vlm, hand_made_inputs):
    model = tiny_vlm("qwen2_vl").load()
    inputs, labels = hand_made_inputs("qwen2_vl", model)
    with torch.no_grad():
        reading = read_prompt(model, prompt_inputs({**inputs, "labels": labels}, 1))
        options = [[[70, 71], [72]], [[73, 74, 75]]]
        first = option_scores(model, reading, options, rows=2)
        read_on(model, reading.rows(torch.tensor([1, 1, 0])), torch.tensor([[80, 81], [82, 83], [84, 85]]))
        assert option_scores(model, reading, options, rows=2) == first
        whole = read_on(model, reading.rows(torch.tensor([0])), torch.tensor([[70]]))
    expected = first[0][0] - reading.logits[0, 0].log_softmax(-1)[70].item()
    assert whole.logits[0, 0].log_softmax(-1)[71].item() == pytest.approx(expected, abs=1e-5)
