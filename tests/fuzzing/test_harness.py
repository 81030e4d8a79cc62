"""The harness finds what it is there for, and each damaged file can be had again."""

import gzip
import json
import random
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fuzzing import __main__ as command
from fuzzing import harness
from fuzzing import readers as readers_module
from fuzzing.harness import Reader, damaged, run
from fuzzing.mutations import LINES, STRUCTURE, TENSORS, YAML, bytes_mutated, compressed
from fuzzing.valid import a_file, a_json
from hf_evl_ecg.json_text import read_json

TREE = {"a": [1, 2.5, "x"], "b": {"c": None, "d": True}, "e": '{"inner": [1, 2]}'}


def reader(read, name="probe", **more) -> Reader:
    return Reader(name, a_json("a.json", TREE), read, **more)


def failures(read, tmp_path, count=1, **more) -> list[str]:
    """What the harness says of a reader that reads a valid file and does so-and-so with a damaged one."""
    valid = json.dumps(TREE).encode()
    found = run(reader(lambda path: None if path.read_bytes() == valid else read(path), **more), tmp_path, count, 0)
    return [failure.why for failure in found.failures]


@pytest.mark.parametrize("mutation", [bytes_mutated, STRUCTURE, YAML, LINES])
def test_a_number_always_gives_the_same_file(mutation):
    whole, probe = f"{json.dumps(TREE)}\n".encode(), reader(None, mutation=mutation)
    whole *= 2 if mutation is LINES else 1
    first = [damaged(probe, whole, number, 0) for number in range(100)]
    assert first == [damaged(probe, whole, number, 0) for number in range(100)]
    assert first[7] == damaged(probe, whole, 7, 0), "each can be had without those before it"
    assert len(set(first)) > 60
    assert sum(made != whole for made in first) > 80
    assert first != [damaged(probe, whole, number, 1) for number in range(100)]


def test_structure_is_changed_everywhere():
    """Wrong types, names left out and doubled, numbers without end, nesting, and json within json."""
    made = [STRUCTURE(json.dumps(TREE).encode(), random.Random(seed)) for seed in range(2000)]
    parsed = []
    for data in made:
        try:
            parsed.append(json.loads(data))
        except (ValueError, RecursionError):
            continue
    trees = [tree for tree in parsed if isinstance(tree, dict)]
    assert any("b" not in tree for tree in trees)
    assert any(isinstance(tree.get("b"), dict) and "c" not in tree["b"] for tree in trees)
    assert any(isinstance(tree.get("a"), str) for tree in trees)
    assert any(isinstance(tree.get("e"), str) and "inner" in tree["e"] and tree["e"] != TREE["e"] for tree in trees)
    for part in (b"NaN", b"-Infinity", b"9" * 4400, b"[" * 1000, b'{"a":' * 1000, b'"\\ud800"'):
        assert any(part in data for data in made), part
    assert any(data.count(b'"a":') == 2 for data in made), "no name stands twice"


def test_headers_of_tensors_are_changed_beside_their_length(tmp_path):
    save_file({"v": np.ones((2, 3), np.float32)}, tmp_path / "v", metadata={"about": '{"format": 1}'})
    whole = (tmp_path / "v").read_bytes()
    made = [TENSORS(whole, random.Random(seed)) for seed in range(500)]
    fitting = [
        data for data in made if len(data) > 8 and data[8 : 8 + int.from_bytes(data[:8], "little")].endswith(b"}")
    ]
    assert len(fitting) > 100
    assert any(b"BF16" in data for data in fitting)
    assert any(b"about" in data and b'\\"format\\": 1' not in data for data in fitting)


def test_what_is_packed_is_changed_inside(tmp_path):
    path = a_file("a.gz", "".join(f"{json.dumps(TREE)}\n" for _ in range(3)))(tmp_path)
    inside = 0
    for seed in range(100):
        try:
            inside += gzip.decompress(compressed("gz", LINES)(path.read_bytes(), random.Random(seed))) != b""
        except (OSError, EOFError, ValueError, zlib.error):
            continue
    assert inside > 50


def fail(error):
    def read(path: Path):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path: {}["x"], "builtins.KeyError"),
        (lambda path: json.loads(path.read_bytes() + b"{"), "json.decoder.JSONDecodeError"),
        (lambda path: b"\xff".decode(), "not a plain error: builtins.UnicodeDecodeError"),
        (fail(RecursionError()), "builtins.RecursionError"),
        (fail(MemoryError()), "builtins.MemoryError"),
        (fail(SystemExit(2)), "builtins.SystemExit"),
        (fail(ValueError("a.json: no")), "raised by others"),
        (lambda path: read_json(path.with_name("absent")), "names no file"),
    ],
)
def test_answers_that_are_not_allowed_are_found(tmp_path, monkeypatch, read, said):
    if said == "names no file":  # the folder is named, too
        monkeypatch.setattr(harness, "OURS", (*harness.OURS, ""))
        read = fail(ValueError("something is wrong"))
    (why,) = failures(read, tmp_path)
    assert said in why


def test_answers_that_are_allowed_are_counted(tmp_path):
    found = run(reader(read_json, mutation=STRUCTURE), tmp_path, 50, 0)
    assert not found.failures
    assert found.refused > 10
    assert found.read > 0
    assert found.refused + found.read == 50


def test_slow_and_greedy_readers_are_found(tmp_path, monkeypatch):
    def slow(path):
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass

    monkeypatch.setattr(harness, "SECONDS", 0.1)
    assert "took 0.2" in failures(slow, tmp_path / "a")[0]
    monkeypatch.setattr(harness, "HANGS_S", 0.5)
    assert "still reading after 0.5 s" in failures(lambda path: time.sleep(5), tmp_path / "b")[0]
    monkeypatch.undo()
    assert "took 1" in failures(lambda path: np.ones(100 << 17), tmp_path / "c")[0], "100 MiB"
    assert "MemoryError" in failures(lambda path: np.empty(1 << 40, np.uint8), tmp_path / "d")[0], (
        "taken and not filled"
    )


def test_a_check_of_what_was_read_counts(tmp_path):
    def no(value):
        assert value is None, "half a value"

    assert "half a value" in failures(lambda path: 1, tmp_path, check=no)[0]


@pytest.fixture
def two_readers(monkeypatch):
    bad = Reader("bad", a_json("a.json", TREE), lambda path: json.loads(path.read_bytes()) and None)
    table = {
        "good": reader(read_json, "good"),
        "bad": bad,
        "other": Reader("other", None, None, packages=("no_such_package",)),
    }
    monkeypatch.setattr(readers_module, "readers", lambda: table)


def test_the_command_keeps_numbers_and_files(tmp_path, two_readers, capsys):
    words = ["--count", "30", "--output_dir", str(tmp_path / "out")]
    assert command.main([*words, "--reader", "good"]) == 0
    assert command.main(words) == 1
    said = capsys.readouterr()
    assert "good: " in said.out
    assert "other: left out, no_such_package not installed" in said.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    numbers = [failure["number"] for failure in results["bad"]["failures"]]
    assert results["good"]["failures"] == []
    assert f"FAILED bad, seed 1: {numbers[:20]}" in said.err
    kept = tmp_path / "out" / f"bad-1-{numbers[0]}.bin"
    assert kept.read_bytes() == damaged(readers_module.readers()["bad"], json.dumps(TREE).encode(), numbers[0], 1)
    assert kept.with_suffix(".txt").read_text() == results["bad"]["failures"][0]["why"]


def test_the_command_can_be_interrupted(tmp_path, two_readers, monkeypatch):
    calls = []

    def stop(path):
        calls.append(path)
        if len(calls) > harness.VALID_READ + 5:
            raise KeyboardInterrupt

    readers_module.readers()["good"] = reader(stop, "good")
    assert command.main(["--count", "30", "--output_dir", str(tmp_path)]) == 130
    assert json.loads((tmp_path / "results.json").read_text())["good"]["read"] == 5


def test_the_command_knows_its_readers(two_readers, capsys):
    with pytest.raises(SystemExit):
        command.main(["--reader", "bed"])
    assert "bed: no such reader; there are good, bad, other" in capsys.readouterr().err
