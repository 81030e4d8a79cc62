"""Results of a study: a json file that is the only source of every table, picture and model card."""

import math
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, SupportsFloat

import torch

from hf_evl_ecg.files import write_json
from hf_evl_ecg.json_text import read_json

__all__ = ["ROW_KEYS", "current_commit", "read_results", "summarize_machine", "write_results"]

ROW_KEYS = ("method", "seed", "task", "dim", "metric", "value", "n", "ci_low", "ci_high")
_KEYS = {"study": str, "config": dict, "commit": str | None, "machine": dict, "rows": list}
_TEXTS = ("method", "task", "metric")
_NUMBERS = ("seed", "dim", "value", "n", "ci_low", "ci_high")  # all but the value may be None


def summarize_machine() -> dict[str, Any]:
    """What the numbers were computed with: processor, threads and versions, no names of hosts or users."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return {
        "cpu": found.group(1) if found else platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "transformers")},
        "torch": str(torch.__version__),  # with "+cu130", which the version of the package lacks
    }


def current_commit() -> str | None:
    """Commit of the checkout this package runs from, with "-dirty" if files differ from it; None outside of one."""
    package = Path(__file__).resolve().parent
    try:
        top = _git(package, "rev-parse", "--show-toplevel")
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", str(package))
    except (OSError, subprocess.SubprocessError):
        return None
    if Path(top).resolve() != package.parent:
        return None
    return f"{commit}-dirty" if changed else commit


def write_results(
    path: str | Path, study: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write ``{"study", "config", "commit", "machine", "rows"}`` as json, whole or not at all.

    Args:
        path: Where to write; folders are created.
        study: Name of the study, such as ``ecg_small``.
        config: Settings that produced the rows; values that json does not know are written as text.
        rows: Rows of `hf_evl_ecg.inference.evaluation.score_answers`, possibly of many calls.

    Returns:
        What was written.

    Raises:
        ValueError: There are no rows, a row lacks a key, or a value is NaN or infinite.
    """
    _check_rows(rows, str(path))
    results = {
        "study": study,
        "config": dict(config),
        "commit": current_commit(),
        "machine": summarize_machine(),
        "rows": [dict(row) for row in rows],
    }
    write_json(path, results, default=str)
    return results


def read_results(path: str | Path) -> dict[str, Any]:
    """Read and check a results json.

    Raises:
        ValueError: It is no results json; the text names what is missing, or what is of another type.
    """
    results = read_json(path)
    if not isinstance(results, dict) or (missing := sorted(_KEYS.keys() - results.keys())):
        raise ValueError(
            f"{path} is no results json; it lacks {missing if isinstance(results, dict) else sorted(_KEYS)}"
        )
    if wrong := [name for name, kinds in _KEYS.items() if not isinstance(results[name], kinds)]:
        raise ValueError(f"{path} is no results json; {', '.join(wrong)} must hold what write_results wrote")
    _check_rows(results["rows"], str(path))
    return results


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _is_finite(value: SupportsFloat) -> bool:
    """False of whole numbers beyond float64, too."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_rows(rows: Sequence[Mapping[str, Any]], where: str) -> None:
    if not rows:
        raise ValueError(f"{where}: there are no rows")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}, row {number}: is a {type(row).__name__}; needed: {list(ROW_KEYS)}")
        if missing := [key for key in ROW_KEYS if key not in row]:
            raise ValueError(f"{where}, row {number}: {missing} are missing; needed: {list(ROW_KEYS)}")
        wrong = [name for name in _TEXTS if not isinstance(row[name], str)]
        # SupportsFloat: numbers of numpy and torch are numbers too.
        wrong += [
            name
            for name in _NUMBERS
            if not isinstance(row[name], SupportsFloat) and (row[name] is not None or name == "value")
        ]
        if wrong:
            kind = type(row[wrong[0]]).__name__
            raise ValueError(
                f"{where}, row {number}: {wrong[0]} is a {kind}; {', '.join(_TEXTS)} are texts, all else numbers"
            )
        if not _is_finite(row["value"]):
            raise ValueError(f"{where}, row {number} ({row['method']}, {row['task']}): value is {row['value']}")
