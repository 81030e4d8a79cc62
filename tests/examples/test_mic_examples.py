"""examples/mic: short scripts that import the package only, name their three commands and do what the verbs do."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from hf_mic.__main__ import main

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "mic"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_the_scripts_are_those_of_the_verbs():
    assert [path.stem for path in SCRIPTS] == ["adapt", "evaluate", "publish", "train"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_imports_the_package_only(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    tree = ast.parse(text)
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"hf_mic"}
    head = ast.get_docstring(tree)
    assert f"python examples/mic/{path.name}" in head
    if path.stem in ("adapt", "evaluate", "train"):
        assert "CPU smoke run" in head
        assert "GPU" in head


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_takes_the_options_of_its_verb(path, monkeypatch, capsys):
    printed = []
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    for run in (lambda: runpy.run_path(str(path), run_name="__main__"), lambda: main([path.stem, "--help"])):
        with pytest.raises(SystemExit):
            run()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert f"usage: hf-mic {path.stem}" in printed[0]
