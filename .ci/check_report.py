"""Fail if a test that stands in the code is not in the report, one that must run was skipped, or real data was not read.

What is expected is read from the code, so that no number has to be kept: every test function below tests/ and every
docstring example of the packages, but those marked slow or gpu.
"""

import argparse
import ast
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

REAL_DATA_SKIP = "real data folder not found"  # the reason given by tests/conftest.py
DESELECTED = ("slow", "gpu")  # what `make test` leaves out
PACKAGES = ("hf_mic", "hf_evl_ecg")


def expected_tests(root: Path) -> set[tuple[str, str]]:
    """(module, name) of every test function and every docstring example of a checkout, as a junit report calls them."""
    found = set()
    for path in (root / "tests").rglob("test_*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
        found |= {(_module(root, path), node.name) for node in functions if not _is_deselected(node)}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            module = _module(root, path)
            examples = _examples(ast.parse(path.read_text(encoding="utf-8")), module.removesuffix(".__init__"))
            found |= {(module, name) for name in examples}
    return found


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _is_deselected(function: ast.FunctionDef) -> bool:
    marks = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(f"pytest.mark.{name}" in mark for name in DESELECTED for mark in marks)


def _examples(node: ast.AST, name: str) -> Iterator[str]:
    """Names of a module and of its classes and functions whose docstring holds an example."""
    if ">>>" in (ast.get_docstring(node) or ""):  # type: ignore[arg-type]  # a node that may have one
        yield name
    for child in node.body:  # type: ignore[attr-defined]
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _examples(child, f"{name}.{child.name}")


def check_report(report: Path, root: Path, data_dir: Path, must_run: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with a junit report, an empty list when nothing is."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    reported = {(case.get("classname"), (case.get("name") or "").split("[")[0]) for case in cases}
    skipped = [(case.get("name") or "", skip) for case in cases if (skip := case.find("skipped")) is not None]
    problems = []
    expected = expected_tests(root)
    if not expected:
        problems.append(f"{root} holds no tests")
    if vanished := sorted(f"{module}::{name}" for module, name in expected - reported):
        problems.append(f"{len(vanished)} tests stand in the code and not in the report: {', '.join(vanished[:10])}")
    for name in must_run:
        if not any(case.get("name") == name for case in cases):
            problems.append(f"{name} is not in the report")
        reasons = [skip.get("message") for skipped_name, skip in skipped if skipped_name == name]
        problems += [f"{name} must run and was skipped: {reason}" for reason in reasons]
    if data_dir.is_dir():
        unread = [name for name, skip in skipped if REAL_DATA_SKIP in (skip.get("message") or "")]
        if unread:
            problems.append(
                f"{data_dir} exists but {len(unread)} real-data tests were skipped: {', '.join(unread[:5])}"
            )
    return problems


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--must-run", action="append", default=[], metavar="TEST", help="a test that may not be skipped"
    )
    args = parser.parse_args()
    problems = check_report(args.report, args.root, args.data_dir, args.must_run)
    for problem in problems:
        print(f"check_report: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
