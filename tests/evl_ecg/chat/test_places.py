"""Places of tokens: the bytes they spell stand at their byte of the shared text, however they are cut, padded or truncated."""

import copy

import pytest
import torch

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ChatText, Turn, TurnRanges, chat_messages, read_turns, render_chat
from hf_evl_ecg.chat.places import token_places
from hf_evl_ecg.chat.spelling import token_bytes
from hf_evl_ecg.tokens import IMAGE_TURN, NO_TURN, PADDING_PLACE

CONVERSATION = {
    "id": "c",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is the rhythm, s'il vous plaît?"},
        {"from": "gpt", "value": "atrial fibrillation"},
        {"from": "human", "value": "A"},  # also a letter of ASSISTANT and Assistant
        {"from": "gpt", "value": "left axis → no doubt é\n\nsinus"},
        {"from": "human", "value": "Rate?"},
        {"from": "gpt", "value": "72"},
    ],
}
NAMES = ("idefics3", "llava_next", "gemma3")


@pytest.fixture
def example(ecg_examples):
    return {**CONVERSATION, "image": ecg_examples[0]["image"]}


def spelled(processor, ids):
    """Bytes of each token, special ones without."""
    tokenizer = processor.tokenizer
    special = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    return token_bytes(tokenizer.convert_ids_to_tokens(ids.tolist()), special)


def check_against_spelling(processor, ids, places, turns):
    """Each token spells what stands at its byte; together they spell every question and answer."""
    found = dict.fromkeys(range(len(turns)), b"")
    for piece, (turn, byte) in zip(spelled(processor, ids), places.tolist(), strict=True):
        if turn < 0:
            continue
        question, answer = turns[turn].question.encode(), turns[turn].answer.encode()
        if byte == len(question) or byte == len(question) + 1 + len(answer):
            continue  # marks
        shared = question + b"\0" + answer + b"\0"
        assert shared.startswith(piece.strip(), byte), (piece, turn, byte)
        found[turn] += piece
    for number, turn in enumerate(turns):
        assert b"".join(found[number].split()).decode() == "".join((turn.question + turn.answer).split())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_spell_what_stands_at_their_byte(tiny_vlm, example, ecg_examples, name, side):
    processor = tiny_vlm(name).processor
    batch = EVLECGCollator(processor, padding_side=side)([example, ecg_examples[3]])
    assert batch["places"].shape == (*batch["input_ids"].shape, 2)
    for row, of in enumerate((example, ecg_examples[3])):
        check_against_spelling(processor, batch["input_ids"][row], batch["places"][row], read_turns(of, "c"))
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert batch["places"][padding].eq(PADDING_PLACE).all()
    assert batch["places"][~padding].ne(PADDING_PLACE).all()


def test_every_character_of_several_bytes_is_met_at_its_own_bytes(tiny_vlm, example):
    """The tokenizers spell é and → as bytes; those are told apart although their character range is one."""
    processor = tiny_vlm("llava_next").processor
    batch = EVLECGCollator(processor)([example])
    tokens = processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    spelled_as_bytes = [i for i, token in enumerate(tokens) if token.startswith("<0x") and token != "<0x0A>"]
    assert len(spelled_as_bytes) >= 7, "î, → and é"
    places = batch["places"][0, spelled_as_bytes].tolist()
    assert len(set(map(tuple, places))) == len(spelled_as_bytes)


def test_two_tokenizers_that_cut_words_differently_agree(tiny_vlm, example):
    student, teacher = tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor
    batch = EVLECGCollator(student, teacher)([example])
    own = [tuple(place) for place in batch["places"][0].tolist() if place[0] >= 0]
    other = [tuple(place) for place in batch["teacher"]["places"][0].tolist() if place[0] >= 0]
    assert own != other
    texts = [f"{turn.question}\0{turn.answer}" for turn in read_turns(example, "c")]
    for number, text in enumerate(texts):
        for word in text.replace("\0", " ").split():
            start = len(text[: text.index(word)].encode())
            assert (number, start) in own, word
            assert (number, start) in other, word
    for places in (own, other):
        assert places == sorted(places), "text is read in order"
        for number, text in enumerate(texts):
            marks = len(text.partition("\0")[0].encode())
            assert (number, marks) in places
            assert (number, len(text.encode())) in places


def test_what_belongs_to_no_turn(tiny_vlm, example):
    for name in NAMES:
        processor = tiny_vlm(name).processor
        batch = EVLECGCollator(processor, system_prompt="You read ECGs.")([example])
        ids, turns = batch["input_ids"][0], batch["places"][0, :, 0]
        assert turns.eq(IMAGE_TURN).tolist() == ids.eq(tiny_vlm(name).load().config.image_token_id).tolist()
        assert "YoureadECGs." in processor.tokenizer.decode(ids[turns == NO_TURN]).replace(" ", "")
        assert turns[0] == NO_TURN, "the beginning of the text"
        assert turns.unique().tolist() == [NO_TURN, IMAGE_TURN, 0, 1, 2]


def test_the_state_that_predicts_the_first_letter_stands_before_it(tiny_vlm, example):
    """Its own token is a mark between question and answer, so nothing of the answer starts before it."""
    for name in NAMES:
        batch = EVLECGCollator(tiny_vlm(name).processor)([example])
        labelled = batch["labels"][0] != -100
        first = (labelled[1:] & ~labelled[:-1]).nonzero().flatten()
        turns = read_turns(example, "c")
        assert batch["places"][0, first].tolist() == [[i, len(t.question.encode())] for i, t in enumerate(turns)]


def test_a_cut_and_a_text_without_image_keep_the_places(tiny_vlm, example, ecg_examples):
    student, teacher = tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor
    full = EVLECGCollator(student, teacher)([example])
    length = full["input_ids"].shape[1] - 12
    for side in ("right", "left"):
        cut = EVLECGCollator(student, max_length=length, padding_side=side)([ecg_examples[3], example])
        assert cut["places"].shape[:2] == cut["input_ids"].shape
        assert cut["places"][1, -length:].tolist() == full["places"][0, :length].tolist()
        assert cut["places"][0].eq(PADDING_PLACE).all(1).tolist() == cut["attention_mask"][0].eq(0).tolist()
    bare = EVLECGCollator(student, teacher, teacher_images=False)([example])["teacher"]["places"][0]
    with_image = full["teacher"]["places"][0]
    assert bare[bare[:, 0] >= 0].tolist() == with_image[with_image[:, 0] >= 0].tolist()


def test_a_question_that_a_template_alters_counts_as_marks_before_the_answer(tiny_vlm, example):
    processor = copy.copy(tiny_vlm("idefics3").processor)
    processor.chat_template = processor.chat_template.replace(
        "{{ line['text'] }}", "{{ line['text'] | upper if message['role'] == 'user' else line['text'] }}"
    )
    altered = EVLECGCollator(processor)([example])
    plain = EVLECGCollator(tiny_vlm("idefics3").processor)([example])
    turns = read_turns(example, "c")
    for number in (0, 2):  # "A" is upper case as it is
        length = len(turns[number].question.encode())
        own, expected = (b["places"][0][b["places"][0][:, 0] == number, 1] for b in (altered, plain))
        assert own.min() == length
        assert own[own > length].tolist() == expected[expected > length].tolist()
    own, expected = (b["places"][0][b["places"][0][:, 0] == 1] for b in (altered, plain))
    assert own.tolist() == expected[: len(own)].tolist(), "all but the marks before the next question"
    assert own[-1].tolist() == [1, 1 + 1 + len(turns[1].answer.encode())]


def test_white_space_alone_stays_where_it_is():
    """A state that has read a space only must not stand where the next word does."""
    chat = ChatText("a  bc", ((3, 5),), (TurnRanges((0, 1), (3, 5), 1),))
    whole = torch.tensor([[[0, 1], [1, 5]]])
    pieces = torch.tensor([[[0, 1], [1, 3], [3, 4], [4, 5]]])
    inside = ChatText("a bc d", ((2, 6),), (TurnRanges((0, 1), (2, 6), 1),))
    for chat, offsets, expected in (
        (chat, whole, [[0, 0], [0, 2]]),
        (chat, pieces, [[0, 0], [0, 1], [0, 2], [0, 3]]),
        (inside, torch.tensor([[[0, 2], [2, 4], [4, 5], [5, 6]]]), [[0, 0], [0, 2], [0, 4], [0, 5]]),
    ):
        ones = torch.ones(offsets.shape[:2])
        assert token_places([chat], offsets, ones, ones == 0)[0].tolist() == expected


def test_ranges_are_those_of_the_texts(tiny_vlm):
    turns = (Turn("Why?", "e"), Turn("User", "72 bpm"))
    for name in NAMES:
        chat = render_chat(tiny_vlm(name).processor, chat_messages(turns))
        for turn, ranges in zip(turns, chat.turns, strict=True):
            assert chat.text[slice(*ranges.question)] == turn.question
            assert chat.text[slice(*ranges.answer)] == turn.answer
