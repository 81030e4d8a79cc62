"""benchmarks/: the README is that of the results, every script says what it takes, the quick ones run, and the ruler is straight."""

import ast
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import doc_pages
import measuring
import reporting

BENCHMARKS = doc_pages.ROOT / "benchmarks"
SCRIPTS = [path.name for path in reporting.scripts()]
TINY = {  # those that take less than three seconds, and how
    "ecg_loss_flops.py": "--teacher_tokens 9 --student_tokens 9 --teacher_visual 6 --student_visual 4 --teacher_dim 16 --student_dim 8 "
    "--answer_tokens 3 --vocabulary 20",
    "ecg_losses.py": "--shapes 2x9x16 --rounds 1",
    "ecg_records.py": "--records 1 --rounds 1",
    "ecg_render.py": "--layouts 3x4 --records 1 --rounds 1 --width 440 --height 340",
    "ecg_sinkhorn.py": "--shapes 2x9x6 --rounds 1 --errors 0.1",
    "ecg_uld.py": "--shapes 2x6x30x40 --rounds 1",
    "mic_codes.py": "--rows 600 --queries 1 --bytes 8 --rounds 1",
    "mic_rotation.py": "--widths 32 --rows 64 --rounds 1 --seeds 1",
    "mic_search.py": "--rows 1500 --bytes 8 --steps 1 --rounds 1",
}
SCRIPT = '"""One against two.\n\nMore of it.\n"""\n'
COLUMNS = {"way": "", "ms": ".1f", "ratio": ".2f"}


@pytest.fixture
def script(tmp_path) -> Path:
    """A benchmark in a folder of its own, outside of any checkout."""
    path = tmp_path / "benchmarks" / "one_two.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


@pytest.fixture(autouse=True)
def threads():
    """Scripts set the number of threads for their process, here for all tests that follow."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_page_is_that_of_the_results():
    made = (BENCHMARKS / "README.md").read_text("utf-8")
    assert made == reporting.page(), "run python benchmarks/reporting.py"


def test_every_result_has_its_script_and_columns():
    for path in (BENCHMARKS / "results").glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert f"{result['benchmark']}.py" in SCRIPTS, path.name
        assert result["rows"], path.name
        assert all(list(row) == list(result["columns"]) for row in result["rows"]), path.name


@pytest.mark.parametrize("name", [*SCRIPTS, "reporting.py"])
def test_help_names_the_options_of_the_commands_in_it(name):
    known = doc_pages.known_options((f"benchmarks/{name}",))
    assert name == "reporting.py" or "--output" in known
    about = ast.get_docstring(ast.parse((BENCHMARKS / name).read_text("utf-8")))
    code = "\n".join(line for line in about.splitlines() if line.startswith("    "))
    calls = [doc_pages.as_call(words) for words in doc_pages.commands(code)]
    assert calls
    for call in calls:
        assert call.program == (f"benchmarks/{name}",)
        assert set(doc_pages.option_names(call.arguments)) <= known


@pytest.mark.parametrize("name", TINY)
def test_tiny_run(name, tmp_path, capsys):
    output = tmp_path / "made.json"
    doc_pages.run_program((f"benchmarks/{name}",), [*TINY[name].split(), "--output", str(output)])
    result = json.loads(output.read_text("utf-8"))
    assert result["benchmark"] == Path(name).stem
    assert result["command"].endswith("--output benchmarks/results/made.json")
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith("|")]) == len(result["rows"]) + 2
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    shutil.copy(output, folder / "results")
    assert printed[printed.index("| ") :].strip() in reporting.page(folder)


def test_peers_at_equal_value_give_the_same_value(tmp_path):
    for name, off in (("ecg_uld.py", "loss difference"), ("ecg_losses.py", "value difference")):
        doc_pages.run_program((f"benchmarks/{name}",), [*TINY[name].split(), "--output", str(tmp_path / "made.json")])
        for row in json.loads((tmp_path / "made.json").read_text("utf-8"))["rows"]:
            start = 100 if row.get("loss") == "transport" else 1  # Sinkhorn's iterations start elsewhere than ours
            assert row[off] < 1e-5 * start, row
            assert row["gradient difference"] < 1e-4 * start, row


def test_rows_are_printed_and_written_as_they_come(script, tmp_path, capsys, monkeypatch):
    output = tmp_path / "new" / "one_two.json"
    monkeypatch.setattr(sys, "argv", ["one_two.py", "--size", "2 x", "--output", str(output)])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    table = reporting.Table(str(script), output, COLUMNS, ("numpy", "no-such-library"))
    table.add("ours", np.float32(1.25), 1.0)
    first = json.loads(output.read_text("utf-8"))
    table.add("theirs", float("nan"), float("inf"))
    assert capsys.readouterr().out == (
        "| way | ms | ratio |\n| --- | --: | --: |\n| ours | 1.2 | 1.00 |\n| theirs | – | – |\n"
    )
    assert first["rows"] == [{"way": "ours", "ms": 1.25, "ratio": 1.0}]
    result = json.loads(output.read_text("utf-8"))
    assert result["rows"] == [*first["rows"], {"way": "theirs", "ms": None, "ratio": None}]
    assert list(result) == ["benchmark", "what", "command", "machine", "commit", "columns", "rows"]
    assert (result["benchmark"], result["what"], result["columns"]) == ("one_two", "One against two.", COLUMNS)
    command = "OMP_NUM_THREADS=3 python benchmarks/one_two.py --size '2 x' --output benchmarks/results/one_two.json"
    assert result["command"] == command
    assert result["machine"]["libraries"] == {"numpy": np.__version__, "no-such-library": None}
    assert result["commit"] is None
    assert [path.name for path in output.parent.iterdir()] == ["one_two.json"]  # nothing half written is left


def test_a_row_has_a_cell_for_each_column(script):
    table = reporting.Table(str(script), None, COLUMNS)
    with pytest.raises(ValueError, match="shorter"):
        table.add("ours", 1.0)
    assert table.rows == []


def test_rows_of_the_same_machine_are_taken_over(script, tmp_path, monkeypatch):
    output = tmp_path / "one_two.json"
    reporting.Table(str(script), output, COLUMNS, resume=True).add("ours", 1.0, 1.0)
    assert reporting.Table(str(script), output, COLUMNS).rows == []
    table = reporting.Table(str(script), output, COLUMNS, resume=True)
    table.add("theirs", 2.0, 2.0)
    assert [row["way"] for row in json.loads(output.read_text("utf-8"))["rows"]] == ["ours", "theirs"]
    monkeypatch.setattr(reporting, "machine", lambda libraries: {"cpu": "another"})
    with pytest.raises(ValueError, match="another --output"):
        reporting.Table(str(script), output, COLUMNS, resume=True)


def test_page_of_hand_made_results(script):
    about = {"cpu": "A CPU", "cores": 2, "flags": ["avx2"], "threads": 1, "gpu": None, "python": "3.11.7"}
    result = {
        "benchmark": "one_two",
        "what": "One against two.",
        "command": "python benchmarks/one_two.py",
        "machine": about | {"libraries": {"numpy": "2.0", "geomloss": None}},
        "commit": "abc1234",
        "columns": COLUMNS,
        "rows": [{"way": "ours", "ms": 1.26, "ratio": 1.0}, {"way": "theirs", "ms": None, "ratio": None}],
    }
    (script.parent / "later.py").write_text('"""Not measured."""\n')
    (script.parent / "measuring.py").write_text('"""No benchmark."""\n')
    (script.parent / "results").mkdir()
    (script.parent / "results" / "one_two.json").write_text(json.dumps(result))
    head, one, missing = re.split(r"^## ", reporting.page(script.parent), flags=re.MULTILINE)
    assert head == reporting.HEAD + "\n"
    assert one == (
        "one_two\n\nOne against two.\n\n    python benchmarks/one_two.py\n\n"
        "A CPU, 2 cores, 1 thread, avx2, Python 3.11.7, numpy 2.0, commit abc1234\n\n"
        "| way | ms | ratio |\n| --- | --: | --: |\n| ours | 1.3 | 1.00 |\n| theirs | – | – |\n\n"
    )
    assert missing == "Without a result yet\n\n- `later.py`: Not measured.\n"


def test_commit_is_short_and_says_what_differs(script):
    root = script.parent.parent
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    commit = reporting._commit(script)
    assert re.fullmatch(r"[0-9a-f]{7,}", commit)
    (root / "benchmarks" / "results").mkdir()
    (root / "benchmarks" / "results" / "a.json").write_text("{}")
    assert reporting._commit(script) == commit
    script.write_text(SCRIPT + "print()\n")
    assert reporting._commit(script) == f"{commit}-dirty"
    inner = root / "inner" / "benchmarks"
    inner.mkdir(parents=True)
    assert reporting._commit(inner / "one_two.py") is None  # a folder within another checkout


def test_machine_names_no_host():
    found = reporting.machine(["torch"])
    assert list(found) == ["cpu", "cores", "flags", "threads", "gpu", "python", "libraries"]
    assert (found["threads"], found["libraries"]) == (torch.get_num_threads(), {"torch": torch.__version__})


def test_ways_take_turns_and_the_first_round_does_not_count():
    order = []
    taken = measuring.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert {name: len(times) for name, times in taken.items()} == {"a": 2, "b": 2}
    assert measuring.take_turns({"a": lambda: order.append("c")}, 1, warm_up=False)["a"][0] >= 0
    assert order[6:] == ["c"]


def test_ratio_is_the_median_over_rounds():
    assert measuring.median_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_peak_of_tensors_is_what_is_held_at_once():
    def step():
        first = torch.zeros(2**18)
        second = first + 1
        del first
        return second[: 2**17] + 1

    assert measuring.peak_tensor_bytes(step) == pytest.approx(2 * 4 * 2**18, abs=64)  # and the number that is added


def test_peak_of_a_process_leaves_mapped_files_out(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones(2**23, np.float32))

    def read(mode):
        rows = np.load(tmp_path / "rows.npy", mmap_mode=mode)
        rows.sum()
        time.sleep(0.1)  # so that the other thread has its look

    mapped, held = (measuring.peak_anonymous_bytes(lambda mode=mode: read(mode)) for mode in ("r", None))
    assert mapped < 2**23 < 2**24 < held
