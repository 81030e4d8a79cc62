"""Fail if a test report holds too few tests, lacks one that must run, or skipped real-data tests although the data is there."""

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

REAL_DATA_SKIP = "real data folder not found"  # the reason given by tests/conftest.py


def check_report(report: Path, min_tests: int, data_dir: Path, must_run: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with a junit report, an empty list when nothing is."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    problems = []
    if len(cases) - len(skipped) < min_tests:
        problems.append(f"only {len(cases) - len(skipped)} tests ran, at least {min_tests} are expected")
    for name in must_run:
        if not any(case.get("name") == name for case in cases):
            problems.append(f"{name} is not in the report")
        reasons = [c.find("skipped").get("message") for c in skipped if c.get("name") == name]
        problems += [f"{name} must run and was skipped: {reason}" for reason in reasons]
    if data_dir.is_dir():
        unread = [c.get("name") for c in skipped if REAL_DATA_SKIP in (c.find("skipped").get("message") or "")]
        if unread:
            problems.append(
                f"{data_dir} exists but {len(unread)} real-data tests were skipped: {', '.join(unread[:5])}"
            )
    return problems


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--min-tests", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--must-run", action="append", default=[], metavar="TEST", help="a test that may not be skipped"
    )
    args = parser.parse_args()
    problems = check_report(args.report, args.min_tests, args.data_dir, args.must_run)
    for problem in problems:
        print(f"check_report: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
