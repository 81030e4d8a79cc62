"""Instructions in LLaVA's form, with images or waveforms, read piece by piece."""

import gzip
import json

import pytest
from written_records import write_normal

from hf_evl_ecg.chat.conversations import read_turns
from hf_evl_ecg.data import (
    load_ecg,
    load_instructions,
)
from hf_evl_ecg.data.instructions import iterate_json
from hf_evl_ecg.qa.prompts import without_image_token
from hf_evl_ecg.records.header import ECGRecordError


def conversation(i, image, turns=1):
    said = [("human", f"<image>\nQuestion {i}?"), ("gpt", f"Answer {i}."), ("human", "And?"), ("gpt", "That is all.")]
    return {"id": f"c{i}", "image": image, "conversations": [{"from": a, "value": b} for a, b in said[: 2 * turns]]}


def test_instructions_with_images_and_waveforms(tmp_path):
    root = tmp_path / "data"
    write_normal(root / "ptb-xl" / "00001_hr")
    (root / "ptb-xl" / "00001_hr-0.png").write_bytes(b"png")
    good = "ptb-xl/00001_hr-0.png"
    bad = [conversation(7, "../secret.png"), conversation(8, "gone.png"), {"id": "c9"}, conversation(10, good)]
    bad[3]["conversations"][1]["value"] = " "
    (tmp_path / "c.json").write_text(json.dumps([conversation(1, good), *bad, conversation(2, good, turns=2)]))
    rows, report = load_instructions(tmp_path / "c.json", root)
    assert rows["question"][:] == ["Question 1?", "Question 2?"]
    assert rows["answer"][:] == ["Answer 1.", "Answer 2."]
    assert [turn["value"] for turn in rows[1]["conversations"]] == ["Question 2?", "Answer 2.", "And?", "That is all."]
    assert [turn["from"] for turn in rows[1]["conversations"]] == ["human", "gpt"] * 2
    assert (rows[0]["image"], rows[0]["record"]) == (good, None)
    assert [name for name, _ in report.skipped] == ["c7", "c8", "c9", "c10"]
    drawn, report = load_instructions(tmp_path / "c.json", root, draw=True, split="test")
    assert (drawn[0]["image"], drawn[0]["record"], drawn[0]["split"]) == (None, "ptb-xl/00001_hr", "test")
    assert load_ecg(drawn[0]).duration_s == 5.0
    with pytest.raises(ECGRecordError, match="a path inside"):
        load_instructions(tmp_path / "c.json", root, on_bad="raise")
    stream, report = load_instructions(tmp_path / "c.json", root, streaming=True)
    assert [row["question"] for row in stream] == rows["question"][:]
    assert (report.n_rows, len(report.skipped)) == (2, 4)


def test_json_is_read_piece_by_piece(tmp_path, monkeypatch):
    items = [conversation(i, "ä" * (i % 50)) for i in range(200)]
    for chunk in (1, 7, 1000, 1 << 20):
        monkeypatch.setattr("hf_evl_ecg.data.instructions.CHUNK", chunk)
        (tmp_path / "list.json").write_text(json.dumps(items, indent=1, ensure_ascii=False))
        (tmp_path / "lines.json").write_text("\n".join(json.dumps(item) for item in items) + "\n")
        count = 20 if chunk < 100 else 200
        for name in ("list.json", "lines.json"):
            read = iterate_json(tmp_path / name)
            assert [item for item, _ in zip(read, range(count), strict=False)] == items[:count]
    (tmp_path / "one.json").write_text("[]")
    assert list(iterate_json(tmp_path / "one.json")) == []
    for text in (json.dumps(items)[:-1], json.dumps(items)[:-40], "[1, }", "nonsense", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            list(iterate_json(tmp_path / "bad.json"))


def test_json_of_every_unicode_encoding_is_read(tmp_path):
    items = [conversation(1, "ä.png"), conversation(2, "b.png")]
    text = json.dumps(items, ensure_ascii=False)
    lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        for written in (text, lines):
            (tmp_path / "c.json").write_bytes(written.encode(encoding))
            assert list(iterate_json(tmp_path / "c.json")) == items, encoding
    for odd, match in ((text.encode("latin-1"), "is not the text in utf-8"), (gzip.compress(b"[]"), "compressed")):
        (tmp_path / "c.json").write_bytes(odd)
        with pytest.raises(ValueError, match=match):
            list(iterate_json(tmp_path / "c.json"))


def test_conversations_of_other_tools_say_the_same(tmp_path):
    """One image in a list, user and assistant, role and content, parts, a system prompt."""
    (tmp_path / "a.png").write_bytes(b"png")
    parts = [{"type": "image"}, {"type": "text", "text": "Which rhythm?"}]
    said = [("user", "<image>\nWhich rhythm?"), ("assistant", "Sinus rhythm.")]
    roles = [{"role": role, "content": text} for role, text in said]
    same = [
        {"image": "a.png", "conversations": [{"from": role, "value": text} for role, text in said]},
        {"image": ["a.png"], "conversations": roles},
        {"images": ["a.png"], "messages": [{"role": "system", "content": "You are."}, *roles]},
        {"images": [{"path": "a.png"}], "messages": [{"role": "User", "content": parts}, roles[1]]},
    ]
    bad = [
        {"image": ["a.png", "b.png"], "conversations": roles},
        {"image": [], "conversations": roles},
        {"image": "a.png", "conversations": roles[::-1]},
        {"image": "a.png", "conversations": [{"role": "user", "content": [{"type": "image"}]}, roles[1]]},
    ]
    (tmp_path / "c.json").write_text(json.dumps([*same, *bad]))
    rows, report = load_instructions(tmp_path / "c.json", tmp_path)
    assert rows["image"][:] == ["a.png"] * 4
    said = [{"from": "human", "value": "Which rhythm?"}, {"from": "gpt", "value": "Sinus rhythm."}]
    assert rows["conversations"][:] == [said] * 4
    reasons = [reason for _, reason in report.skipped]
    assert len(reasons) == 4
    for reason, part in zip(reasons, ["a list of 2", "a list of 0", "in turns", "without text"], strict=True):
        assert part in reason


MARKED = {
    "<image>\nWhich rhythm?": "Which rhythm?",
    "Which rhythm? <image>": "Which rhythm?",
    "Which\n<image>\nrhythm?": "Which\nrhythm?",
    "Look at <image> and say": "Look at the image and say",
    "What is seen in <image>?": "What is seen in the image?",
    "This <image> shows what?": "This image shows what?",
    "The ECG <image> shows what?": "The ECG shows what?",
    "<image> <image> Compare  them.": "Compare  them.",
    "ECG: <image> shows what?": "ECG: shows what?",
    "<image>": "",
}


def test_a_sentence_around_the_image_mark_stays_one():
    for text, expected in MARKED.items():
        assert without_image_token(text) == expected
        if expected:
            turns = read_turns({"question": text, "answer": "x"}, "r")
            assert turns[0].question == expected


def test_half_a_surrogate_pair_is_a_bad_record(tmp_path):
    """json spells it, and Arrow has no place for it: one such record ended the reading of all."""
    good, bad = conversation(1, "a.png"), conversation(2, "a.png")
    bad["conversations"][1]["value"] = "a heart \ud83e"
    (tmp_path / "c.json").write_text(json.dumps([good, bad, {**good, "id": "\ud800"}]))
    rows, report = load_instructions(tmp_path / "c.json", tmp_path, check=False)
    assert rows["id"][:] == ["c1"]
    assert [text.partition(": ")[2] for _, text in report.skipped] == [
        "text is 'half of a surrogate pair (an emoji that was cut in two)'; allowed: whole characters"
    ] * 2
