"""What an import costs: each module in new interpreters, as a ratio to `import numpy` in the same run.

    python benchmarks/import_time.py

Interpreters are started in turn (bare, numpy, then each module), so that a machine that slows down slows all of them; times
are medians beyond the bare interpreter's, by the clock on the wall. `import torch` stands beside them as what a light room does without.
"""

import statistics
import subprocess
import sys
import time

from reporting import Table, options

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


def measure(modules: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Median seconds of each module beyond the bare interpreter."""
    codes = {"": "pass", **{module: f"import {module}" for module in modules}}
    for code in codes.values():
        seconds(code)  # not counted: writes byte code, fills the disk's cache
    times: dict[str, list[float]] = {module: [] for module in codes}
    for _ in range(repeats):
        for module, code in codes.items():
            times[module].append(seconds(code))
    return {module: statistics.median(times[module]) - statistics.median(times[""]) for module in modules}


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    table = Table(__file__, args.output, {"import": "", "seconds": ".3f", "x numpy": ".2f"}, ("numpy", "torch"))
    found = measure(MODULES, args.repeats)
    for module, value in found.items():
        table.add(module, value, value / found["numpy"])


if __name__ == "__main__":
    main()
