"""Packed answers: every text comes back as it was, and damage is one error with the file's name."""

import json
import lzma

import pytest

from hf_evl_ecg.qa.groups import Answer
from hf_evl_ecg.scores import archive
from hf_evl_ecg.scores.archive import ArchiveError, pack_answers, pack_questions, unpack_answers, unpack_questions

ITEMS = [
    {"source": "s", "record": f"r{i}", "task": "axis", "format": "closed", "answer": "no", "labels": ["LAD"]}
    for i in range(2)
]


@pytest.fixture
def packed(tmp_path):
    pack_questions(tmp_path, ITEMS)
    pack_answers(tmp_path, "m", 0, [Answer(f"r{i}", "no", (-0.5, -1.0)) for i in range(2)])
    return tmp_path


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r", "\n"])
def test_marks_that_python_takes_for_line_ends_stay_in_a_text(tmp_path, mark):
    """json leaves U+2028 and U+0085 in a text as they are, and str.splitlines cut the answer in two there."""
    item = {**ITEMS[0], "answer": f"a{mark}b"}
    pack_questions(tmp_path, [item])
    assert unpack_questions(tmp_path)[0]["answer"] == f"a{mark}b"
    assert pack_answers(tmp_path, "m", None, [Answer("r0", f"c{mark}d", (0.0,))])[0].text == f"c{mark}d"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "it holds nothing"),
        ([3, [[1]], [[1]]], "method of the first line"),
        ([{"method": "m", "unit": 0.01}, [[1]], [[1]]], "seed of the first line"),
        ([{"method": "m", "seed": 0, "unit": float("nan")}, [[1]], [[1]]], "unit=nan"),
        ([{"method": "m", "seed": 0, "unit": 0.01}, [None], [[1]]], "line 2 is no list"),
        ([{"method": "m", "seed": 0, "unit": 0.01}, [[1]], [["x"]]], "line 3 is no list"),
        ([{"method": "m", "seed": 0, "unit": 0.01}, [[1], 5], [[1]]], "line 2 is no list"),
        ([{"method": "m", "seed": 0, "unit": 0.01}, [[10**400]], [[1]]], "line 2 is no list"),
        ([{"method": "m", "seed": 0, "unit": 0.01}, {"0": [1]}, [[1]]], "line 2 is no list"),
        (b'{"a":' * 3000, "line 1: is no json"),
        (b"\xff\xfe\x00", "line 1: is no json"),
    ],
)
def test_damaged_answers_are_refused(packed, lines, message):
    path = packed / "m_0.jsonl.xz"
    text = lines if isinstance(lines, bytes) else "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    path.write_bytes(lzma.compress(text))
    with pytest.raises(ArchiveError, match=rf"^{path}: is damaged \(.*{message}"):
        unpack_answers(packed, "m_0")


@pytest.mark.parametrize("item", [7, {}, {**ITEMS[0], "record": None}, {**ITEMS[0], "labels": "LAD"}])
def test_damaged_questions_are_refused(packed, item):
    path = packed / "questions.jsonl.xz"
    path.write_bytes(lzma.compress("".join(f"{json.dumps(one)}\n" for one in (ITEMS[0], item)).encode()))
    with pytest.raises(
        ArchiveError, match=rf"^{path}: is damaged \(line 2: (record|source|labels) is missing or of another type"
    ):
        unpack_questions(packed)


def test_a_file_that_unpacks_to_more_than_any_study_is_refused(packed, monkeypatch):
    """Of a text that repeats itself xz makes a seven-thousandth."""
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 16)
    path = packed / "m_0.jsonl.xz"
    path.write_bytes(lzma.compress(b"[" + b" " * (1 << 20) + b"]"))
    with pytest.raises(ArchiveError, match=r"holds more than 65536 bytes"):
        unpack_answers(packed, "m_0")
