"""The strict answer scores as a metric on the Hub, which `evaluate.load` runs without this package."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Unpack

from hf_evl_ecg.files import write_text
from hf_evl_ecg.qa import evaluate_metric
from hf_evl_ecg.qa.evaluate_metric import ECGAnswerMetric

from .push import PublishError, Push, PushOptions, publish_folder

__all__ = ["METRIC_FILES", "publish_metric"]

# evaluate puts the modules of a metric flat into one folder, so all must come from one.
QA = Path(evaluate_metric.__file__).parent
METRIC_FILES = ("README.md", "index.html", "*.py")

_CARD = """---
title: Strict scores of answers about ECGs
license: apache-2.0
sdk: static
tags: [evaluate, metric, ecg]
---
# Strict scores of answers about ECGs

Scores of generated answers about ECGs, per task; an answer that cannot be read is wrong. `predictions` are texts,
`references` are questions with what is right about them:

```python
import evaluate

metric = evaluate.load("{repo_id}")
item = {item}
print(metric.compute(predictions=["{prediction}"], references=[item]))
```

For research on models; a score says nothing about the safety of a model for patients.
"""
_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Strict scores of answers about ECGs</title>
<h1>Strict scores of answers about ECGs</h1>
<pre>evaluate.load("{repo_id}")</pre>
<p>The README of this repository shows how to use it.</p>
"""
_ITEM: dict[str, Any] = {
    **{"record": "r", "question": "Is there atrial fibrillation?", "answer": "yes", "format": "closed"},
    **{"task": "rhythm", "options": None, "labels": ["AF"], "value": None, "tolerance": None, "unit": None},
}
_ANSWER = "Yes."

_SCRIPT = """
import json, sys

sys.modules["hf_mic"] = sys.modules["hf_evl_ecg"] = None
import evaluate

given = json.loads(sys.stdin.read())
print(json.dumps(evaluate.load(sys.argv[1]).compute(predictions=[given["answer"]], references=[given["item"]])))
"""


def publish_metric(repo_id: str, **options: Unpack[PushOptions]) -> Push:
    """Publish `hf_evl_ecg.qa.evaluate_metric.ECGAnswerMetric` as a Space with its modules, as `evaluate` expects metrics.

    The Space holds code, as every metric does: those who load it run it; it needs datasets, numpy and scipy. After the push
    its copy on the Hub scores an example in a new process that cannot import this package, and must agree with the metric
    here.

    Args:
        repo_id: ``namespace/name``.
        **options: private, revision, tag, commit_message, parent_commit and api (see `hf_evl_ecg.hub.push.publish_folder`).

    Raises:
        PublishError: The Hub refused, the connection broke, or the copy on the Hub scores differently.
        ValueError: `repo_id` is no name of a repository.

    See docs/publish.md for a run.
    """
    expected, name = ECGAnswerMetric().compute(predictions=[_ANSWER], references=[_ITEM]), repo_id.split("/")[-1]

    def compare(copy: Path) -> None:
        if (found := _compute_elsewhere(copy / f"{name}.py")) != expected:
            raise PublishError(f"The metric on the Hub gives {found}, the one here {expected}.")

    with tempfile.TemporaryDirectory() as scratch:
        _write_metric(Path(scratch), repo_id, name)
        return publish_folder(
            Path(scratch), repo_id, lambda folder: compare, allowed=METRIC_FILES, repo_type="space", **options
        )[0]


def _write_metric(folder: Path, repo_id: str, name: str) -> None:
    """The metric under the name that `evaluate` looks for, with the modules it needs; it fetches those that are imported."""
    package, needed = QA, _modules("evaluate_metric")
    script = (package / "evaluate_metric.py").read_text(encoding="utf-8")
    fetched = "".join(f"from .{module} import __name__ as _{module}\n" for module in needed)
    write_text(
        folder / f"{name}.py", f"{script}\n\n# evaluate fetches the modules that this file itself imports\n{fetched}"
    )
    for module in needed:
        write_text(folder / f"{module}.py", (package / f"{module}.py").read_text(encoding="utf-8"))
    write_text(folder / "README.md", _CARD.format(repo_id=repo_id, item=_ITEM, prediction=_ANSWER))
    write_text(folder / "index.html", _PAGE.format(repo_id=repo_id))


def _modules(name: str) -> list[str]:
    """Modules of `hf_evl_ecg.qa` that a module imports, and those that they import."""
    found: set[str] = set()
    todo = [name]
    while todo:
        tree = ast.parse((QA / f"{todo.pop()}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                new = {node.module} if node.module else {alias.name for alias in node.names}
                todo += new - found
                found |= new
    return sorted(found)


def _compute_elsewhere(script: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _SCRIPT, str(script.absolute())],
            input=json.dumps({"item": _ITEM, "answer": _ANSWER}),
            capture_output=True,
            text=True,
            timeout=1800,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": cache, "HF_EVALUATE_OFFLINE": "1"},
            cwd=cache,
            check=False,
        )
    if done.returncode:
        raise PublishError(f"The metric does not run in a new process:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
