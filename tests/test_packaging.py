"""What is installed: every room, stub and template; each package without the other's dependencies."""

import subprocess
import sys
from pathlib import Path

import pytest

DATA = {".py", ".pyi", ".typed", ".md", ".css", ".html", ".jinja", ".yaml"}


def test_a_build_holds_every_file_of_both_packages(repo_root, tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path / "lib") for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    here = {
        path.relative_to(repo_root)
        for package in ("hf_mic", "hf_evl_ecg")
        for path in (repo_root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path.suffix or path.name for path in here} <= DATA | {"py.typed"}
    assert built == here
    assert Path("hf_evl_ecg", "signals", "__init__.pyi") in built


def test_versions_beside_torchvision_are_the_usual_ones(repo_root):
    """What differs is torch, for which the usual version has no torchvision, and what the processors need."""

    def pins(name: str) -> dict[str, str]:
        lines = (repo_root / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split("==", 1) for line in lines if not line.startswith("#"))

    usual, other = pins("constraints.txt"), pins("constraints-torchvision.txt")
    assert {name for name in usual if other.get(name) != usual[name]} == {"torch"}
    assert other.keys() - usual.keys() == {"torchvision", "num2words", "docopt"}


@pytest.mark.parametrize(
    ("package", "names", "missing", "extra"),
    [
        ("hf_mic", ["MICLoss", "MICTrainer"], "sentence_transformers", "mic"),
        ("hf_evl_ecg", ["read_record"], "wfdb", "ecg"),
        ("hf_evl_ecg", ["render"], "PIL", "ecg"),
    ],
)
def test_a_missing_dependency_says_what_to_install(package, names, missing, extra):
    for name in names:
        code = f"import sys; sys.modules[{missing!r}] = None\nimport {package}\n{package}.{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1
        expected = f"{package}.{name} needs {missing}: pip install 'hf-mic-evl-ecg[{extra}]'"
        assert done.stderr.strip().splitlines()[-1] == f"ModuleNotFoundError: {expected}"


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("hf_mic.functional", ["sentence_transformers", "wfdb", "PIL", "matplotlib"]),
        ("hf_evl_ecg.losses", ["sentence_transformers", "sklearn", "wfdb", "matplotlib"]),
        ("hf_evl_ecg.records.reader", ["sentence_transformers", "transformers"]),
    ],
)
def test_what_does_not_need_a_dependency_works_without(module, missing):
    code = f"import sys\nfor name in {missing!r}: sys.modules[name] = None\nimport {module}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
