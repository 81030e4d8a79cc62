"""Results of a study: a json file that is the only source of every table, picture and README section."""

import json
import math
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, SupportsFloat

import torch

from hf_mic.files import plain, read_json, write_text

__all__ = ["Rows", "read_results", "summarize_machine", "write_results"]

ROW_KEYS = frozenset(("method", "seed", "task", "dim", "metric", "value", "n", "ci_low", "ci_high"))

_KEYS = {"study": str, "config": dict, "commit": str | None, "machine": dict, "rows": list}
_TEXTS = ("method", "task", "metric")
_NUMBERS = ("seed", "dim", "value", "n", "ci_low", "ci_high")  # all but the value may be None

Rows = Sequence[Mapping[str, Any]]


def summarize_machine() -> dict[str, Any]:
    """What the numbers were computed with: processor, threads and versions, no names of hosts or users."""
    packages = ("numpy", "scikit-learn", "sentence-transformers", "transformers")
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "torch": str(torch.__version__),  # with "+cu130", which the version of the package lacks
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found.group(1) if found else platform.machine()


def _git_commit() -> str | None:
    """Commit of the checkout this package runs from, ``None`` outside of one."""
    package = Path(__file__).resolve().parent
    command = ["git", "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    top, commit = done.stdout.split("\n")[:2]
    return commit if Path(top).resolve() == package.parent else None


def write_results(path: str | Path, study: str, config: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """Write ``{"study", "config", "commit", "machine", "rows"}`` as json, whole or not at all.

    Args:
        path: Where to write; folders are created.
        study: Name of the study, such as ``mic_minilm``.
        config: Settings that produced the rows; values that json does not know are written as text.
        rows: Rows of :func:`hf_mic.evaluation.evaluation.score_embeddings`, possibly of many calls.

    Returns:
        What was written.

    Raises:
        ValueError: If there are no rows, a row lacks a key, or a value is NaN or infinite.
    """
    _check_rows(rows, str(path))
    results = {
        "study": study,
        "config": dict(config),
        "commit": _git_commit(),
        "machine": summarize_machine(),
        "rows": [dict(row) for row in rows],
    }
    text = json.dumps(results, indent=1, default=_known_to_json, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")
    return results


def _known_to_json(value: Any) -> Any:
    """Numbers of numpy as numbers, what json does not know otherwise as text."""
    number = plain(value)
    return str(value) if number is value else number


def read_results(path: str | Path) -> dict[str, Any]:
    """Read and check a results json.

    Raises:
        ValueError: If it is not json, or a key is missing or holds something else, with its name.
    """
    results = read_json(path)
    if not isinstance(results, dict):
        raise ValueError(f"{path} is no results json: it holds a {type(results).__name__}.")
    if missing := _KEYS.keys() - results.keys():
        raise ValueError(f"{path} is no results json: it lacks {sorted(missing)}.")
    if wrong := [name for name, kinds in _KEYS.items() if not isinstance(results[name], kinds)]:
        raise ValueError(f"{path} is no results json: {', '.join(wrong)} must hold what write_results wrote.")
    _check_rows(results["rows"], str(path))
    return results


def _is_finite(value: SupportsFloat) -> bool:
    """False of whole numbers beyond float64, too."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_rows(rows: Rows, where: str) -> None:
    if not rows:
        raise ValueError(f"{where}: there are no rows.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or (missing := ROW_KEYS - row.keys()):
            lacking = f"{sorted(missing)} are missing" if isinstance(row, Mapping) else f"is a {type(row).__name__}"
            raise ValueError(f"{where}, row {number}: {lacking}.")
        wrong = [name for name in _TEXTS if not isinstance(row[name], str)]
        # SupportsFloat: numbers of numpy and torch are numbers too.
        wrong += [
            name
            for name in _NUMBERS
            if not isinstance(row[name], SupportsFloat) and (row[name] is not None or name == "value")
        ]
        if wrong:
            raise ValueError(
                f"{where}, row {number}: {wrong[0]} is a {type(row[wrong[0]]).__name__}; {', '.join(_TEXTS)} are texts, all else numbers."
            )
        if not _is_finite(row["value"]):
            raise ValueError(f"{where}, row {number} ({row['method']}, {row['task']}): value is {row['value']}.")
