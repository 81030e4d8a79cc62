"""Real text that every machine has: what the functions and classes of installed Python packages say about themselves.

The first sentence of each public docstring, read from the source without importing it, and the name of what it describes in words.
Packages are held out whole: no sentence of a package that is scored is fitted on.
"""

import ast
import importlib.util
import random
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_mic.budgets.scoring import NEIGHBOURS
from hf_mic.evaluation.tasks import ClassificationTask, RetrievalTask

__all__ = ["FITTED", "SCORED", "Docstring", "neighbour_task", "read_docstrings", "text_tasks"]

STANDARD_LIBRARY = "standard library"
FITTED = (STANDARD_LIBRARY, "scipy", "matplotlib")
SCORED = ("numpy", "sklearn", "pandas")
LETTERS = (20, 240)
LEAST_OF_AN_AREA = 10
_LEFT_OUT = {"tests", "test", "testing", "site-packages", "idlelib", "lib2to3"}  # not of users, or not of the package


@dataclass(frozen=True)
class Docstring:
    """What a function or class says about itself.

    Args:
        area: Where it stands, as "sklearn.linear_model": at most three levels.
        name: Its name in words, as "ridge classifier".
        summary: Its first sentence.
    """

    area: str
    name: str
    summary: str


def read_docstrings(package: str) -> list[Docstring]:
    """Docstrings of a package, each sentence once, in the order of its files.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    if package == STANDARD_LIBRARY:
        root = Path(sysconfig.get_paths()["stdlib"])
    else:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"{package!r} is not installed: its docstrings are what the demonstration reads")
        root = Path(found.origin).parent
    first: dict[str, Docstring] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not _LEFT_OUT.intersection(parts):
            area = ".".join([package, *parts[:-1]][:3])
            for docstring in _of_file(path, area):
                first.setdefault(docstring.summary, docstring)
    return list(first.values())


def _of_file(path: Path, area: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):  # templates, and files that test parsers
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            summary = first_sentence(ast.get_docstring(node) or "")
            if summary:
                yield Docstring(area, words(node.name), summary)


def first_sentence(docstring: str) -> str | None:
    r"""The first sentence without marks of reStructuredText; None where it is too short or too long to be one.

    Example:
        >>> first_sentence("Return ``True`` if :func:`x` is\nfinite. Else not.")
        'Return True if x is finite.'
    """
    text = " ".join(docstring.strip().split("\n\n")[0].split())
    text = re.sub(r":\w+:(?=`)|`+", "", text)
    sentence = re.split(r"(?<=[.!?])\s", text)[0]
    return sentence if LETTERS[0] <= len(sentence) <= LETTERS[1] else None


def words(name: str) -> str:
    """A name as its words.

    Example:
        >>> words("RidgeClassifier"), words("train_test_split")
        ('ridge classifier', 'train test split')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip().lower()


def text_tasks(docstrings: Sequence[Docstring], *, seed: int = 0) -> tuple[RetrievalTask, ClassificationTask]:
    """Two tasks on sentences that nothing was fitted on.

    - ``search_by_name``: find the sentence that describes a function by the words of its name, of those names that have two words and
      one sentence.
    - ``area``: tell from the ten nearest of half of the sentences where in its package a sentence of the other half stands.
    """
    corpus = {docstring.summary: f"d{i}" for i, docstring in enumerate(docstrings)}
    described: dict[str, set[str]] = defaultdict(set)
    for docstring in docstrings:
        if " " in docstring.name:
            described[docstring.name].add(docstring.summary)
    asked = {name: next(iter(found)) for name, found in described.items() if len(found) == 1}
    queries = {f"q{i}": name for i, name in enumerate(asked)}
    relevant = {f"q{i}": {corpus[summary]: 1} for i, summary in enumerate(asked.values())}
    search = RetrievalTask("search_by_name", {key: summary for summary, key in corpus.items()}, queries, relevant)

    areas: dict[str, list[str]] = defaultdict(list)
    for docstring in docstrings:
        areas[docstring.area].append(docstring.summary)
    generator, halves = random.Random(seed), ([], [])  # type: ignore[var-annotated]
    for area, summaries in areas.items():
        if len(summaries) >= LEAST_OF_AN_AREA:
            generator.shuffle(summaries)
            for half, part in zip(halves, (summaries[::2], summaries[1::2]), strict=True):
                half.extend((summary, area) for summary in part)
    columns = [list(column) for half in halves for column in zip(*half, strict=True)]
    return search, ClassificationTask("area", *columns)


def neighbour_task(texts: Sequence[str], vectors: NDArray[np.float32], *, seed: int = 0) -> RetrievalTask:
    """``neighbours``: find the ten texts that are nearest at full width, for a quarter of the texts among all others.

    Args:
        texts: What is searched and asked.
        vectors: Of unit length. Shape: (N, D).
        seed: Seed of the quarter.
    """
    asked = sorted(random.Random(seed).sample(range(len(texts)), len(texts) // 4))
    others = np.setdiff1d(np.arange(len(texts)), asked)
    nearest = others[np.argsort(-vectors[asked] @ vectors[others].T, axis=1, kind="stable")[:, :NEIGHBOURS]]
    relevant = {f"q{row}": {f"d{found}": 1 for found in rows} for row, rows in zip(asked, nearest, strict=True)}
    corpus = {f"d{row}": texts[row] for row in others}
    return RetrievalTask("neighbours", corpus, {f"q{row}": texts[row] for row in asked}, relevant)
