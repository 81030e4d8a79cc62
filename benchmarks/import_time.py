"""What an import costs: each module in new interpreters, as a ratio to `import numpy` in the same run.

    python benchmarks/import_time.py

Interpreters are started in turn (bare, numpy, then each module), so that a machine that slows down slows all of them; times
are medians beyond the bare interpreter's. `import torch` stands beside them as what a light room does without.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODULES = (
    "numpy",
    "torch",
    "hf_mic",
    "hf_mic.functional",
    "hf_evl_ecg",
    "hf_evl_ecg.signals.ecg",
    "hf_evl_ecg.drawing.rendering",
    "hf_evl_ecg.records.reader",
    "hf_evl_ecg.ot",
)


def seconds(code: str) -> float:
    """Wall time of one interpreter that runs the code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def measure(modules: tuple[str, ...], repeats: int) -> dict[str, dict[str, float]]:
    """Per module: median seconds beyond the bare interpreter, and their ratio to numpy's."""
    codes = {"": "pass", **{module: f"import {module}" for module in modules}}
    for code in codes.values():
        seconds(code)  # not counted: writes byte code, fills the disk's cache
    times: dict[str, list[float]] = {module: [] for module in codes}
    for _ in range(repeats):
        for module, code in codes.items():
            times[module].append(seconds(code))
    beyond = {module: statistics.median(times[module]) - statistics.median(times[""]) for module in modules}
    return {module: {"seconds": value, "ratio": value / beyond["numpy"]} for module, value in beyond.items()}


def main() -> None:
    """Measure, print, and write a json if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    found = measure(MODULES, args.repeats)
    print(f"{'import':>30} {'seconds':>9} {'x numpy':>9}")
    for module, row in found.items():
        print(f"{module:>30} {row['seconds']:>9.3f} {row['ratio']:>9.2f}")
    if args.json:
        args.json.write_text(json.dumps({"python": sys.version.split()[0], "repeats": args.repeats, "modules": found}))


if __name__ == "__main__":
    main()
