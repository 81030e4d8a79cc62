"""Bytes of tokens, and which answer tokens of two tokenizers cover the same ones."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_evl_ecg.chat.spelling import token_bytes
from hf_evl_ecg.chat.token_groups import align_tokens, align_turns

TEXTS = [
    "Sinus rhythm, rate 72/min. Normal ECG.",
    "Atrial fibrillation with a rapid ventricular response.",
    "Left bundle branch block; PR 160 ms, QRS 142 ms.",
    "Höhergradiger AV-Block – Zustand nach Schrittmacher, 50 µV.",
    "窦性心律 ♥",
]


def byte_level_tokenizer(vocab_size=300):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS[:3], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def sentencepiece_tokenizer(vocab_size=360):
    """Llama's scheme: a space becomes ▁, one is put before the text, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS[:3], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def tokenizers():
    return sentencepiece_tokenizer(), byte_level_tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_token_bytes_give_the_text_back(tokenizers, text):
    for tokenizer in tokenizers:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
        assert b"".join(token_bytes(tokens)).decode().removeprefix(" ") == text


@pytest.mark.parametrize("text", TEXTS)
def test_groups_cover_the_same_bytes_and_cannot_be_finer(tokenizers, text):
    ids = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for tokenizer in tokenizers]
    pieces = [
        token_bytes(tokenizer.convert_ids_to_tokens(row), {tokenizer.eos_token})
        for tokenizer, row in zip(tokenizers, ids, strict=True)
    ]
    groups = align_tokens(*pieces)
    assert set(groups[0]) - {-1} == set(groups[1]) - {-1} == set(range(max(groups[0]) + 1))
    texts = []
    for group in range(max(groups[0]) + 1):
        t, s = (
            b"".join(piece for piece, g in zip(row, side, strict=True) if g == group)
            for row, side in zip(pieces, groups, strict=True)
        )
        assert t.lstrip() == s.lstrip() if group == 0 else t == s
        texts.append(s)
        cuts = [set(), set()]
        for side, row in enumerate(pieces):
            inside = [piece for piece, g in zip(row, groups[side], strict=True) if g == group]
            inside[0] = inside[0].lstrip() if group == 0 else inside[0]
            cuts[side] = {len(b"".join(inside[:k])) for k in range(1, len(inside))}
        assert not cuts[0] & cuts[1]
    assert b"".join(texts).decode() == text
    assert groups[0][-1] == groups[1][-1] == max(groups[0])  # the end tokens


def test_alignment_cases_by_hand():
    assert align_tokens([b"ab", b"cd"], [b"a", b"bc", b"d"]) == ([0, 0], [0, 0, 0])
    assert align_tokens([b"a", b"b"], [b"a", b"b"]) == ([0, 1], [0, 1])
    assert align_tokens([b" ", b"a", b" b"], [b"a", b" ", b"b"]) == ([-1, 0, 1], [0, 1, 1])
    assert align_tokens([b"no", b" ST", b""], [b"no", b" AF", b""]) == ([0, -1, -1], [0, -1, -1])
    assert align_tokens([b"a", b"", b"\n"], [b"a", b""]) == ([0, 1, -1], [0, 1])
    assert align_tokens([], [b"a"]) == ([], [-1])


def test_turns_are_aligned_one_by_one():
    teacher = [[b"yes", b""], [b" n", b"o", b""], [b"72"]]
    student = [[b" yes", b""], [b"no", b""]]
    assert align_turns(teacher, student) == ([0, 1, 2, 2, 3, -1], [0, 1, 2, 3])
    assert align_turns([[b"x"], [b"a", b""]], [[b"y"], [b"a", b""]]) == ([-1, 0, 1], [-1, 0, 1])
    assert align_turns([], [[b"a"]]) == ([], [-1])
    assert align_turns([[b"a", b""]], [[b"a", b""]]) == align_tokens([b"a", b""], [b"a", b""])


def test_token_bytes_cases_by_hand():
    assert token_bytes(["Ġ50", "ĠÂµ", "V"]) == [b" 50", " µ".encode(), b"V"]
    assert token_bytes(["caf", "é"]) == [b"caf", "é".encode()]  # no byte-level spelling: é alone is no UTF-8
    assert token_bytes(["▁ST", "<0xE2>", "<0x99>", "<0xA5>"]) == [b" ST", b"\xe2", b"\x99", b"\xa5"]
    assert token_bytes(["<0x0A>"], special_tokens={"<0x0A>"}) == [b""]
