""".ci/check_report.py refuses reports with too few tests, without tests that must run, or with needless skips."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "check_report.py"
SKIPPED = '<testcase name="s"><skipped message="real data folder not found"/></testcase>'


def check(report: Path, min_tests: int, data_dir: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), str(report), "--min-tests", str(min_tests), "--data-dir", str(data_dir)]
    return subprocess.run([*command, *more], capture_output=True, text=True)


def test_report(tmp_path):
    report = tmp_path / "junit.xml"
    report.write_text(
        f'<testsuites><testsuite><testcase name="a"/><testcase name="b"/>{SKIPPED}</testsuite></testsuites>'
    )
    absent = tmp_path / "absent"
    assert check(report, 2, absent).returncode == 0
    assert "only 2 tests ran, at least 3" in check(report, 3, absent).stderr
    with_data = check(report, 2, tmp_path)
    assert with_data.returncode == 1
    assert "1 real-data tests were skipped: s" in with_data.stderr


def test_tests_that_must_run(tmp_path):
    report = tmp_path / "junit.xml"
    skipped = '<testcase name="browser"><skipped message="no chromium"/></testcase>'
    report.write_text(f'<testsuites><testsuite><testcase name="a"/>{skipped}</testsuite></testsuites>')
    absent = tmp_path / "absent"
    assert check(report, 1, absent, "--must-run", "a").returncode == 0
    not_run = check(report, 1, absent, "--must-run", "a", "--must-run", "browser", "--must-run", "gone")
    assert not_run.returncode == 1
    assert "browser must run and was skipped: no chromium" in not_run.stderr
    assert "gone is not in the report" in not_run.stderr
