"""Question datasets on disk that are damaged: one error that says what to run, and no end of the process."""

import json

import pytest
from datasets import Dataset

from hf_evl_ecg.data.stored import load_questions, save_questions

ROWS = {"source": ["s", "s"], "record": ["a", "b"], "question": ["Rhythm?", "Axis?"], "answer": ["AF", "normal"]}


@pytest.fixture
def saved(tmp_path):
    save_questions({"test": Dataset.from_dict(ROWS)}, tmp_path, {})
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset_dict.json", b'{"split": ["test"]}'),
        ("dataset_dict.json", b"[" * 3000),
        ("dataset_dict.json", b'{"splits": [{}]}'),
        ("dataset_dict.json", b"\xff"),
        ("test/state.json", b"{}"),
        ("test/state.json", b"7"),
        ("test/dataset_info.json", b'{"features": {"source": "x"}}'),
        ("test/dataset_info.json", b"null"),
    ],
)
def test_damaged_files_say_what_to_do(saved, file, content):
    assert load_questions(saved, "test")["answer"][:] == ROWS["answer"]
    (saved / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^data={saved}: is damaged .*run hf-evl-ecg prepare for it again$"):
        load_questions(saved, "test")
    save_questions({"test": Dataset.from_dict(ROWS)}, saved, {})  # a damaged one can be replaced
    assert load_questions(saved, "test")["answer"][:] == ROWS["answer"]
    assert json.loads((saved / "dataset_dict.json").read_text()) == {"splits": ["test"]}


def test_columns_are_all_there_whatever_the_state_says(saved):
    """`_format_columns` of a dataset's state leaves columns out of its rows, and not out of their list."""
    path = saved / "test" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_format_columns": ["answer"]}))
    assert load_questions(saved, "test")[0] == {name: values[0] for name, values in ROWS.items()}
    save_questions({"test": Dataset.from_dict({"question": ["Rhythm?"]})}, saved, {})
    with pytest.raises(ValueError, match=rf"^data={saved}: has no column record, source"):
        load_questions(saved, "test")


def test_rows_are_checked_before_they_are_used(saved):
    """Offsets of texts that lead beyond the file are followed by Arrow wherever they lead."""
    (path,) = saved.glob("test/*.arrow")
    data = path.read_bytes()
    at = data.index(b"AFnormal")  # the answers; their offsets 0, 2, 8 stand before them
    offsets = data.rindex((0).to_bytes(4, "little") + (2).to_bytes(4, "little") + (8).to_bytes(4, "little"), 0, at)
    path.write_bytes(data[: offsets + 8] + (2**30).to_bytes(4, "little") + data[offsets + 12 :])
    with pytest.raises(ValueError, match="is damaged"):
        load_questions(saved, "test")
