"""Questions without answers: read up to where an answer would begin, by both models alike, and only where that is wanted."""

import pytest
import torch

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import MissingAnswerError, Turn, chat_messages, read_turns, render_chat
from hf_evl_ecg.chat.encoding import TruncatedImageError
from hf_evl_ecg.chat.examples import example_key, is_answered, prepare_example

HUMAN, GPT = {"from": "human", "value": "Rhythm?"}, {"from": "gpt", "value": "AF"}
OPEN = [
    {"question": "Axis?", "answer": None},
    {"question": "Axis?", "answer": " "},
    {"question": "Axis?"},
    {"conversations": [{"from": "human", "value": "<image>\nAxis?"}]},
    {"conversations": [{"from": "human", "value": "Axis?"}, {"from": "gpt", "value": None}]},
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Axis?"}]},
    {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Axis?"}]}]},
]


@pytest.mark.parametrize("example", OPEN)
def test_a_last_question_may_be_without_answer_where_that_is_wanted(example):
    assert read_turns(example, "r", unanswered="use") == (Turn("Axis?", ""),)
    assert not is_answered(example)
    with pytest.raises(MissingAnswerError, match="'r'"):
        read_turns(example, "r")
    with pytest.raises(MissingAnswerError):
        example_key(example)


def test_only_the_last_question_may_be_without_answer():
    several = {"conversations": [HUMAN, GPT, {"from": "human", "value": "Axis?"}]}
    assert read_turns(several, "r", unanswered="use") == (Turn("Rhythm?", "AF"), Turn("Axis?", ""))
    for bad in ([HUMAN, HUMAN], [HUMAN, {"from": "gpt", "value": ""}, HUMAN, GPT], [GPT], [], [{**HUMAN, "value": ""}]):
        with pytest.raises(MissingAnswerError):
            read_turns({"conversations": bad}, "r", unanswered="use")
        assert is_answered({"conversations": bad}), "what is bad in another way stays, and is named"


def test_an_answer_makes_another_key():
    keys = {
        example_key({"id": "r", "question": "Axis?", "answer": answer}, unanswered="use")
        for answer in (None, "", "normal axis", "None")
    }
    assert len(keys) == 3, "None and an empty text are the same"
    answered = {"id": "r", "question": "Axis?", "answer": "normal axis"}
    assert example_key(answered) == example_key(answered, unanswered="use")


@pytest.mark.parametrize("system", [None, "You read ECGs."])
@pytest.mark.parametrize("name", ["llava_next", "idefics3", "gemma3"])
def test_a_chat_without_answer_is_the_beginning_of_one_with(name, system, tiny_vlm):
    processor = tiny_vlm(name).processor
    for before in ([], [Turn("Rhythm?", "AF")]):
        asked = render_chat(processor, chat_messages([*before, Turn("Axis?", "")], system=system))
        answered = render_chat(processor, chat_messages([*before, Turn("Axis?", "normal axis")], system=system))
        assert answered.text.startswith(asked.text)
        assert len(asked.text) == answered.spans[-1][0]
        assert asked.spans == answered.spans[:-1]
        assert asked.turns[:-1] == answered.turns[:-1]
        assert asked.turns[-1].question == answered.turns[-1].question
        assert asked.turns[-1].answer == (len(asked.text), len(asked.text))
    prompt = processor.apply_chat_template(
        chat_messages([Turn("Axis?", "")], system=system), tokenize=False, add_generation_prompt=True
    )
    alone = render_chat(processor, chat_messages([Turn("Axis?", "")], system=system))
    assert alone.text == prompt, "what a model is given when it is asked"
    assert alone.prompt_end == len(prompt)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_with_and_without_answers(side, tiny_vlm, ecg_examples):
    """Tokens and places are those of the same example with its answer, up to there; nothing is labelled."""
    student, teacher = tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor
    collator = EVLECGCollator(student, teacher, padding_side=side, unanswered="use", on_bad_example="stop")
    asked = {**ecg_examples[1], "answer": None}
    batch = collator([ecg_examples[0], asked, ecg_examples[2]])
    whole = collator([ecg_examples[0], ecg_examples[1], ecg_examples[2]])
    for part, full in ((batch, whole), (batch["teacher"], whole["teacher"])):
        kept = part["attention_mask"][1].bool()
        count = int(kept.sum())
        present = full["attention_mask"][1].bool()
        assert part["input_ids"][1][kept].tolist() == full["input_ids"][1][present][:count].tolist()
        assert part["places"][1][kept].tolist() == full["places"][1][present][:count].tolist()
        assert (full["labels"][1][present][:count] == -100).all()
        assert full["labels"][1][present][count] != -100, "it ends where the answer begins"
        assert (part["labels"][1] == -100).all()
        for row in (0, 2):
            own, other = part["attention_mask"][row].bool(), full["attention_mask"][row].bool()
            assert part["labels"][row][own].tolist() == full["labels"][row][other].tolist()
    assert (batch["groups"]["teacher"][1] == -1).all()
    assert (batch["groups"]["student"][1] == -1).all()
    assert batch["keys"][1] == example_key(asked, unanswered="use") != whole["keys"][1]


def test_a_batch_without_any_answer_has_one_column_of_groups(tiny_vlm, ecg_examples):
    collator = EVLECGCollator(
        tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor, unanswered="use", on_bad_example="stop"
    )
    batch = collator([{**example, "answer": None} for example in ecg_examples[:2]])
    assert batch["groups"]["teacher"].tolist() == batch["groups"]["student"].tolist() == [[-1], [-1]]
    assert (batch["labels"] == -100).all()


def test_a_forgotten_answer_is_a_bad_example_by_default(tiny_vlm, ecg_examples):
    processor = tiny_vlm("idefics3").processor
    forgotten = {**ecg_examples[1], "answer": None}
    batch = EVLECGCollator(processor)([ecg_examples[0], forgotten])
    assert len(batch["keys"]) == 1
    assert "turn 1 has an empty answer" in batch["skipped"][0]
    with pytest.raises(MissingAnswerError, match="'r1'"):
        EVLECGCollator(processor, on_bad_example="stop")([forgotten])
    with pytest.raises(ValueError, match="unanswered='perhaps'"):
        EVLECGCollator(processor, unanswered="perhaps")


def test_a_question_without_answer_is_not_cut(tiny_vlm, ecg_examples):
    processor = tiny_vlm("idefics3").processor
    asked = {**ecg_examples[0], "answer": None}
    length = int(EVLECGCollator(processor, unanswered="use")([asked])["attention_mask"].sum())
    collator = EVLECGCollator(processor, unanswered="use", on_bad_example="stop", max_length=length)
    assert collator([asked])["input_ids"].shape[1] == length
    collator = EVLECGCollator(processor, unanswered="use", on_bad_example="stop", max_length=length - 1)
    with pytest.raises(TruncatedImageError, match=f"max_length={length - 1} would cut 1 tokens of a question"):
        collator([asked])


def test_an_image_token_in_a_question_without_answer_is_refused(tiny_vlm, ecg_examples):
    processor = tiny_vlm("llava_next").processor
    asked = {"id": "r", "question": "Where?", "answer": None}
    image = ecg_examples[0]["image"]
    assert prepare_example(asked, lambda _: image, [processor], None, unanswered="use").turns == (Turn("Where?", ""),)
    gemma = tiny_vlm("gemma3").processor
    with pytest.raises(ValueError, match="contains the image token"):
        prepare_example(
            {**asked, "question": f"{gemma.image_token}?"}, lambda _: image, [gemma], None, unanswered="use"
        )
    assert torch.is_tensor(EVLECGCollator(processor, unanswered="use")([{**asked, "image": image}])["labels"])
