"""The results json: whole, checked, and of a machine without names."""

import json
import os
import socket
import subprocess

import pytest
import torch

from hf_mic import results
from hf_mic.results import read_results, summarize_machine, write_results


def row(method, dim, value, *, seed=None, task="stsb", metric="spearman", precision="float32", size=None, n=1379):
    return {
        "method": method,
        "seed": seed,
        "task": task,
        "dim": dim,
        "precision": precision,
        "bytes_per_vector": 4 * dim if size is None else size,
        "metric": metric,
        "value": value,
        "n": n,
        "ci_low": None,
        "ci_high": None,
    }


@pytest.fixture
def rows():
    return [
        row("mrl", 16, 0.70, seed=0),
        row("mrl", 16, 0.72, seed=1),
        row("mrl", 64, 0.80, seed=0),
        row("mrl", 64, 0.80, seed=1),
        row("mic", 16, 0.75, seed=0),
        row("mic", 16, 0.77, seed=1),
        row("truncation", 64, 0.7921),
        row("truncation", 16, 0.61594, precision="binary", size=2),
        row("truncation", 16, 0.3, task="scifact", metric="recall@10", n=300),
    ]


def test_results_round_trip(tmp_path, rows, repo_root):
    path = tmp_path / "folder" / "mic_test.json"
    written = write_results(path, "mic_test", {"dims": (16, 64), "data_dir": tmp_path}, rows)
    read = read_results(path)
    assert list(read) == ["study", "config", "commit", "machine", "rows"]
    assert read["rows"] == rows == written["rows"]
    assert read["config"] == {"dims": [16, 64], "data_dir": str(tmp_path)}
    assert os.listdir(path.parent) == ["mic_test.json"]
    head = subprocess.run(["git", "-C", repo_root, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert read["commit"] == (head.stdout.strip() if head.returncode == 0 else None)


def test_commit_is_null_outside_a_checkout(tmp_path, monkeypatch):
    (tmp_path / "hf_mic").mkdir()
    monkeypatch.setattr(results, "__file__", str(tmp_path / "hf_mic" / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results._git_commit() is None
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # a repository without a commit
    assert results._git_commit() is None


def test_machine_says_what_matters_and_not_whose_it_is(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    machine = summarize_machine()
    assert machine["torch"] == "2.13.0+cu130"
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu"]
    assert socket.gethostname() not in json.dumps(machine).split('"')


def test_bad_rows_are_refused_and_leave_the_old_file(tmp_path, rows):
    path = tmp_path / "r.json"
    write_results(path, "mic_test", {}, rows)
    before = path.read_bytes()
    for bad, message in (
        ([], "there are no rows"),
        ([{"method": "mic"}], "row 0: .*'ci_high'.* are missing"),
        ([row("mic", 16, float("nan"))], "value is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            write_results(path, "mic_test", {}, bad)
    assert path.read_bytes() == before
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"no results json: it lacks \['commit', 'config', 'machine', 'study'\]"):
        read_results(path)
    for text, message in (("{", "cannot be read as json: Expecting"), ("[]", "no results json: it holds a list")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_results(path)


def test_all_names_exist():
    assert all(hasattr(results, name) for name in results.__all__)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: "[" * 3000 + "]" * 3000, "cannot be read as json: maximum recursion depth"),
        (lambda found: "1" * 5000, "cannot be read as json: Exceeds the limit"),
        (lambda found: b"\xfe\xff\x00", "cannot be read as json"),
        (lambda found: {**found, "machine": None}, "machine must hold what write_results wrote"),
        (lambda found: {**found, "rows": {"a": 1}}, "rows must hold what write_results wrote"),
        (lambda found: {**found, "rows": ["x"]}, "row 0: is a str"),
        (lambda found: {**found, "rows": [{**found["rows"][0], "value": None}]}, "row 0: value is a NoneType"),
        (lambda found: {**found, "rows": [{**found["rows"][0], "value": 10**400}]}, "row 0 .*: value is 1000"),
        (lambda found: {**found, "rows": [{**found["rows"][0], "dim": [8]}]}, "row 0: dim is a list"),
        (
            lambda found: {**found, "rows": [{**found["rows"][0], "task": 3}]},
            "row 0: task is a int; method, task, metric are texts",
        ),
    ],
)
def test_damaged_results_name_file_and_field(tmp_path, rows, change, message):
    path = tmp_path / "results.json"
    changed = change(json.loads(json.dumps(write_results(path, "s", {}, rows))))
    content = changed if isinstance(changed, str | bytes) else json.dumps(changed)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"^{path}.*{message}"):
        read_results(path)
