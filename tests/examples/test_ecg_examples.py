"""examples/evl_ecg: short scripts that a user copies, which need the package alone; files of options; two processes."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hf_evl_ecg.commands import distil, teach

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ecg_work import PAGE, TRAIN, distance, make_work

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "evl_ecg"
CONFIGS = FOLDER.parent / "configs"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_needs_the_package_alone(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    beside = {path.stem for path in SCRIPTS}
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & beside
    assert f"python examples/evl_ecg/{script.name}" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_shows_its_options(script, tmp_path):
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "usage: hf-evl-ecg " in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_refuses_in_one_line(script, tmp_path):
    command = [sys.executable, str(script), "--config", "absent.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "absent.yaml" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "verb"), [("ecg_teacher", teach), ("ecg_distill", distil)])
def test_configs_are_options_of_the_scripts(name, verb, tmp_path, monkeypatch):
    parsed: list = []
    monkeypatch.setattr(verb, "main", lambda *given: parsed.extend(given))
    more = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "False", "--learning_rate", "0.5"]
    verb.command(["--config", str(CONFIGS / f"{name}.yaml"), *more])
    assert parsed[-1].learning_rate == 0.5
    assert parsed[1].augment == yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["augment"]


def test_two_processes(tmp_path):
    work = make_work(tmp_path / "work")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--cpu",
        "--mixed_precision",
        "no",
    ]
    launch += ["--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", str(port)]
    script = [str(FOLDER / "distill.py"), "--student", str(work / "student_init"), "--data", str(work / "questions")]
    script += ["--teacher", str(work / "teacher"), *map(str, [*PAGE, *TRAIN]), "--max_steps", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launch, *script, "--output_dir", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Written:") == 1
    assert distance(work / "student_init", tmp_path / "two") > 0
