"""Tables of benchmarks: printed row by row, written as json after each, and gathered in benchmarks/README.md.

    python benchmarks/reporting.py

writes README.md from results/*.json, and names the scripts that have no result yet.
"""

import argparse
import ast
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_mic.files import plain, read_json, write_text

__all__ = ["Table", "describe", "machine", "options", "page", "scripts"]

FOLDER = Path(__file__).resolve().parent
SHARED = ("measuring", "reporting")  # modules of the scripts, which measure nothing themselves
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni")
HEAD = """\
# Benchmarks

One script for each claim of speed. `python benchmarks/reporting.py` makes this page of `results/*.json`, which the scripts write with
`--output`; nothing in it is written by hand. A ratio is a way's time to ours, unless the text above a table names another: above 1 it is
slower than ours.
"""


def options(about: str | None) -> argparse.ArgumentParser:
    """A parser of a benchmark's options whose help is the script's docstring; ``--output`` is one of them."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, help="json file for the table; those in benchmarks/results make benchmarks/README.md"
    )
    return parser


class Table:
    """The table of a benchmark: each row is printed in Markdown as it comes, and the json is written anew with it.

    Args:
        script: ``__file__`` of the benchmark.
        output: The json file; None: the table is only printed.
        columns: Name of each column → format of its cells, such as ``".1f"``; ``""`` for text.
        libraries: Distributions whose versions belong to the result; one that is not installed has the version None.
        resume: Take over the rows that ``output`` holds from the same machine.

    Attributes:
        rows: The rows so far, by name of the column.

    Raises:
        ValueError: If the rows to take over were measured on another machine.
    """

    def __init__(
        self,
        script: str,
        output: Path | None,
        columns: Mapping[str, str],
        libraries: Sequence[str] = (),
        *,
        resume: bool = False,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._output, path = output, Path(script)
        self._about: dict[str, Any] = {
            "benchmark": path.stem,
            "what": describe(path),
            "command": _command(path, output),
            "machine": machine(libraries),
            "commit": _commit(path),
            "columns": dict(columns),
        }
        if resume and output is not None and output.exists():
            found = read_json(output)
            if found["machine"] != self._about["machine"]:
                raise ValueError(
                    f"{output} was measured on {found['machine']}, this is {self._about['machine']}; name another --output"
                )
            self.rows = found["rows"]
        print("\n".join(_head(columns)), flush=True)

    def add(self, *cells: Any) -> None:
        """Print a row and write it; NaN and infinity become None, which is shown as a dash."""
        row = dict(zip(self._about["columns"], map(_cell, cells), strict=True))
        self.rows.append(row)
        print(_line(self._about["columns"], row), flush=True)
        if self._output is not None:
            write_text(self._output, _json({**self._about, "rows": self.rows}))


def machine(libraries: Sequence[str] = ()) -> dict[str, Any]:
    """What times are times of: processor, threads and versions, no names of hosts or users.

    Args:
        libraries: Distributions whose versions are wanted.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    torch = sys.modules.get("torch")  # what a script has not imported takes no part
    return {
        "cpu": name.group(1) if name else platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if f" {flag} " in text],
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in libraries},
    }


def describe(script: Path) -> str:
    """The first paragraph of a script's docstring, on one line."""
    about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return " ".join(about.split("\n\n")[0].split())


def scripts(folder: Path = FOLDER) -> list[Path]:
    """The benchmarks of a folder, in order of their names."""
    return sorted(path for path in folder.glob("*.py") if path.stem not in SHARED)


def page(folder: Path = FOLDER) -> str:
    """The README of a folder of benchmarks, made of its ``results/*.json``.

    Args:
        folder: Where scripts and results lie.
    """
    results = {path.stem: read_json(path) for path in sorted((folder / "results").glob("*.json"))}
    measured = {result["benchmark"] for result in results.values()}
    missing = [path for path in scripts(folder) if path.stem not in measured]
    parts = [HEAD, *(_section(name, result) for name, result in results.items())]
    if missing:
        lines = [f"- `{path.name}`: {describe(path)}" for path in missing]
        parts.append("\n".join(["## Without a result yet\n", *lines, ""]))
    return "\n".join(parts)


def _section(name: str, result: Mapping[str, Any]) -> str:
    columns, about = result["columns"], result["machine"]
    threads = about["threads"] and f"{about['threads']} thread{'s' * (about['threads'] > 1)}"
    versions = [f"{library} {number}" for library, number in about["libraries"].items() if number]
    parts = [about["cpu"], f"{about['cores']} cores", threads, *about["flags"], about["gpu"]]
    parts += [f"Python {about['python']}", *versions, result["commit"] and f"commit {result['commit']}"]
    table = [*_head(columns), *(_line(columns, row) for row in result["rows"])]
    text = [f"## {name}\n", f"{result['what']}\n", f"    {result['command']}\n", f"{', '.join(filter(None, parts))}\n"]
    return "\n".join([*text, *table, ""])


def _head(columns: Mapping[str, str]) -> list[str]:
    """First two lines of a table; numbers stand on the right."""
    rules = ["--:" if spec else "---" for spec in columns.values()]
    return [f"| {' | '.join(columns)} |", f"| {' | '.join(rules)} |"]


def _line(columns: Mapping[str, str], row: Mapping[str, Any]) -> str:
    cells = ["–" if row[name] is None else format(row[name], spec) for name, spec in columns.items()]
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> Any:
    """Numbers of numpy as Python's, and None for what json has no number for."""
    value = plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(result: Mapping[str, Any]) -> str:
    """A row on each line, so that a new measurement changes few lines."""
    rows = ",\n".join(f"  {_dump(row)}" for row in result["rows"])
    fields = [f" {_dump(name)}: {_dump(value)}" for name, value in result.items() if name != "rows"]
    return "{\n" + ",\n".join([*fields, f' "rows": [\n{rows}\n ]']) + "\n}\n"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _command(script: Path, output: Path | None) -> str:
    """The command line that measures it again, whatever folder its result was first written to."""
    words = [f"benchmarks/results/{output.name}" if output and w == str(output) else w for w in sys.argv[1:]]
    threads = os.environ.get("OMP_NUM_THREADS")
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(
        ["python", f"benchmarks/{script.name}", *words]
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _commit(script: Path) -> str | None:
    """Short hash of the checkout, with "-dirty" if packages or script differ from it; None outside of one."""
    root = script.resolve().parent.parent
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "--short", "HEAD").split("\n")
        changed = _git(root, "status", "--porcelain", "--", "hf_mic", "hf_evl_ecg", f"benchmarks/{script.name}")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + "-dirty" * bool(changed) if Path(top).resolve() == root else None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def main() -> None:
    """Write benchmarks/README.md."""
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.parse_args()
    write_text(FOLDER / "README.md", page())


if __name__ == "__main__":
    main()
