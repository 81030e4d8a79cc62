"""Fail if a test report holds fewer tests than stated, or skipped real-data tests although the data folder exists."""

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REAL_DATA_SKIP = "real data folder not found"  # the reason given by tests/conftest.py


def check_report(report: Path, min_tests: int, data_dir: Path) -> list[str]:
    """Return what is wrong with a junit report, an empty list when nothing is."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    problems = []
    if len(cases) - len(skipped) < min_tests:
        problems.append(f"only {len(cases) - len(skipped)} tests ran, at least {min_tests} are expected")
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
    args = parser.parse_args()
    problems = check_report(args.report, args.min_tests, args.data_dir)
    for problem in problems:
        print(f"check_report: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
