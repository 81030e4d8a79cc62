""".ci/check_report.py refuses reports that lack a test of the code or one that must run, and needless skips."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "check_report.py"
SKIPPED = '<testcase classname="tests.room.test_b" name="test_data"><skipped message="real data folder not found"/></testcase>'


@pytest.fixture
def checkout(tmp_path) -> Path:
    root = tmp_path / "checkout"
    (root / "tests" / "room").mkdir(parents=True)
    (root / "hf_mic").mkdir()
    (root / "tests" / "test_a.py").write_text("def test_one():\n    pass\n\n\ndef helper():\n    pass\n")
    (root / "tests" / "room" / "test_b.py").write_text(
        "import pytest\n\n\ndef test_data():\n    pass\n\n\n@pytest.mark.slow\ndef test_slow():\n    pass\n"
    )
    (root / "hf_mic" / "maths.py").write_text('class A:\n    def f(self):\n        """F.\n\n        >>> 1\n        1\n        """\n')  # fmt: skip
    (root / "hf_evl_ecg").mkdir()
    (root / "hf_evl_ecg" / "__init__.py").write_text('"""A package.\n\n>>> 1\n1\n"""\n')
    return root


def check(checkout: Path, cases: str, data_dir: Path, *more: str) -> subprocess.CompletedProcess:
    report = checkout.parent / "junit.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    command = [sys.executable, str(SCRIPT), str(report), "--root", str(checkout), "--data-dir", str(data_dir), *more]
    return subprocess.run(command, capture_output=True, text=True)


def case(module: str, name: str) -> str:
    return f'<testcase classname="{module}" name="{name}"/>'


ONE = case("tests.test_a", "test_one[x]")
EXAMPLE = case("hf_mic.maths", "hf_mic.maths.A.f")
PACKAGE = case("hf_evl_ecg.__init__", "hf_evl_ecg")


def test_what_stands_in_the_code_is_expected(checkout, tmp_path):
    absent = tmp_path / "absent"
    assert check(checkout, ONE + PACKAGE + EXAMPLE + SKIPPED, absent).returncode == 0
    for cases, missing in (
        (PACKAGE + EXAMPLE + SKIPPED, "tests.test_a::test_one"),
        (ONE + PACKAGE + SKIPPED, "hf_mic.maths::hf_mic.maths.A.f"),
        (ONE + PACKAGE + EXAMPLE + case("tests.test_b", "test_data"), "tests.room.test_b::test_data"),
    ):
        done = check(checkout, cases, absent)
        assert done.returncode == 1
        assert f"1 tests stand in the code and not in the report: {missing}\n" in done.stderr


def test_real_data_that_is_there_is_read(checkout, tmp_path):
    done = check(checkout, ONE + PACKAGE + EXAMPLE + SKIPPED, tmp_path)
    assert done.returncode == 1
    assert "1 real-data tests were skipped: test_data" in done.stderr


def test_tests_that_must_run(checkout, tmp_path):
    skipped = '<testcase classname="tests.t" name="browser"><skipped message="no chromium"/></testcase>'
    cases, absent = ONE + PACKAGE + EXAMPLE + SKIPPED + skipped, tmp_path / "absent"
    assert check(checkout, cases, absent, "--must-run", "test_one[x]").returncode == 0
    not_run = check(checkout, cases, absent, "--must-run", "browser", "--must-run", "gone")
    assert not_run.returncode == 1
    assert "browser must run and was skipped: no chromium" in not_run.stderr
    assert "gone is not in the report" in not_run.stderr


def test_an_empty_checkout_is_refused(tmp_path):
    (tmp_path / "tests").mkdir()
    assert "holds no tests" in check(tmp_path, ONE, tmp_path / "absent").stderr
